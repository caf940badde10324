# SPDX-License-Identifier: BSD-3-Clause
"""Registering operators with torch, and the few conversions that every operator's public function needs.

Each operator exists twice under `torch.ops.twostream`: `<name>`, which allocates its result, and `<name>.out`, which
fills a given tensor. Both are defined in Python over the functions of `_C`, by `define` and `impl`: `custom_op` would
cost several times as much a call. A batch of samples is always a list: of one tensor `[N, ...]`, or of N tensors of
different sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.utils.dlpack

from twostream_ext.ops.flow_batch import FlowBatch

Arrays: TypeAlias = torch.Tensor | Sequence[torch.Tensor]
Flow: TypeAlias = Arrays | FlowBatch

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
    if type(array) is torch.Tensor or isinstance(array, torch.Tensor):
        return array
    if hasattr(array, "__dlpack__"):
        return torch.utils.dlpack.from_dlpack(array)
    raise TypeError(f"expected a tensor or an array that supports DLPack, got {type(array).__name__}")


def to_list(batch: Any) -> list[torch.Tensor]:
    """Give a batch as a list of tensors: one tensor of N samples, or N tensors."""
    if isinstance(batch, FlowBatch):
        return batch.fields
    if isinstance(batch, (list, tuple)):
        return [to_tensor(sample) for sample in batch]
    return [to_tensor(batch)]


def to_fields(
    flow: Any, lo: Any, step: Any, mean: Any = None
) -> tuple[list[torch.Tensor], torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Give flow as a list of tensors with its tables; those of a FlowBatch serve where none is given."""
    if isinstance(flow, FlowBatch):
        given = (flow.lo if lo is None else lo, flow.step if step is None else step, mean)
        return flow.fields, to_contiguous(given[0]), to_contiguous(given[1]), to_contiguous(given[2])
    return to_list(flow), to_contiguous(lo), to_contiguous(step), to_contiguous(mean)


def to_contiguous(tensor: Any) -> torch.Tensor | None:
    """Give a small argument (windows, ranges, means) in the layout that the kernels read."""
    return None if tensor is None else to_tensor(tensor).contiguous()


def to_pair(operator: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Give a window size as (height, width); one number means a square."""
    if type(size) is int and size > 0:  # nearly always
        return size, size
    pair = (size, size) if isinstance(size, (int, torch.SymInt)) else tuple(size)
    if len(pair) != 2 or any(isinstance(each, (bool, str, float)) or each < 1 for each in pair):
        raise ValueError(f"{operator}: size must be a positive number or (height, width), got {size}")
    return int(pair[0]), int(pair[1])


def needs_gradient(*tensors: torch.Tensor | None) -> bool:
    """Tell whether autograd follows any of the tensors."""
    if torch.is_grad_enabled():
        for tensor in tensors:  # any() over a generator would cost a tenth of a call
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def refuse_gradient(operator: str, *tensors: torch.Tensor | None) -> None:
    """Fail where a gradient would be lost in silence."""
    if needs_gradient(*tensors):
        raise RuntimeError(f"{operator}: no gradient is computed here; detach the inputs or use torch.no_grad()")


def to_target(operator: str, out: Any, gradient: bool) -> torch.Tensor:
    """Give `out` as a tensor, and refuse it where autograd could not follow what is written into it."""
    target = to_tensor(out)
    if gradient or needs_gradient(target):
        raise RuntimeError(f"{operator}: out= cannot be given when a gradient is required")
    return target


def check_flow(operator: str, flow: Sequence[torch.Tensor]) -> None:
    """Before a result is allocated: its shape needs the dimensions of the first field."""
    if not flow or flow[0].dim() < 4:
        got = tuple(flow[0].shape) if flow else "an empty list"
        raise ValueError(f"{operator}: flow must be [N, L, H, W, 2] or a list of [L, H, W, 2], got {got}")


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
    if windows.dim() not in (2, 3) or windows.device != like.device:
        got = f"{tuple(windows.shape)} on {windows.device}"
        raise ValueError(f"windows must be of shape [N, 3] or [N, K, 3] on {like.device}, got {got}")
    leading = [batch] if windows.dim() == 2 else [batch, windows.shape[1]]
    if not channels_last:
        return like.new_empty([*leading, channels, *size], dtype=dtype)
    last = like.new_empty([*leading, *size, channels], dtype=dtype)
    return last.movedim(-1, -3)
