# SPDX-License-Identifier: BSD-3-Clause
"""8-bit codes back to displacements in pixels."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops._door import Codes, PerField
from twostream_ext.ops._operator import Operator
from twostream_ext.ops._shapes import check_float


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
    codes: Codes,
    lo: PerField,
    step: PerField,
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
    return _operator.call(codes, lo, step, dtype, out=out)


def _allocate(codes: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    check_float("dequantize_flow", dtype)
    return [field.new_empty(field.shape, dtype=dtype) for field in codes]


def _fill(codes: list[Tensor], lo: Tensor, step: Tensor, *, out: list[Tensor]) -> None:
    _C.dequantize_flow(codes, lo, step, out)


_operator: Operator[Tensor | list[Tensor]] = Operator(dequantize_flow, allocate=_allocate, fill=_fill)
