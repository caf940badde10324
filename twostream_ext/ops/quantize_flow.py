# SPDX-License-Identifier: BSD-3-Clause
"""Flow fields as 8-bit codes (paper, section 5: components are rescaled to [0, 255] and back to their own range)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration
from twostream_ext.ops.flow_batch import FlowBatch
from twostream_ext.ops.mean_flow import allocate_per_field


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


def quantize_flow(
    flow: registration.Flow, *, bound: float | None = None, out: QuantizedFlow | None = None
) -> QuantizedFlow:
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
    fields = registration.to_list(flow)
    registration.refuse_gradient("quantize_flow", *fields)
    ragged = isinstance(flow, (list, tuple, FlowBatch))
    if out is not None:
        codes = registration.to_list(out.codes)
        torch.ops.twostream.quantize_flow.out(fields, bound, codes=codes, lo=out.lo, step=out.step, mean=out.mean)
        return out
    coded, lo, step, mean = torch.ops.twostream.quantize_flow(fields, bound)
    return QuantizedFlow(coded if ragged else coded[0], lo, step, mean)


def _fill(
    flow: list[torch.Tensor],
    bound: float | None,
    *,
    codes: list[torch.Tensor],
    lo: torch.Tensor,
    step: torch.Tensor,
    mean: torch.Tensor,
) -> None:
    _C.quantize_flow(flow, bound, codes, lo, step, mean)


def _allocate(
    flow: list[torch.Tensor], bound: float | None
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    codes = [field.new_empty(field.shape, dtype=torch.uint8) for field in flow]
    return codes, allocate_per_field(flow), allocate_per_field(flow), allocate_per_field(flow)


def _compute(
    flow: list[torch.Tensor], bound: float | None
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    codes, lo, step, mean = _allocate(flow, bound)
    _fill(flow, bound, codes=codes, lo=lo, step=step, mean=mean)
    return codes, lo, step, mean


registration.register(
    "quantize_flow(Tensor[] flow, float? bound) -> (Tensor[] codes, Tensor lo, Tensor step, Tensor mean)",
    _compute,
    _allocate,
)
registration.register(
    "quantize_flow.out(Tensor[] flow, float? bound, *, Tensor(a!)[] codes, Tensor(b!) lo, Tensor(c!) step,"
    " Tensor(d!) mean) -> ()",
    _fill,
    registration.nothing,
)
