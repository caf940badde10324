# SPDX-License-Identifier: BSD-3-Clause
"""Cropped, normalised frames: what the spatial ConvNet sees (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration

_SAMPLE_DIMENSIONS = 3  # [H, W, 3]


def crop_frames(
    frames: registration.Arrays,
    windows: torch.Tensor,
    size: int | Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    shift: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crop, flip, shift in colour and normalise frames: (pixel - mean + shift) / std.

    Args:
        frames: uint8 or float, `[N, H, W, 3]` with any strides, or N tensors `[H_i, W_i, 3]`.
        windows: int32 `[N, 3]` or `[N, K, 3]` of (top, left, flip); a flip mirrors left-right. Outside its frame, a
            window is an error on the CPU and is clamped on CUDA.
        size: height and width of a window.
        mean, std: three numbers each, in the units of the pixels.
        shift: float32 `[N, 3]`, the RGB jitter of each frame, in the units of the pixels.
        dtype: float32, float16 or bfloat16, of the result.
        channels_last: give the result in the channels-last memory format.
        out: fill and return this tensor, which shares no memory with the others; `dtype` and `channels_last` are then
            its own.

    Returns:
        `[N, 3, h, w]`, or `[N, K, 3, h, w]` for windows `[N, K, 3]`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value; names it.
    """
    images = registration.to_list(frames)
    windows = registration.to_tensor(windows).contiguous()
    shift = registration.to_contiguous(shift)
    gradient = registration.needs_gradient(*images, shift)
    means, deviations = [float(each) for each in mean], [float(each) for each in std]
    if out is not None:
        target = registration.to_target("crop_frames", out, gradient)
        _fill_operator(images, windows, means, deviations, shift, out=target)
        return out
    pair = registration.to_pair("crop_frames", size)
    options = (windows, pair, means, deviations, shift, dtype, channels_last)
    if gradient:
        differentiable: torch.Tensor = _CropFrames.apply(*options, *images)  # type: ignore[no-untyped-call]
        return differentiable
    result: torch.Tensor = torch.ops.twostream.crop_frames(images, *options)
    return result


class _CropFrames(torch.autograd.Function):
    """crop_frames with the gradients of float frames and of the shift."""

    @staticmethod
    def forward(
        ctx: Any,
        windows: torch.Tensor,
        size: tuple[int, int],
        mean: list[float],
        std: list[float],
        shift: torch.Tensor | None,
        dtype: torch.dtype,
        channels_last: bool,
        *frames: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(windows)
        ctx.frames = [(frame.shape, frame.dtype) for frame in frames]
        ctx.std = std
        result: torch.Tensor = torch.ops.twostream.crop_frames(
            list(frames), windows, size, mean, std, shift, dtype, channels_last
        )
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (windows,) = ctx.saved_tensors
        shift = None
        if ctx.needs_input_grad[_SHIFT]:
            sums = gradient.float().sum((-2, -1)) / gradient.new_tensor(ctx.std, dtype=torch.float32)
            shift = sums.sum(1) if sums.dim() == 3 else sums
        frames: list[torch.Tensor | None] = [None] * len(ctx.frames)
        if any(ctx.needs_input_grad[_FIRST_FRAME:]):
            given = [gradient.new_empty(shape, dtype=dtype) for shape, dtype in ctx.frames]
            torch.ops.twostream.crop_frames_backward(gradient, windows, ctx.std, out=given)
            frames = [*given]
        return (*[None] * _SHIFT, shift, None, None, *frames)


_SHIFT, _FIRST_FRAME = 4, 7  # places among the arguments of _CropFrames.forward


def _allocate(
    frames: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    mean: list[float],
    std: list[float],
    shift: torch.Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    count = registration.batch_size(frames, _SAMPLE_DIMENSIONS)
    return registration.allocate_stack(frames[0], count, windows, 3, size, dtype, channels_last)


def _fill(
    frames: list[torch.Tensor],
    windows: torch.Tensor,
    mean: list[float],
    std: list[float],
    shift: torch.Tensor | None,
    *,
    out: torch.Tensor,
) -> None:
    _C.crop_frames(frames, windows, mean, std, shift, out)


def _fill_gradient(gradient: torch.Tensor, windows: torch.Tensor, std: list[float], *, out: list[torch.Tensor]) -> None:
    _C.crop_frames_backward(gradient, windows, std, out)


def _compute(
    frames: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    mean: list[float],
    std: list[float],
    shift: torch.Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    if not frames:
        raise ValueError("crop_frames: frames must be [N, H, W, 3] or a list of [H, W, 3], got an empty list")
    out = _allocate(frames, windows, size, mean, std, shift, dtype, channels_last)
    _fill(frames, windows, mean, std, shift, out=out)
    return out


registration.register(
    "crop_frames(Tensor[] frames, Tensor windows, SymInt[] size, float[] mean, float[] std, Tensor? shift,"
    " ScalarType dtype, bool channels_last) -> Tensor",
    _compute,
    _allocate,
)
registration.register(
    "crop_frames_backward(Tensor gradient, Tensor windows, float[] std, *, Tensor(a!)[] out) -> ()",
    _fill_gradient,
    registration.nothing,
)
registration.register(
    "crop_frames.out(Tensor[] frames, Tensor windows, float[] mean, float[] std, Tensor? shift, *,"
    " Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
_fill_operator = torch.ops.twostream.crop_frames.out
