# SPDX-License-Identifier: BSD-3-Clause
"""Flow fields as 8-bit codes (paper, section 5: components are rescaled to [0, 255] and back to their own range)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops import _shapes as shapes
from twostream_ext.ops._door import Flow
from twostream_ext.ops._operator import Operator


class QuantizedFlow(NamedTuple):
    """Coded fields: displacement = lo + step * code."""

    codes: torch.Tensor | list[torch.Tensor]
    """uint8 `[N, L, H, W, 2]`, or N tensors `[L, H_i, W_i, 2]`."""
    lo: torch.Tensor
    """float32 `[N, L, 2]`, pixels."""
    step: torch.Tensor
    """float32 `[N, L, 2]`, pixels; 0 for a component that is the same everywhere."""
    mean: torch.Tensor
    """float32 `[N, L, 2]`, pixels: the mean of each field before it was coded."""


def quantize_flow(flow: Flow, *, bound: float | None = None, out: QuantizedFlow | None = None) -> QuantizedFlow:
    """Code each component of each field with 8 bits, and take its mean on the way.

    Args:
        flow: float32, float16 or bfloat16 displacements in pixels, as for `flow_stack`. The range and the mean are
            taken over the finite values; a NaN is coded as the value nearest to 0.
        bound: None gives each component of each field its own range, as in the paper; a number clips displacements at
            +- bound pixels, as TSN and its heirs do (bound 20).
        out: fill and return these tensors.

    Returns:
        Codes, `lo`, `step` and `mean`. The error of a code is at most step / 2, rounding aside.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value; names it.
    """
    return _operator.call(flow, bound, out=out)


def _allocate(flow: list[Tensor]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    codes = [field.new_empty(field.shape, dtype=torch.uint8) for field in flow]
    lo, step, mean = [shapes.allocate_per_field("quantize_flow", flow) for _ in range(3)]
    return codes, lo, step, mean


def _fill(
    flow: list[Tensor], bound: float | None, *, codes: list[Tensor], lo: Tensor, step: Tensor, mean: Tensor
) -> None:
    _C.quantize_flow(flow, bound, codes, lo, step, mean)


_operator: Operator[QuantizedFlow] = Operator(quantize_flow, allocate=_allocate, fill=_fill, result=QuantizedFlow)
