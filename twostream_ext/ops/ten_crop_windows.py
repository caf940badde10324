# SPDX-License-Identifier: BSD-3-Clause
"""The ten crops of the test protocol (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration
from twostream_ext.ops.random_windows import to_sizes


def ten_crop_windows(
    sizes: torch.Tensor | Sequence[Sequence[int]],
    size: int | Sequence[int],
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
    extents = to_sizes(sizes)
    height, width = registration.to_pair("ten_crop_windows", size)
    if out is not None:
        torch.ops.twostream.ten_crop_windows.out(extents, height, width, out=registration.to_tensor(out))
        return out
    result: torch.Tensor = torch.ops.twostream.ten_crop_windows(extents, height, width)
    return result


def _fill(sizes: torch.Tensor, height: int, width: int, *, out: torch.Tensor) -> None:
    _C.ten_crop_windows(sizes, height, width, out)


def _allocate(sizes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return sizes.new_empty([sizes.shape[0], 10, 3], dtype=torch.int32)


def _compute(sizes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    out = _allocate(sizes, height, width)
    _fill(sizes, height, width, out=out)
    return out


registration.register("ten_crop_windows(Tensor sizes, SymInt height, SymInt width) -> Tensor", _compute, _allocate)
registration.register(
    "ten_crop_windows.out(Tensor sizes, SymInt height, SymInt width, *, Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
