# SPDX-License-Identifier: BSD-3-Clause
"""From decoded fields and frames to what the nets take: windows, crops, normalisation, jitter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from twostream_ext import ops
from twostream_ext.errors import SettingsError
from twostream_ext.models import RGB_MEAN, RGB_STD

if TYPE_CHECKING:
    from twostream_ext.data import FlowBatchItem, FrameBatchItem

# Principal components of the colours of ImageNet's pixels, as in Krizhevsky's cuda-convnet: the
# standard deviation along each, in pixels, and its direction (a column) in RGB.
_COLOUR_DEVIATIONS = np.array([55.46, 4.794, 1.148])
_COLOUR_DIRECTIONS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)
_JITTER = 0.1  # standard deviation of the multiples of the components that are added
_JITTER_DRAW = 1  # keeps its random numbers apart from others of the same seed

CROPS = (1, 10)
"""Windows of a frame in a test: the centre, or the four corners, the centre and their flips."""
_CENTRE = 4  # of the ten


def flow_input(
    item: FlowBatchItem,
    *,
    size: int,
    seed: int,
    offset: int,
    device: str | torch.device = "cpu",
    train: bool = True,
) -> tuple[Tensor, Tensor]:
    """Inputs [N, 2L, size, size] float32 and labels int64 [N] of a batch for the temporal net.

    In training, each stack is cropped at a random window of the whole field and flipped half the
    time; otherwise at the centre. Values are pixels of displacement, each field's mean subtracted.

    offset: number of the first sample in the run; what is drawn for sample n depends on `seed` and
        offset + n alone, so that it does not matter how batches are split.
    """
    flow = [stack.to(device, non_blocking=True) for stack in item.flow]
    sizes = _sizes([stack.shape[1:3] for stack in flow], size, device)
    windows = _batch_windows(sizes, size, seed=seed, offset=offset, train=train)
    return _flow_stack(flow, windows, size, item.lo, item.step, item.mean), item.labels.to(device)


def frame_input(
    item: FrameBatchItem,
    *,
    size: int,
    seed: int,
    offset: int,
    device: str | torch.device = "cpu",
    train: bool = True,
) -> tuple[Tensor, Tensor]:
    """Inputs [N, 3, size, size] float32 and labels int64 [N] of a batch for the spatial net.

    In training, each frame is cropped at a random window of the whole frame, flipped half the time
    and shifted in colour; otherwise cropped at the centre. Normalised by `RGB_MEAN` and `RGB_STD`.

    offset: see `flow_input`.
    """
    frames = [frame.to(device, non_blocking=True) for frame in item.frames]
    sizes = _sizes([frame.shape[:2] for frame in frames], size, device)
    windows = _batch_windows(sizes, size, seed=seed, offset=offset, train=train)
    shift = None
    if train:
        shift = colour_jitter(len(frames), seed=seed, offset=offset).to(device, non_blocking=True)
    return _crop_frames(frames, windows, size, shift), item.labels.to(device)


def flow_views(
    flow: Sequence[Tensor],
    lo: Tensor,
    step: Tensor,
    mean: Tensor,
    *,
    size: int,
    crops: int,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Test inputs float32 [N, crops, 2L, size, size] of N stacks uint8 [L, H, W, 2].

    lo, step, mean: float32 [N, L, 2], in pixels. crops: one of `CROPS`.
    """
    flow = [stack.to(device, non_blocking=True) for stack in flow]
    sizes = _sizes([stack.shape[1:3] for stack in flow], size, device)
    windows = _test_windows(sizes, size, crops)
    return _flow_stack(flow, windows, size, lo, step, mean)


def frame_views(frames: Sequence[Tensor], *, size: int, crops: int, device: str | torch.device = "cpu") -> Tensor:
    """Test inputs float32 [N, crops, 3, size, size] of N frames uint8 [H, W, 3]."""
    frames = [frame.to(device, non_blocking=True) for frame in frames]
    sizes = _sizes([frame.shape[:2] for frame in frames], size, device)
    windows = _test_windows(sizes, size, crops)
    return _crop_frames(frames, windows, size, shift=None)


def colour_jitter(count: int, *, seed: int, offset: int) -> Tensor:
    """Colour shifts float32 [count, 3] in pixels, to be added to all pixels of a frame.

    Krizhevsky's (2012): along each principal component of ImageNet's colours, a normal number of
    standard deviation 0.1 times that component's deviation. The paper only says "RGB jittering".
    Shift n is drawn from (seed, offset + n) alone.
    """
    # A counter of Philox gives 256 bits: those of number offset + n are the draws of sample n.
    bits = np.random.Philox(key=[seed, _JITTER_DRAW], counter=offset).random_raw(4 * count).reshape(count, 4)
    first, second, third, fourth = (bits >> 11).T * 2.0**-53  # uniform in [0, 1)
    pairs = [(np.sqrt(-2 * np.log1p(-a)), 2 * np.pi * b) for a, b in ((first, second), (third, fourth))]
    normal = np.stack([radius * turn(angle) for radius, angle in pairs for turn in (np.cos, np.sin)], axis=1)
    shifts = _JITTER * normal[:, :3] * _COLOUR_DEVIATIONS @ _COLOUR_DIRECTIONS.T
    return torch.from_numpy(shifts.astype(np.float32))


def _flow_stack(flow: list[Tensor], windows: Tensor, size: int, lo: Tensor, step: Tensor, mean: Tensor) -> Tensor:
    device = windows.device
    return ops.flow_stack(
        flow,
        windows,
        size,
        lo=lo.to(device, non_blocking=True),
        step=step.to(device, non_blocking=True),
        subtract_mean=True,
        mean=mean.to(device, non_blocking=True),
        channels_last=True,
    )


def _crop_frames(frames: list[Tensor], windows: Tensor, size: int, shift: Tensor | None) -> Tensor:
    return ops.crop_frames(frames, windows, size, mean=RGB_MEAN, std=RGB_STD, shift=shift, channels_last=True)


def _batch_windows(sizes: Tensor, size: int, *, seed: int, offset: int, train: bool) -> Tensor:
    """[N, 3]."""
    if train:
        return ops.random_windows(sizes, size, seed=seed, offset=offset)
    return ops.ten_crop_windows(sizes, size)[:, _CENTRE].contiguous()


def _test_windows(sizes: Tensor, size: int, crops: int) -> Tensor:
    """[N, crops, 3]."""
    if crops not in CROPS:
        raise SettingsError(f"crops must be {CROPS[0]} or {CROPS[1]}, got {crops}")
    windows = ops.ten_crop_windows(sizes, size)
    return windows if crops == 10 else windows[:, _CENTRE : _CENTRE + 1].contiguous()


def _sizes(shapes: Sequence[Sequence[int]], size: int, device: str | torch.device) -> Tensor:
    """Heights and widths, int64 [N, 2]; SettingsError if a window of `size` does not fit in all."""
    for height, width in shapes:
        if min(height, width) < size:
            raise SettingsError(f"input size {size} is larger than a frame of {width}x{height} pixels")
    return torch.tensor([list(shape) for shape in shapes], dtype=torch.int64, device=device)
