# SPDX-License-Identifier: BSD-3-Clause
"""Shapes of batches and of the results that belong to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twostream_ext.ops._autograd import Outline

FIELDS = 4  # dimensions of a sample of flow, [L, H, W, 2]
FRAME = 3  # of a frame, [H, W, 3]


def is_batch(samples: Sequence[Tensor | Outline], sample_dimensions: int) -> bool:
    """Tell one tensor [N, ...] in a list from a list of samples."""
    return len(samples) == 1 and len(samples[0].shape) == sample_dimensions + 1


def batch_size(samples: Sequence[Tensor], sample_dimensions: int) -> int:
    """Count the samples."""
    return samples[0].shape[0] if is_batch(samples, sample_dimensions) else len(samples)


def stack_length(operator: str, flow: Sequence[Tensor]) -> int:
    """Give L, the fields of a sample."""
    if flow[0].dim() < FIELDS:
        wanted = "[N, L, H, W, 2] or a list of [L, H, W, 2]"
        raise ValueError(f"{operator}: flow must be {wanted}, got {list(flow[0].shape)}")
    return flow[0].shape[-4]


def allocate_stack(
    operator: str,
    like: Tensor,
    batch: int,
    windows: Tensor,
    channels: int,
    size: Sequence[int],
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Allocate [N, channels, h, w] for windows [N, 3], or [N, K, channels, h, w] for windows [N, K, 3]."""
    check_float(operator, dtype)
    if windows.dim() not in (2, 3):
        raise ValueError(f"{operator}: windows must be of shape [N, 3] or [N, K, 3], got {list(windows.shape)}")
    leading = [batch] if windows.dim() == 2 else [batch, windows.shape[1]]
    if not channels_last:
        return like.new_empty([*leading, channels, *size], dtype=dtype)
    last = like.new_empty([*leading, *size, channels], dtype=dtype)
    return last.movedim(-1, -3)


def check_float(operator: str, dtype: torch.dtype) -> None:
    """Refuse results of a dtype that no kernel writes."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"{operator}: dtype must be float32, float16 or bfloat16, got {dtype}")


def allocate_per_field(operator: str, flow: Sequence[Tensor]) -> Tensor:
    """Allocate float32 [N, L, 2] beside a batch of fields."""
    length = stack_length(operator, flow)
    return flow[0].new_empty([batch_size(flow, FIELDS), length, 2], dtype=torch.float32)
