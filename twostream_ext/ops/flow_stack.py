# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of optical-flow fields: what the temporal ConvNet sees (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops import _shapes as shapes
from twostream_ext.ops._autograd import Gradient, Outline
from twostream_ext.ops._door import AffineMaps, Flow, PerField, Size, Windows
from twostream_ext.ops._operator import Operator
from twostream_ext.ops._registration import nothing, register_kernel
from twostream_ext.ops.mean_flow import computed_mean


def flow_stack(
    flow: Flow,
    windows: Windows,
    size: Size,
    *,
    lo: PerField | None = None,
    step: PerField | None = None,
    subtract_mean: bool = False,
    mean: PerField | None = None,
    camera: AffineMaps | None = None,
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
        camera: float32 `[N, L, 2, 3]`, as from `camera_motion`, in place of a mean: what is subtracted from the pixel
            in column x and row y of its whole field is A (x, y, 1).
        dtype: float32, float16 or bfloat16, of the result.
        channels_last: give the result in the channels-last memory format.
        out: fill and return this tensor, which shares no memory with the others; `dtype` and `channels_last` are then
            its own, and its height and width are `size`.

    Returns:
        `[N, 2L, h, w]`, or `[N, K, 2L, h, w]` for windows `[N, K, 3]`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
        RuntimeError: a gradient is asked for with respect to `lo`, `step` or `camera` (`flow`, if it is float, and
            `mean` have one, in reverse and in forward mode); or `out` is given and any is asked for.
    """
    return _operator.call(flow, windows, size, lo, step, subtract_mean, mean, camera, dtype, channels_last, out=out)


def _allocate(
    flow: list[Tensor], windows: Tensor, size: Sequence[int], dtype: torch.dtype, channels_last: bool
) -> Tensor:
    channels = 2 * shapes.stack_length("flow_stack", flow)
    count = shapes.batch_size(flow, shapes.FIELDS)
    return shapes.allocate_stack("flow_stack", flow[0], count, windows, channels, size, dtype, channels_last)


def _fill(
    flow: list[Tensor],
    windows: Tensor,
    lo: Tensor | None,
    step: Tensor | None,
    subtract_mean: bool,
    mean: Tensor | None,
    camera: Tensor | None,
    *,
    out: Tensor,
) -> None:
    if subtract_mean and mean is None:
        mean = computed_mean("flow_stack", flow, lo, step)
    _C.flow_stack(flow, windows, lo, step, mean, camera, out)


def _backward(
    gradient: Tensor,
    needed: tuple[bool, bool],
    flow: list[Outline],
    windows: Tensor,
    subtract_mean: bool,
    mean: Outline | None,
) -> tuple[list[Tensor] | None, Tensor | None]:
    is_computed = subtract_mean and mean is None
    needs_fields, needs_mean = needed
    of_mean = mean_gradient(gradient, windows) if is_computed or needs_mean else None
    if not needs_fields:
        return None, of_mean
    of_fields = [gradient.new_empty(field.shape, dtype=field.dtype) for field in flow]
    torch.ops.twostream.flow_stack_backward(gradient, windows, out=of_fields)
    if is_computed and of_mean is not None:
        spread_mean_gradient(of_mean, of_fields)
    return of_fields, of_mean if needs_mean else None


def mean_gradient(gradient: Tensor, windows: Tensor) -> Tensor:
    """Give the gradient [N, L, 2] of the subtracted means: each output pixel holds minus one of them, signed."""
    sums = gradient.float().sum((-2, -1))
    sums = sums.view(*sums.shape[:-1], -1, 2)  # [N, (K,) L, 2]
    flipped = (windows[..., 2] != 0)[..., None]
    sums = torch.stack([torch.where(flipped, sums[..., 0], -sums[..., 0]), -sums[..., 1]], dim=-1)
    return sums.sum(1) if sums.dim() == 4 else sums


def spread_mean_gradient(mean: Tensor, fields: list[Tensor]) -> None:
    """Add to each field's gradient what comes through its own mean: the same for every pixel."""
    if shapes.is_batch(fields, shapes.FIELDS):
        means, samples = [mean], fields
    else:
        means, samples = list(mean), fields
    for each, field in zip(means, samples, strict=True):
        share = each / (field.shape[-3] * field.shape[-2])
        field.add_(share[..., None, None, :].to(field.dtype))


def _forward(
    tangents: dict[str, Any],
    flow: list[Tensor],
    windows: Tensor,
    size: tuple[int, int],
    subtract_mean: bool,
    mean: Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """The operator is linear in `flow` and `mean`, so it is applied to their tangents."""
    fields = tangents["flow"]
    if fields is None:  # codes have none
        fields = [torch.zeros((), dtype=torch.float32, device=field.device).expand(field.shape) for field in flow]
    return flow_stack(
        fields,
        windows,
        size,
        subtract_mean=subtract_mean and mean is None,
        mean=tangents["mean"],
        dtype=dtype,
        channels_last=channels_last,
    )


def _fill_gradient(gradient: Tensor, windows: Tensor, *, out: list[Tensor]) -> None:
    _C.flow_stack_backward(gradient, windows, out)


register_kernel("flow_stack_backward", _fill_gradient, nothing)
_operator: Operator[Tensor] = Operator(
    flow_stack,
    allocate=_allocate,
    fill=_fill,
    gradient=Gradient(of=("flow", "mean"), backward=_backward, kept=("windows",), forward=_forward),
)
