# SPDX-License-Identifier: BSD-3-Clause
"""The mean displacement of a flow field, which stands for the camera's motion (paper, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops import _shapes as shapes
from twostream_ext.ops._door import Flow, PerField
from twostream_ext.ops._operator import Operator


def mean_flow(
    flow: Flow,
    *,
    lo: PerField | None = None,
    step: PerField | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Average each whole field: one x and one y mean, in pixels.

    Args:
        flow: as for `flow_stack`.
        lo, step: float32 `[N, L, 2]`, for uint8 codes: displacement = lo + step * code.
        out: fill and return this float32 tensor `[N, L, 2]`.

    Returns:
        float32 `[N, L, 2]`. A NaN or an infinity in a field shows in its mean.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
    """
    return _operator.call(flow, lo, step, out=out)


def computed_mean(operator: str, flow: list[Tensor], lo: Tensor | None, step: Tensor | None) -> Tensor:
    """Give the means where an operator is to subtract them and has none; errors name that operator."""
    mean = shapes.allocate_per_field(operator, flow)
    _C.mean_flow(operator, flow, lo, step, mean)
    return mean


def _allocate(flow: list[Tensor]) -> Tensor:
    return shapes.allocate_per_field("mean_flow", flow)


def _fill(flow: list[Tensor], lo: Tensor | None, step: Tensor | None, *, out: Tensor) -> None:
    _C.mean_flow("mean_flow", flow, lo, step, out)


_operator: Operator[Tensor] = Operator(mean_flow, allocate=_allocate, fill=_fill)
