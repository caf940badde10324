# SPDX-License-Identifier: BSD-3-Clause
"""What a stream is: everything that tells the spatial net from the temporal one, and either from one of your own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from twostream_ext import ops
from twostream_ext.data import ClipSource, InputBatch, Inputs, VideoSet
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowClip
from twostream_ext.media import FrameClip
from twostream_ext.models import NetSettings, StreamNet, TemporalInput

Clip = TypeVar("Clip", FlowClip, FrameClip)
Batch = TypeVar("Batch", bound=InputBatch)

Size = int | tuple[int, int]

CROPS = (1, 10)
"""Windows of a frame in a test: the centre, or the four corners, the centre and their flips."""
_CENTRE = 4  # of the ten

_STORES: dict[str, Callable[[VideoSet], Any]] = {"flow": VideoSet.flow_store, "frames": VideoSet.frame_store}


class Stream(ABC, Generic[Clip, Batch]):
    """One kind of input and the net that takes it: which store it reads, how inputs are read, and how they are cut.

    A stream of your own is a class like this one, and `register_stream` makes it known to training, evaluation and the
    command line. `spatial.py` and `temporal.py` are examples.
    """

    name: ClassVar[str]
    """As in "spatial"; that of its nets' settings, and so in their files."""
    reads: ClassVar[Literal["flow", "frames"]]
    """The store that it reads."""
    trained_as: ClassVar[str]
    """Of which stream's numbers a recipe takes that has none for this one; the paper's two have their own in each."""

    cuts_alike: ClassVar[bool] = False
    """Whether `cut` gives of a larger window what it gives of each within it, side by side: tests are faster then."""

    @abstractmethod
    def new_net(self, classes: int | Mapping[str, int], temporal_input: TemporalInput, **common: Any) -> StreamNet:
        """A net with first weights from torch's random state, whose settings have the name of the stream.

        classes, common: what every net takes, see `SpatialNet`.
        temporal_input: how stacks are made, for a stream that has some.
        """

    @abstractmethod
    def inputs(self, settings: NetSettings) -> Inputs[Clip, Batch]:
        """What a net of these settings reads of a clip."""

    @abstractmethod
    def cut(self, batch: Batch, windows: Tensor, size: Size, settings: NetSettings) -> Tensor:
        """Windows of the inputs of a batch as a net of these settings takes them, on the device of the batch.

        windows: int32 [N, 3] or [N, K, 3] of (top, left, flip). size: height and width of a window, in pixels, or one
        number for both.
        Returns float32 [N, channels, height, width] or [N, K, channels, height, width].
        """

    def cut_for_training(
        self, batch: Batch, windows: Tensor, settings: NetSettings, *, seed: int, offset: int
    ) -> Tensor:
        """`cut` with windows [N, 3], and whatever else a stream changes at random in training.

        What is drawn for sample n must depend on `seed` and offset + n alone.
        """
        return self.cut(batch, windows, settings.input_size, settings)

    def training_input(
        self, item: tuple[Batch, Tensor], *, settings: NetSettings, seed: int, offset: int
    ) -> tuple[Tensor, Tensor]:
        """Inputs float32 [N, channels, size, size] and labels int64 [N] of a batch, on the batch's device.

        Each is cropped at a random window of its whole frames, and flipped half the time.

        settings: of the net that takes them.
        offset: number of the first sample in the run; what is drawn for sample n depends on `seed` and
            offset + n alone, so that it does not matter how batches are split.
        """
        batch, labels = item
        size = settings.input_size
        windows = ops.random_windows(_sizes(batch, size), size, seed=seed, offset=offset)
        return self.cut_for_training(batch, windows, settings, seed=seed, offset=offset), labels

    def views(self, batch: Batch, *, settings: NetSettings, crops: int) -> Tensor:
        """Test inputs float32 [N, crops, channels, size, size] of a batch, on its device.

        settings: of the net that takes them. crops: one of `CROPS`.
        """
        windows = crop_windows(_sizes(batch, settings.input_size), settings.input_size, crops)
        return self.cut(batch, windows, settings.input_size, settings)

    def store(self, videos: VideoSet) -> ClipSource[Clip]:
        """The store of a set that the stream reads; SettingsError if the set was made without one."""
        try:
            found: ClipSource[Clip] = _STORES[self.reads](videos)
        except SettingsError as error:
            raise SettingsError(f"the {self.name} net reads {self.reads}; {error}") from None
        return found

    def check_clip(self, clip: FlowClip | FrameClip) -> None:
        """SettingsError, naming it, unless the clip is of a store of the kind that the stream reads."""
        kind = "flow" if isinstance(clip, FlowClip) else "frames"
        if kind != self.reads:
            raise SettingsError(f"{clip.name}: the {self.name} net reads {self.reads}, got a clip of {kind}")


def crop_windows(sizes: Tensor, size: int, crops: int) -> Tensor:
    """The windows of a test in frames of N sizes, int64 [N, 2] of height and width: int32 [N, crops, 3].

    SettingsError unless crops is one of `CROPS`.
    """
    if crops not in CROPS:
        raise SettingsError(f"crops must be {CROPS[0]} or {CROPS[1]}, got {crops}")
    windows = ops.ten_crop_windows(sizes, size)
    return windows if crops == 10 else windows[:, _CENTRE : _CENTRE + 1].contiguous()


def _sizes(batch: InputBatch, size: int) -> Tensor:
    """Heights and widths, int64 [N, 2]; SettingsError if a window of `size` does not fit in all."""
    for height, width in batch.sizes:
        if min(height, width) < size:
            raise SettingsError(f"input size {size} is larger than a frame of {width}x{height} pixels")
    return torch.tensor(batch.sizes, dtype=torch.int64, device=batch.device)
