# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of optical-flow fields: what the temporal ConvNet sees (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration
from twostream_ext.ops.flow_batch import FlowBatch
from twostream_ext.ops.mean_flow import allocate_per_field

_SAMPLE_DIMENSIONS = 4  # [L, H, W, 2]


def flow_stack(
    flow: registration.Flow,
    windows: torch.Tensor,
    size: int | Sequence[int],
    *,
    lo: torch.Tensor | None = None,
    step: torch.Tensor | None = None,
    subtract_mean: bool = False,
    mean: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crop, flip, decode and stack L flow fields into 2L channels (paper, equation 1).

    Channel 2k is the x displacement of field k, channel 2k + 1 its y (0-based). A flipped window is mirrored left-right
    and its x displacements change sign, in float, so that still stays still.

    Args:
        flow: displacements in pixels, `[N, L, H, W, 2]` with any strides, N tensors `[L, H_i, W_i, 2]`, or a
            `FlowBatch` (whose `lo` and `step`, and `mean` if one is subtracted, are then taken); uint8 codes, float32,
            float16 or bfloat16.
        windows: int32 `[N, 3]` or `[N, K, 3]` of (top, left, flip). Outside its field, a window is an error on the CPU
            and is clamped on CUDA, where looking would synchronise.
        size: height and width of a window.
        lo, step: float32 `[N, L, 2]`, for uint8 codes: displacement = lo + step * code.
        subtract_mean: subtract from each field the mean displacement of the WHOLE field (section 3.1).
        mean: float32 `[N, L, 2]`, the means in pixels, where they are known already; implies `subtract_mean`.
        dtype: float32, float16 or bfloat16, of the result.
        channels_last: give the result in the channels-last memory format.
        out: fill and return this tensor, which shares no memory with the others; `dtype` and `channels_last` are then
            its own.

    Returns:
        `[N, 2L, h, w]`, or `[N, K, 2L, h, w]` for windows `[N, K, 3]`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
        RuntimeError: `lo` or `step` requires a gradient; `flow` (float) and `mean` may.
    """
    if isinstance(flow, FlowBatch) and subtract_mean and mean is None:
        mean = flow.mean
    fields, lo, step, mean = registration.to_fields(flow, lo, step, mean)
    windows = registration.to_tensor(windows).contiguous()
    gradient = registration.needs_gradient(*fields, lo, step, mean)
    if gradient:
        registration.refuse_gradient("flow_stack: lo and step", lo, step)
    if out is not None:
        target = registration.to_target("flow_stack", out, gradient)
        _fill_operator(fields, windows, lo, step, subtract_mean, mean, out=target)
        return out
    options = (windows, registration.to_pair("flow_stack", size), lo, step, subtract_mean, mean, dtype, channels_last)
    if gradient:
        differentiable: torch.Tensor = _FlowStack.apply(*options, *fields)  # type: ignore[no-untyped-call]
        return differentiable
    result: torch.Tensor = torch.ops.twostream.flow_stack(fields, *options)
    return result


class _FlowStack(torch.autograd.Function):
    """flow_stack with the gradients of float fields and of the given means."""

    @staticmethod
    def forward(
        ctx: Any,
        windows: torch.Tensor,
        size: tuple[int, int],
        lo: torch.Tensor | None,
        step: torch.Tensor | None,
        subtract_mean: bool,
        mean: torch.Tensor | None,
        dtype: torch.dtype,
        channels_last: bool,
        *fields: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(windows)
        ctx.fields = [(field.shape, field.dtype) for field in fields]
        ctx.centred = subtract_mean and mean is None
        result: torch.Tensor = torch.ops.twostream.flow_stack(
            list(fields), windows, size, lo, step, subtract_mean, mean, dtype, channels_last
        )
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (windows,) = ctx.saved_tensors
        mean = mean_gradient(gradient, windows) if ctx.centred or ctx.needs_input_grad[_MEAN] else None
        fields: list[torch.Tensor | None] = [None] * len(ctx.fields)
        if any(ctx.needs_input_grad[_FIRST_FIELD:]):
            given = [gradient.new_empty(shape, dtype=dtype) for shape, dtype in ctx.fields]
            torch.ops.twostream.flow_stack_backward(gradient, windows, out=given)
            if ctx.centred and mean is not None:
                spread_mean_gradient(mean, given)
            fields = [*given]
        return (*[None] * _MEAN, mean if ctx.needs_input_grad[_MEAN] else None, None, None, *fields)


_MEAN, _FIRST_FIELD = 5, 8  # places among the arguments of _FlowStack.forward


def mean_gradient(gradient: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Give the gradient [N, L, 2] of the subtracted means: each output pixel holds minus one of them, signed."""
    sums = gradient.float().sum((-2, -1))
    sums = sums.view(*sums.shape[:-1], -1, 2)  # [N, (K,) L, 2]
    flipped = (windows[..., 2] != 0)[..., None]
    sums = torch.stack([torch.where(flipped, sums[..., 0], -sums[..., 0]), -sums[..., 1]], dim=-1)
    return sums.sum(1) if sums.dim() == 4 else sums


def spread_mean_gradient(mean: torch.Tensor, fields: list[torch.Tensor]) -> None:
    """Add to each field's gradient what comes through its own mean: the same for every pixel."""
    if registration.is_batch(fields, _SAMPLE_DIMENSIONS):
        means, samples = [mean], fields
    else:
        means, samples = list(mean), fields
    for each, field in zip(means, samples, strict=True):
        share = each / (field.shape[-3] * field.shape[-2])
        field.add_(share[..., None, None, :].to(field.dtype))


def _allocate(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    length = flow[0].shape[-4]
    count = registration.batch_size(flow, _SAMPLE_DIMENSIONS)
    return registration.allocate_stack(flow[0], count, windows, 2 * length, size, dtype, channels_last)


def _fill(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    *,
    out: torch.Tensor,
) -> None:
    if subtract_mean and mean is None:
        mean = allocate_per_field(flow)
        _C.mean_flow(flow, lo, step, mean)
    _C.flow_stack(flow, windows, lo, step, mean, out)


def _compute(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    registration.check_flow("flow_stack", flow)
    out = _allocate(flow, windows, size, lo, step, subtract_mean, mean, dtype, channels_last)
    _fill(flow, windows, lo, step, subtract_mean, mean, out=out)
    return out


def _fill_gradient(gradient: torch.Tensor, windows: torch.Tensor, *, out: list[torch.Tensor]) -> None:
    _C.flow_stack_backward(gradient, windows, out)


registration.register(
    "flow_stack(Tensor[] flow, Tensor windows, SymInt[] size, Tensor? lo, Tensor? step, bool subtract_mean,"
    " Tensor? mean, ScalarType dtype, bool channels_last) -> Tensor",
    _compute,
    _allocate,
)
registration.register(
    "flow_stack_backward(Tensor gradient, Tensor windows, *, Tensor(a!)[] out) -> ()",
    _fill_gradient,
    registration.nothing,
)
registration.register(
    "flow_stack.out(Tensor[] flow, Tensor windows, Tensor? lo, Tensor? step, bool subtract_mean, Tensor? mean, *,"
    " Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
_fill_operator = torch.ops.twostream.flow_stack.out
