# SPDX-License-Identifier: BSD-3-Clause
"""Random crops and flips for training (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops._door import Counter, Size, Sizes
from twostream_ext.ops._operator import Operator


def random_windows(
    sizes: Sizes,
    size: Size,
    *,
    flip: float = 0.5,
    seed: Counter,
    offset: Counter = 0,
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
    return _operator.call(sizes, size, flip, seed, offset, out=out)


def _allocate(sizes: Tensor) -> Tensor:
    return sizes.new_empty([sizes.shape[0], 3], dtype=torch.int32)


def _fill(sizes: Tensor, size: Sequence[int], flip: float, seed: int, offset: int, *, out: Tensor) -> None:
    _C.random_windows(sizes, size, flip, seed, offset, out)


_operator: Operator[Tensor] = Operator(random_windows, allocate=_allocate, fill=_fill)
