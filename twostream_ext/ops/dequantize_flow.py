# SPDX-License-Identifier: BSD-3-Clause
"""8-bit codes back to displacements in pixels."""

from __future__ import annotations

from typing import overload

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration


@overload
def dequantize_flow(
    codes: torch.Tensor,
    lo: torch.Tensor,
    step: torch.Tensor,
    *,
    dtype: torch.dtype = ...,
    out: torch.Tensor | None = ...,
) -> torch.Tensor: ...
@overload
def dequantize_flow(
    codes: list[torch.Tensor],
    lo: torch.Tensor,
    step: torch.Tensor,
    *,
    dtype: torch.dtype = ...,
    out: list[torch.Tensor] | None = ...,
) -> list[torch.Tensor]: ...
def dequantize_flow(
    codes: torch.Tensor | list[torch.Tensor],
    lo: torch.Tensor,
    step: torch.Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    out: torch.Tensor | list[torch.Tensor] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Decode fields: displacement = lo + step * code.

    Args:
        codes: uint8 `[N, L, H, W, 2]` with any strides, or N tensors `[L, H_i, W_i, 2]`.
        lo, step: float32 `[N, L, 2]`, pixels.
        dtype: float32, float16 or bfloat16, of the result.
        out: fill and return this tensor, or list of tensors.

    Returns:
        Displacements in pixels, of the shape of `codes`; a list if `codes` is one.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
    """
    coded = registration.to_list(codes)
    low, steps = registration.to_tensor(lo).contiguous(), registration.to_tensor(step).contiguous()
    registration.refuse_gradient("dequantize_flow", low, steps)
    if out is not None:
        torch.ops.twostream.dequantize_flow.out(coded, low, steps, out=registration.to_list(out))
        return out
    fields: list[torch.Tensor] = torch.ops.twostream.dequantize_flow(coded, low, steps, dtype)
    return fields if isinstance(codes, (list, tuple)) else fields[0]


def _fill(codes: list[torch.Tensor], lo: torch.Tensor, step: torch.Tensor, *, out: list[torch.Tensor]) -> None:
    _C.dequantize_flow(codes, lo, step, out)


def _allocate(
    codes: list[torch.Tensor], lo: torch.Tensor, step: torch.Tensor, dtype: torch.dtype
) -> list[torch.Tensor]:
    return [field.new_empty(field.shape, dtype=dtype) for field in codes]


def _compute(codes: list[torch.Tensor], lo: torch.Tensor, step: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    out = _allocate(codes, lo, step, dtype)
    _fill(codes, lo, step, out=out)
    return out


registration.register(
    "dequantize_flow(Tensor[] codes, Tensor lo, Tensor step, ScalarType dtype) -> Tensor[]",
    _compute,
    _allocate,
)
registration.register(
    "dequantize_flow.out(Tensor[] codes, Tensor lo, Tensor step, *, Tensor(a!)[] out) -> ()",
    _fill,
    registration.nothing,
)
