# SPDX-License-Identifier: BSD-3-Clause
"""A batch of frames of different sizes in one buffer, which goes to a device with one copy."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext.media.frames import FrameClip

_ALIGNMENT = 64  # bytes: a cache line, and whole vectors for every kernel


@dataclasses.dataclass(frozen=True)
class FrameBatch:
    """N samples of L consecutive frames each, of any sizes: all views of `buffer`.

    What `ops.FlowBatch` is for flow. Make one with `pack` from frames, or read it with `read_frame_batch`;
    `ops.crop_frames` takes its `frames`.
    """

    buffer: Tensor
    """uint8 `[bytes]`: the frames `[H_i, W_i, 3]`, those of a sample one after the other."""
    packed_sizes: tuple[tuple[int, int], ...]
    """Height and width of the frames of each sample in the buffer, in pixels."""
    length: int = 1
    """L, the frames of a sample."""
    first: int = 0
    """Of the samples in the buffer, the first that belongs to the batch; see `part`."""
    last: int | None = None
    """And the one after the last; None: to the end."""

    @classmethod
    def empty(cls, sizes: Sequence[tuple[int, int]], length: int = 1) -> FrameBatch:
        """Allocate a batch on the CPU to write into. ValueError: no sample, or a size or a length below 1."""
        if not sizes or min(min(pair) for pair in sizes) < 1 or length < 1:
            raise ValueError(f"FrameBatch: sizes and length must be at least 1, got {list(sizes)} and {length}")
        batch = cls(torch.empty(0, dtype=torch.uint8, device="cpu"), tuple(sizes), length)
        buffer = torch.empty(batch._offsets[-1], dtype=torch.uint8, device="cpu")
        return dataclasses.replace(batch, buffer=buffer)

    @classmethod
    def pack(cls, frames: Sequence[Tensor | npt.NDArray[np.uint8]], length: int = 1) -> FrameBatch:
        """Copy N * length frames, uint8 RGB [H_i, W_i, 3], into one buffer.

        ValueError: no frames, frames of other shapes or dtypes, or a sample of frames of several sizes.
        """
        given = [torch.from_numpy(frame) if isinstance(frame, np.ndarray) else frame for frame in frames]
        batch = cls.empty([(frame.shape[0], frame.shape[1]) for frame in given[::length]], length)
        for target, frame in zip(batch.frames, given, strict=True):
            if frame.dtype != torch.uint8 or frame.shape != target.shape:
                got = f"{frame.dtype} {list(frame.shape)}"
                raise ValueError(f"FrameBatch: frames must be uint8 [H, W, 3], alike in a sample, got {got}")
            target.copy_(frame)
        return batch

    def __len__(self) -> int:
        return len(self.sizes)

    def __reduce__(self) -> tuple[Any, ...]:  # without the cached views, which would travel as tensors of their own
        return FrameBatch, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def part(self, first: int, last: int) -> FrameBatch:
        """Give the samples first, ..., last - 1, those that there are, as a batch on the same buffer."""
        begin, end, _ = slice(first, last).indices(len(self))
        return dataclasses.replace(self, first=self.first + begin, last=self.first + end)

    @property
    def device(self) -> torch.device:
        return self.buffer.device

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each sample's frames, in pixels."""
        return self.packed_sizes[self.first : self.last]

    @functools.cached_property
    def frames(self) -> list[Tensor]:
        """N * L views uint8 RGB [H_i, W_i, 3], those of a sample one after the other."""
        views: list[Tensor] = []
        for offset, (height, width) in zip(self._offsets[self.first :], self.sizes, strict=False):
            count = height * width * 3
            sample = self.buffer[offset : offset + self.length * count].view(self.length, height, width, 3)
            views.extend(sample.unbind())
        return views

    def pin_memory(self) -> FrameBatch:
        """Give the batch in page-locked memory, from which a copy to a device can run beside other work."""
        return dataclasses.replace(self, buffer=self.buffer.pin_memory())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FrameBatch:
        """Give the batch on a device: one copy, or itself if it is there."""
        buffer = self.buffer.to(device, non_blocking=non_blocking)
        return self if buffer is self.buffer else dataclasses.replace(self, buffer=buffer)

    @functools.cached_property
    def _offsets(self) -> list[int]:
        """Where the frames of each sample in the buffer begin, and where the last end, in bytes."""
        offsets = [0]
        for height, width in self.packed_sizes:
            end = offsets[-1] + self.length * height * width * 3
            offsets.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        return offsets


def read_frame_batch(clips: Sequence[FrameClip], starts: Sequence[int], length: int = 1) -> FrameBatch:
    """Read the frames start, ..., start + length - 1 of each clip into one packed batch.

    IndexError if there is no such frame, FlowStoreError if one is damaged; ValueError if there are not as many starts
    as clips.
    """
    batch = FrameBatch.empty([clip.size for clip in clips], length)
    frames = iter(batch.frames)
    for clip, start in zip(clips, starts, strict=True):
        for index in range(start, start + length):
            next(frames).copy_(torch.from_numpy(clip.read(index)))
    return batch
