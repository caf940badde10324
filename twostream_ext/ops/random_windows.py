# SPDX-License-Identifier: BSD-3-Clause
"""Random crops and flips for training (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration


def random_windows(
    sizes: torch.Tensor | Sequence[Sequence[int]],
    size: int | Sequence[int],
    *,
    flip: float = 0.5,
    seed: int,
    offset: int = 0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw one window from each whole frame or field: every position alike, flipped with probability `flip`.

    Counter-based (Philox4x32-10): sample n draws from (seed, offset + n) alone, so that CPU and CUDA agree and the
    draw does not depend on how samples are split into batches or workers.

    Args:
        sizes: integers `[N, 2]`: height and width of each sample, in pixels.
        size: height and width of the window.
        flip: probability of a left-right flip.
        seed: from 0 to 2**63 - 1.
        offset: the number of the first sample, from 0 to 2**63 - 1.
        out: fill and return this int32 tensor `[N, 3]`.

    Returns:
        int32 `[N, 3]` of (top, left, flip), on the device of `sizes`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or value, or a window larger than a sample (which
            is placed at 0 on CUDA, where looking would synchronise).
    """
    extents = to_sizes(sizes)
    height, width = registration.to_pair("random_windows", size)
    for name, value in (("seed", seed), ("offset", offset)):
        if not 0 <= value < 2**63:
            raise ValueError(f"random_windows: {name} must be from 0 to 2**63 - 1, got {value}")
    if out is not None:
        torch.ops.twostream.random_windows.out(
            extents, height, width, flip, seed, offset, out=registration.to_tensor(out)
        )
        return out
    result: torch.Tensor = torch.ops.twostream.random_windows(extents, height, width, flip, seed, offset)
    return result


def to_sizes(sizes: torch.Tensor | Sequence[Sequence[int]]) -> torch.Tensor:
    """Give sizes as a contiguous int64 tensor; integers of other widths are taken too."""
    tensor = torch.as_tensor(sizes)
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise TypeError(f"sizes must be integers, got {tensor.dtype}")
    if tensor.dim() != 2:
        raise ValueError(f"sizes must be of shape [N, 2], got {tuple(tensor.shape)}")
    return tensor.to(torch.int64).contiguous()


def _fill(
    sizes: torch.Tensor,
    height: int,
    width: int,
    flip: float,
    seed: int,
    offset: int,
    *,
    out: torch.Tensor,
) -> None:
    _C.random_windows(sizes, height, width, flip, seed, offset, out)


def _allocate(sizes: torch.Tensor, height: int, width: int, flip: float, seed: int, offset: int) -> torch.Tensor:
    return sizes.new_empty([sizes.shape[0], 3], dtype=torch.int32)


def _compute(sizes: torch.Tensor, height: int, width: int, flip: float, seed: int, offset: int) -> torch.Tensor:
    out = _allocate(sizes, height, width, flip, seed, offset)
    _fill(sizes, height, width, flip, seed, offset, out=out)
    return out


registration.register(
    "random_windows(Tensor sizes, SymInt height, SymInt width, float flip, int seed, int offset) -> Tensor",
    _compute,
    _allocate,
)
registration.register(
    "random_windows.out(Tensor sizes, SymInt height, SymInt width, float flip, int seed, int offset, *,"
    " Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
