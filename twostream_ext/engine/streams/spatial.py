# SPDX-License-Identifier: BSD-3-Clause
"""The spatial stream: single frames (section 2 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostream_ext import ops
from twostream_ext.data import FrameRuns
from twostream_ext.engine.streams.stream import Size, Stream
from twostream_ext.media import FrameBatch, FrameClip
from twostream_ext.models import RGB_MEAN, RGB_STD, NetSettings, SpatialNet, StreamNet, TemporalInput

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


class SpatialStream(Stream[FrameClip, FrameBatch]):
    """Inputs are pixels normalised by `RGB_MEAN` and `RGB_STD`, [N, 3, size, size]; in training, shifted in colour."""

    name = "spatial"
    reads = "frames"
    trained_as = "spatial"
    cuts_alike = True

    def new_net(self, classes: int | Mapping[str, int], temporal_input: TemporalInput, **common: Any) -> StreamNet:
        return SpatialNet(classes, **common)

    def inputs(self, settings: NetSettings) -> FrameRuns:
        return FrameRuns()

    def cut(self, batch: FrameBatch, windows: Tensor, size: Size, settings: NetSettings) -> Tensor:
        return _crop(batch, windows, size)

    def cut_for_training(
        self, batch: FrameBatch, windows: Tensor, settings: NetSettings, *, seed: int, offset: int
    ) -> Tensor:
        shift = colour_jitter(len(batch), seed=seed, offset=offset).to(batch.device, non_blocking=True)
        return _crop(batch, windows, settings.input_size, shift)


def _crop(batch: FrameBatch, windows: Tensor, size: Size, shift: Tensor | None = None) -> Tensor:
    return ops.crop_frames(batch.frames, windows, size, mean=RGB_MEAN, std=RGB_STD, shift=shift, channels_last=True)


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
