# SPDX-License-Identifier: BSD-3-Clause
"""The ten crops of the test protocol (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops._door import Size, Sizes
from twostream_ext.ops._operator import Operator


def ten_crop_windows(
    sizes: Sizes,
    size: Size,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Place ten windows: top left, top right, bottom left, bottom right, centre, then the same five flipped.

    Args:
        sizes: integers `[N, 2]`: height and width of each sample, in pixels.
        size: height and width of the window.
        out: fill and return this int32 tensor `[N, 10, 3]`.

    Returns:
        int32 `[N, 10, 3]` of (top, left, flip), on the device of `sizes`; the centre is rounded down.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or value, or a window larger than a sample (which
            is placed at 0 on CUDA, where looking would synchronise).
    """
    return _operator.call(sizes, size, out=out)


def _allocate(sizes: Tensor) -> Tensor:
    return sizes.new_empty([sizes.shape[0], 10, 3], dtype=torch.int32)


def _fill(sizes: Tensor, size: Sequence[int], *, out: Tensor) -> None:
    _C.ten_crop_windows(sizes, size, out)


_operator: Operator[Tensor] = Operator(ten_crop_windows, allocate=_allocate, fill=_fill)
