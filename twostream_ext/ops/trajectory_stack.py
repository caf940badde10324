# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of optical-flow fields sampled along motion trajectories (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from twostream_ext import _C
from twostream_ext.ops import _registration as registration
from twostream_ext.ops.flow_batch import FlowBatch
from twostream_ext.ops.mean_flow import allocate_per_field

_SAMPLE_DIMENSIONS = 4  # [L, H, W, 2]


def trajectory_stack(
    flow: registration.Flow,
    windows: torch.Tensor,
    size: int | Sequence[int],
    *,
    lo: torch.Tensor | None = None,
    step: torch.Tensor | None = None,
    subtract_mean: bool = False,
    mean: torch.Tensor | None = None,
    bidirectional: bool = False,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Stack the displacements met along trajectories through L flow fields into 2L channels (paper, equation 2).

    A trajectory starts at each pixel of the window and moves by the field's own displacement, sampled bilinearly, with
    its position clamped to the field, which it cannot leave; the window it may leave. Channel 2k is the x displacement
    of field k at the trajectory's k-th point, channel 2k + 1 its y (0-based). A flipped window is mirrored left-right
    and its x displacements change sign, in float.

    Positions are float32. A displacement of NaN leads to coordinate 0, an infinite one to the border. uint8 codes are
    interpolated and then decoded.

    Must read the fields once and write the result once; on the CPU the time goes into fetching the four neighbours of
    each sample.

    There are gradients (first order) with respect to `mean` and to float `flow`, through the sampled values and through
    the positions; where a coordinate was clamped, its derivative is 0. They are the same in every run. An infinite or
    NaN contribution makes the gradient of that component of that field NaN.

    Args:
        flow: displacements in pixels, `[N, L, H, W, 2]` with any strides, N tensors `[L, H_i, W_i, 2]`, or a
            `FlowBatch` (whose `lo` and `step`, and `mean` if one is subtracted, are then taken); uint8 codes, float32,
            float16 or bfloat16.
        windows: int32 `[N, 3]` or `[N, K, 3]` of (top, left, flip). Outside its field, a window is an error on the CPU
            and is clamped on CUDA, where looking would synchronise.
        size: height and width of a window.
        lo, step: float32 `[N, L, 2]`, for uint8 codes: displacement = lo + step * code.
        subtract_mean: subtract from each sampled value the mean displacement of its WHOLE field (section 3.1).
            Trajectories follow the displacement itself.
        mean: float32 `[N, L, 2]`, the means in pixels, where they are known already; implies `subtract_mean`.
        bidirectional: the first L/2 fields are forward from a frame, the last L/2 backward from it, nearest first; each
            half is a trajectory of its own that starts at the pixel (section 3.1).
        dtype: float32, float16 or bfloat16, of the result.
        channels_last: give the result in the channels-last memory format.
        out: fill and return this tensor, which shares no memory with the others; `dtype` and `channels_last` are then
            its own.

    Returns:
        `[N, 2L, h, w]`, or `[N, K, 2L, h, w]` for windows `[N, K, 3]`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, an odd L when bidirectional; names it.
        RuntimeError: `lo` or `step` requires a gradient, or `out` is given and anything does.
    """
    if isinstance(flow, FlowBatch) and subtract_mean and mean is None:
        mean = flow.mean
    fields, lo, step, mean = registration.to_fields(flow, lo, step, mean)
    windows = registration.to_tensor(windows).contiguous()
    registration.refuse_gradient("trajectory_stack: lo and step", lo, step)
    differentiable = registration.needs_gradient(*fields, mean)
    if out is not None:
        target = registration.to_target("trajectory_stack", out, differentiable)
        torch.ops.twostream.trajectory_stack.out(
            fields, windows, lo, step, subtract_mean, mean, bidirectional, out=target
        )
        return out
    pair = registration.to_pair("trajectory_stack", size)
    options = _Options(pair, subtract_mean, bidirectional, dtype, channels_last)
    if differentiable:
        differentiated: torch.Tensor = _Differentiable.apply(options, windows, lo, step, mean, *fields)  # type: ignore[no-untyped-call]
        return differentiated
    return _call(options, windows, lo, step, mean, fields)


class _Options(NamedTuple):
    size: tuple[int, int]
    subtract_mean: bool
    bidirectional: bool
    dtype: torch.dtype
    channels_last: bool


def _call(
    options: _Options,
    windows: torch.Tensor,
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    mean: torch.Tensor | None,
    fields: Sequence[torch.Tensor],
) -> torch.Tensor:
    result: torch.Tensor = torch.ops.twostream.trajectory_stack(
        list(fields),
        windows,
        options.size,
        lo,
        step,
        options.subtract_mean,
        mean,
        options.bidirectional,
        options.dtype,
        options.channels_last,
    )
    return result


class _Differentiable(torch.autograd.Function):
    """The operator with its gradient: an autograd.Function costs less a call than a registered gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        options: _Options,
        windows: torch.Tensor,
        lo: torch.Tensor | None,
        step: torch.Tensor | None,
        mean: torch.Tensor | None,
        *fields: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(windows, *fields)
        ctx.subtract_mean = options.subtract_mean and mean is None
        ctx.bidirectional = options.bidirectional
        return _call(options, windows, lo, step, mean, fields)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        windows, *fields = ctx.saved_tensors
        needed = ctx.needs_input_grad
        flow_gradient, mean_gradient = torch.ops.twostream.trajectory_stack_backward(
            gradient, fields, windows, ctx.subtract_mean, ctx.bidirectional, any(needed[5:])
        )
        flow_gradients = flow_gradient or [None] * len(fields)
        return (None, None, None, None, mean_gradient if needed[4] else None, *flow_gradients)


def _allocate(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    bidirectional: bool,
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
    bidirectional: bool,
    *,
    out: torch.Tensor,
) -> None:
    if subtract_mean and mean is None:
        mean = allocate_per_field(flow)
        _C.mean_flow(flow, lo, step, mean)
    _C.trajectory_stack(flow, windows, lo, step, mean, bidirectional, out)


def _compute(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    bidirectional: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    registration.check_flow("trajectory_stack", flow)
    out = _allocate(flow, windows, size, lo, step, subtract_mean, mean, bidirectional, dtype, channels_last)
    _fill(flow, windows, lo, step, subtract_mean, mean, bidirectional, out=out)
    return out


def _allocate_gradients(
    gradient: torch.Tensor,
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    subtract_mean: bool,
    bidirectional: bool,
    flow_gradient: bool,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    flow_gradients = [field.new_empty(field.shape) for field in flow] if flow_gradient else []
    return flow_gradients, allocate_per_field(flow)


def _differentiate(
    gradient: torch.Tensor,
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    subtract_mean: bool,
    bidirectional: bool,
    flow_gradient: bool,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    flow_gradients, mean_gradient = _allocate_gradients(
        gradient, flow, windows, subtract_mean, bidirectional, flow_gradient
    )
    positions = displacements = largest = sums = mean_gradient  # not looked at if there is no flow gradient
    if flow_gradient:
        per_sample = max(field.shape[-4:].numel() for field in flow)
        positions, displacements = gradient.new_empty([2, gradient.numel()], dtype=torch.float32)
        largest = torch.empty_like(mean_gradient, dtype=torch.int32)
        sums = mean_gradient.new_empty([mean_gradient.shape[0], per_sample], dtype=torch.int64)
    _C.trajectory_stack_backward(
        gradient,
        flow,
        windows,
        subtract_mean,
        bidirectional,
        mean_gradient,
        flow_gradients,
        positions,
        displacements,
        largest,
        sums,
    )
    return flow_gradients, mean_gradient


registration.register(
    "trajectory_stack(Tensor[] flow, Tensor windows, SymInt[] size, Tensor? lo, Tensor? step, bool subtract_mean,"
    " Tensor? mean, bool bidirectional, ScalarType dtype, bool channels_last) -> Tensor",
    _compute,
    _allocate,
)
registration.register(
    "trajectory_stack.out(Tensor[] flow, Tensor windows, Tensor? lo, Tensor? step, bool subtract_mean, Tensor? mean,"
    " bool bidirectional, *, Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
registration.register(
    "trajectory_stack_backward(Tensor gradient, Tensor[] flow, Tensor windows, bool subtract_mean, bool bidirectional,"
    " bool flow_gradient) -> (Tensor[] flow_gradient, Tensor mean_gradient)",
    _differentiate,
    _allocate_gradients,
)
