# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of optical-flow fields sampled along motion trajectories (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops import _shapes as shapes
from twostream_ext.ops._autograd import Gradient, Outline
from twostream_ext.ops._door import AffineMaps, Flow, PerField, Size, Windows
from twostream_ext.ops._operator import Operator
from twostream_ext.ops._registration import register_kernel
from twostream_ext.ops.mean_flow import computed_mean


def trajectory_stack(
    flow: Flow,
    windows: Windows,
    size: Size,
    *,
    lo: PerField | None = None,
    step: PerField | None = None,
    subtract_mean: bool = False,
    mean: PerField | None = None,
    camera: AffineMaps | None = None,
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
        camera: float32 `[N, L, 2, 3]`, as from `camera_motion`, in place of a mean: what is subtracted is A (x, y, 1)
            at the position (x, y) where the field was sampled.
        bidirectional: the first L/2 fields are forward from a frame, the last L/2 backward from it, nearest first; each
            half is a trajectory of its own that starts at the pixel (section 3.1).
        dtype: float32, float16 or bfloat16, of the result.
        channels_last: give the result in the channels-last memory format.
        out: fill and return this tensor, which shares no memory with the others; `dtype` and `channels_last` are then
            its own, and its height and width are `size`.

    Returns:
        `[N, 2L, h, w]`, or `[N, K, 2L, h, w]` for windows `[N, K, 3]`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device, an odd L when bidirectional; names it.
        RuntimeError: a gradient is asked for with respect to `lo`, `step` or `camera`, or any in forward mode, or any
            while `out` is given.
    """
    return _operator.call(
        flow, windows, size, lo, step, subtract_mean, mean, camera, bidirectional, dtype, channels_last, out=out
    )


def _allocate(
    flow: list[Tensor], windows: Tensor, size: Sequence[int], dtype: torch.dtype, channels_last: bool
) -> Tensor:
    channels = 2 * shapes.stack_length("trajectory_stack", flow)
    count = shapes.batch_size(flow, shapes.FIELDS)
    return shapes.allocate_stack("trajectory_stack", flow[0], count, windows, channels, size, dtype, channels_last)


def _fill(
    flow: list[Tensor],
    windows: Tensor,
    lo: Tensor | None,
    step: Tensor | None,
    subtract_mean: bool,
    mean: Tensor | None,
    camera: Tensor | None,
    bidirectional: bool,
    *,
    out: Tensor,
) -> None:
    if subtract_mean and mean is None:
        mean = computed_mean("trajectory_stack", flow, lo, step)
    _C.trajectory_stack(flow, windows, lo, step, mean, camera, bidirectional, out)


def _backward(
    gradient: Tensor,
    needed: tuple[bool, bool],
    flow: list[Tensor],
    windows: Tensor,
    subtract_mean: bool,
    mean: Outline | None,
    camera: Tensor | None,
    bidirectional: bool,
) -> tuple[list[Tensor] | None, Tensor | None]:
    needs_fields, needs_mean = needed
    of_fields, of_mean = torch.ops.twostream.trajectory_stack_backward(
        gradient, flow, windows, camera, subtract_mean and mean is None, bidirectional, needs_fields
    )
    return of_fields if needs_fields else None, of_mean if needs_mean else None


def _allocate_gradients(
    gradient: Tensor,
    flow: list[Tensor],
    windows: Tensor,
    camera: Tensor | None,
    subtract_mean: bool,
    bidirectional: bool,
    flow_gradient: bool,
) -> tuple[list[Tensor], Tensor]:
    flow_gradients = [field.new_empty(field.shape) for field in flow] if flow_gradient else []
    return flow_gradients, shapes.allocate_per_field("trajectory_stack_backward", flow)


def _differentiate(
    gradient: Tensor,
    flow: list[Tensor],
    windows: Tensor,
    camera: Tensor | None,
    subtract_mean: bool,
    bidirectional: bool,
    flow_gradient: bool,
) -> tuple[list[Tensor], Tensor]:
    flow_gradients, mean_gradient = _allocate_gradients(
        gradient, flow, windows, camera, subtract_mean, bidirectional, flow_gradient
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
        camera,
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


register_kernel("trajectory_stack_backward", _differentiate, _allocate_gradients)
_operator: Operator[Tensor] = Operator(
    trajectory_stack,
    allocate=_allocate,
    fill=_fill,
    gradient=Gradient(of=("flow", "mean"), backward=_backward, kept=("flow", "windows", "camera")),
)
