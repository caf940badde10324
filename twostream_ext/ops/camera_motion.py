# SPDX-License-Identifier: BSD-3-Clause
"""The camera's motion in a flow field: the affine map that its background follows."""

from __future__ import annotations

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops import _shapes as shapes
from twostream_ext.ops._door import Flow, PerField
from twostream_ext.ops._operator import Operator


def camera_motion(
    flow: Flow,
    *,
    lo: PerField | None = None,
    step: PerField | None = None,
    iterations: int = 8,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Fit an affine map to each whole field, in which what moves on its own does not count.

    The map A gives the displacement of the background at the pixel in column x and row y: A (x, y, 1), in pixels. The
    fit is by iteratively reweighted least squares with the weights of Geman and McClure, whose scale is taken from the
    residuals of each round. It starts at the best of plain fits to the field and to sixteen blocks of it. The start and
    all rounds but the last look at a regular grid of at most 4096 pixels, the last round at every pixel. For the
    background it takes what most of the field follows; up to 40 % of it may move on its own.

    Bytes: each field once, and what lies around the pixels of the grid once more.

    Args:
        flow: as for `flow_stack`.
        lo, step: float32 `[N, L, 2]`, for uint8 codes: displacement = lo + step * code.
        iterations: rounds, at least 1.
        out: fill and return this float32 tensor `[N, L, 2, 3]`.

    Returns:
        float32 `[N, L, 2, 3]`, the same for any number of threads. A field of one row, one column or one pixel has no
        slope along what it lacks. A NaN or an infinity in a field shows in its map.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
    """
    return _operator.call(flow, lo, step, iterations, out=out)


def _allocate(flow: list[Tensor]) -> Tensor:
    length = shapes.stack_length("camera_motion", flow)
    return flow[0].new_empty([shapes.batch_size(flow, shapes.FIELDS), length, 2, 3], dtype=torch.float32)


def _fill(flow: list[Tensor], lo: Tensor | None, step: Tensor | None, iterations: int, *, out: Tensor) -> None:
    _C.camera_motion(flow, lo, step, iterations, out)


_operator: Operator[Tensor] = Operator(camera_motion, allocate=_allocate, fill=_fill)
