# SPDX-License-Identifier: BSD-3-Clause
"""Cropped, normalised frames: what the spatial ConvNet sees (paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops import _shapes as shapes
from twostream_ext.ops._autograd import Gradient, Outline
from twostream_ext.ops._door import Colour, Frames, PerFrame, Size, Windows
from twostream_ext.ops._operator import Operator
from twostream_ext.ops._registration import nothing, register_kernel


def crop_frames(
    frames: Frames,
    windows: Windows,
    size: Size,
    *,
    mean: Colour,
    std: Colour,
    shift: PerFrame | None = None,
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
            its own, and its height and width are `size`.

    Returns:
        `[N, 3, h, w]`, or `[N, K, 3, h, w]` for windows `[N, K, 3]`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value; names it.
        RuntimeError: `out` is given and a gradient is asked for. `frames`, if they are float, and `shift` have one, in
            reverse and in forward mode.
    """
    return _operator.call(frames, windows, size, mean, std, shift, dtype, channels_last, out=out)


def _allocate(
    frames: list[Tensor], windows: Tensor, size: Sequence[int], dtype: torch.dtype, channels_last: bool
) -> Tensor:
    count = shapes.batch_size(frames, shapes.FRAME)
    return shapes.allocate_stack("crop_frames", frames[0], count, windows, 3, size, dtype, channels_last)


def _fill(
    frames: list[Tensor],
    windows: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    shift: Tensor | None,
    *,
    out: Tensor,
) -> None:
    _C.crop_frames(frames, windows, mean, std, shift, out)


def _backward(
    gradient: Tensor, needed: tuple[bool, bool], frames: list[Outline], windows: Tensor, std: tuple[float, ...]
) -> tuple[list[Tensor] | None, Tensor | None]:
    of_frames, of_shift = None, None
    needs_frames, needs_shift = needed
    if needs_shift:
        sums = gradient.float().sum((-2, -1)) / gradient.new_tensor(std, dtype=torch.float32)
        of_shift = sums.sum(1) if sums.dim() == 3 else sums
    if needs_frames:
        of_frames = [gradient.new_empty(frame.shape, dtype=frame.dtype) for frame in frames]
        torch.ops.twostream.crop_frames_backward(gradient, windows, std, out=of_frames)
    return of_frames, of_shift


def _forward(
    tangents: dict[str, Any],
    frames: list[Tensor],
    windows: Tensor,
    size: tuple[int, int],
    std: tuple[float, ...],
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """The operator is affine in `frames` and `shift`, so without its constant it is applied to their tangents."""
    pixels = tangents["frames"]
    if pixels is None:  # bytes have none
        pixels = [torch.zeros((), dtype=torch.float32, device=frame.device).expand(frame.shape) for frame in frames]
    return crop_frames(
        pixels,
        windows,
        size,
        mean=(0.0, 0.0, 0.0),
        std=std,
        shift=tangents["shift"],
        dtype=dtype,
        channels_last=channels_last,
    )


def _fill_gradient(gradient: Tensor, windows: Tensor, std: Sequence[float], *, out: list[Tensor]) -> None:
    _C.crop_frames_backward(gradient, windows, std, out)


register_kernel("crop_frames_backward", _fill_gradient, nothing)
_operator: Operator[Tensor] = Operator(
    crop_frames,
    allocate=_allocate,
    fill=_fill,
    gradient=Gradient(of=("frames", "shift"), backward=_backward, kept=("windows",), forward=_forward),
)
