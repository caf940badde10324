# SPDX-License-Identifier: BSD-3-Clause
"""Registering operators with torch, and the few conversions that every operator's public function needs.

Each operator exists twice under `torch.ops.twostream`: `<name>`, which allocates its result, and `<name>.out`, which
fills a given tensor. Both are defined in Python over the functions of `_C`, by `define` and `impl`: `custom_op` would
cost several times as much a call. A batch of samples is always a list: of one tensor `[N, ...]`, or of N tensors of
different sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import torch
import torch.utils.dlpack

Arrays: TypeAlias = torch.Tensor | Sequence[torch.Tensor]

# Operators live as long as this object does.
library = torch.library.Library("twostream", "DEF")  # type: ignore[no-untyped-call]


def register(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define `twostream::<schema>` with one implementation for CPU and CUDA tensors and one for fake tensors."""
    name = schema[: schema.index("(")]
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    for backend in ("CPU", "CUDA"):
        library.impl(name, implementation, backend)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"twostream::{name}", fake, lib=library)


def nothing(*_: Any, **__: Any) -> None:
    """The fake kernel of the `.out` forms: they return nothing."""


def to_tensor(array: Any) -> torch.Tensor:
    """Take a tensor as it is, and an array of another library (NumPy, CuPy, JAX) through DLPack, without a copy."""
    if isinstance(array, torch.Tensor):
        return array
    if hasattr(array, "__dlpack__"):
        return torch.utils.dlpack.from_dlpack(array)
    raise TypeError(f"expected a tensor or an array that supports DLPack, got {type(array).__name__}")


def to_list(batch: Any) -> list[torch.Tensor]:
    """Give a batch as a list of tensors: one tensor of N samples, or N tensors."""
    if isinstance(batch, (list, tuple)):
        return [to_tensor(sample) for sample in batch]
    return [to_tensor(batch)]


def to_contiguous(tensor: Any) -> torch.Tensor | None:
    """Give a small argument (windows, ranges, means) in the layout that the kernels read."""
    return None if tensor is None else to_tensor(tensor).contiguous()


def to_pair(operator: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Give a window size as (height, width); one number means a square."""
    if isinstance(size, int):
        return size, size
    if len(size) != 2:
        raise ValueError(f"{operator}: size must be a number or (height, width), got {tuple(size)}")
    return int(size[0]), int(size[1])


def needs_gradient(tensors: Sequence[torch.Tensor | None]) -> bool:
    """Tell whether autograd follows any of the tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def refuse_gradient(operator: str, tensors: Sequence[torch.Tensor | None]) -> None:
    """Fail where a gradient would be lost in silence."""
    if needs_gradient(tensors):
        raise RuntimeError(f"{operator}: no gradient is computed here; detach the inputs or use torch.no_grad()")


def refuse_out_with_gradient(operator: str) -> NoReturn:
    """Fail where autograd could not follow what is written into `out`."""
    raise RuntimeError(f"{operator}: out= cannot be given when an input requires a gradient")


def is_batch(samples: Sequence[torch.Tensor], sample_dimensions: int) -> bool:
    """Tell one tensor [N, ...] in a list from a list of samples."""
    return len(samples) == 1 and samples[0].dim() == sample_dimensions + 1


def batch_size(samples: Sequence[torch.Tensor], sample_dimensions: int) -> int:
    """Count the samples."""
    return samples[0].shape[0] if is_batch(samples, sample_dimensions) else len(samples)


def allocate_stack(
    like: torch.Tensor,
    batch: int,
    windows: torch.Tensor,
    channels: int,
    size: Sequence[int],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """Allocate [N, channels, h, w] for windows [N, 3], or [N, K, channels, h, w] for windows [N, K, 3]."""
    leading = [batch] if windows.dim() == 2 else [batch, windows.shape[1]]
    if not channels_last:
        return like.new_empty([*leading, channels, *size], dtype=dtype)
    last = like.new_empty([*leading, *size, channels], dtype=dtype)
    return last.movedim(-1, -3)
