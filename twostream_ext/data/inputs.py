# SPDX-License-Identifier: BSD-3-Clause
"""What the nets read of a clip: where an input may begin, and how a batch of inputs is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowClip, read_flow_batch
from twostream_ext.media import FrameBatch, FrameClip, read_frame_batch
from twostream_ext.ops import FlowBatch

if TYPE_CHECKING:
    from typing import Self

Clip = TypeVar("Clip", contravariant=True)


class InputBatch(Protocol):
    """N inputs of any sizes in one buffer, as they are stored: a `FlowBatch`, say, or a `FrameBatch`."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each, in pixels."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def part(self, first: int, last: int) -> Self:
        """Give the inputs first, ..., last - 1, those that there are, on the same buffer."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Give the batch on a device: one copy, or itself if it is there."""

    def pin_memory(self) -> Self:
        """Give the batch in page-locked memory."""


Batch = TypeVar("Batch", bound=InputBatch, covariant=True)


class Inputs(Protocol[Clip, Batch]):
    """The inputs of one net: places of a clip, counted from 0. It is sent to processes that read: plain data."""

    def count(self, clip: Clip) -> int:
        """Number of places, at least 1; SettingsError, naming the clip, if it is too short for an input."""

    def read(self, clips: Sequence[Clip], places: Sequence[int], threads: int) -> Batch:
        """The input at the place given of each clip, by so many threads; clips may repeat."""


@dataclass(frozen=True)
class FlowStacks:
    """Stacks of flow fields: d_t, d_(t + 1), ..., of which place t is the first.

    length: fields of a stack. bidirectional: half as many forward, d_t, d_(t + 1), ..., and then as many backward,
    b_t, b_(t - 1), ...; place 0 is the first t that has them all. camera: with the camera's motion in each field.
    """

    length: int
    bidirectional: bool = False
    camera: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SettingsError(f"length is {self.length}, expected at least 1")
        if self.bidirectional and self.length % 2:
            raise SettingsError(f"length is {self.length}, expected an even number if bidirectional")

    def count(self, clip: FlowClip) -> int:
        if self.bidirectional:
            clip.length("backward")  # fails if there are none
        return clip.count_stacks(self.length)

    def read(self, clips: Sequence[FlowClip], places: Sequence[int], threads: int) -> FlowBatch:
        first = self.length // 2 if self.bidirectional else 0
        direction = "bidirectional" if self.bidirectional else "forward"
        starts = [first + place for place in places]
        return read_flow_batch(clips, starts, self.length, direction=direction, threads=threads, camera=self.camera)


@dataclass(frozen=True)
class FrameRuns:
    """Runs of `length` frames t, t + 1, ..., of which place t is the first; single frames by default."""

    length: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SettingsError(f"length is {self.length}, expected at least 1")

    def count(self, clip: FrameClip) -> int:
        if len(clip) < self.length:
            raise SettingsError(f"{clip.name}: has {len(clip)} frames, expected at least {self.length}")
        return len(clip) - self.length + 1

    def read(self, clips: Sequence[FrameClip], places: Sequence[int], threads: int) -> FrameBatch:
        return read_frame_batch(clips, places, self.length)
