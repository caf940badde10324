# SPDX-License-Identifier: BSD-3-Clause
"""Training batches read by worker processes; what they hold depends on seed and iteration alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from twostream_ext.data.lists import Video
from twostream_ext.data.readers import read_ahead
from twostream_ext.data.sampling import BatchPlan, class_uniform_draws
from twostream_ext.data.video_sets import ClipSource
from twostream_ext.devices import processors
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowClip, flow_tables, read_flow_batch
from twostream_ext.media import FrameClip
from twostream_ext.ops import FlowBatch

Item = TypeVar("Item")
Read = TypeVar("Read")

_ALIGNMENT = 16  # bytes, of each tensor in a packed batch


class FlowBatchItem(NamedTuple):
    """Flow of N videos, L fields of each; displacement = lo + step * code, in pixels."""

    flow: list[Tensor]  # N of uint8 [L, H_i, W_i, 2], views of planes [L, 2, H_i, W_i] in one buffer
    lo: Tensor  # float32 [N, L, 2]
    step: Tensor  # float32 [N, L, 2]
    mean: Tensor  # float32 [N, L, 2]
    labels: Tensor  # int64 [N]


class FrameBatchItem(NamedTuple):
    """One frame of each of N videos."""

    frames: list[Tensor]  # N of uint8 RGB [H_i, W_i, 3]
    labels: Tensor  # int64 [N]


def flow_batches(
    store: ClipSource[FlowClip],
    videos: Sequence[Video],
    *,
    length: int,
    batch_size: int,
    iterations: int,
    start_iteration: int = 0,
    seed: int,
    workers: int,
    bidirectional: bool = False,
    rank: int = 0,
    ranks: int = 1,
    accumulate: int = 1,
    device: str | torch.device = "cpu",
) -> Iterator[FlowBatchItem]:
    """Batches start_iteration .. iterations - 1 of flow stacks, for the temporal net.

    Videos are drawn uniformly across classes and of each a stack at random (paper, section 5): the
    fields d_t .. d_(t + length - 1), or if `bidirectional`, the fields d_t, d_(t + 1), ... and then
    b_t, b_(t - 1), ..., half as many each way.

    workers: processes that read ahead; with 0 the caller reads. The processors are shared among them,
    as threads that decode. Batch i depends on `seed` and i, and neither on `start_iteration` nor on
    `workers`.
    rank, ranks, accumulate: only the share of process `rank` of `ranks` is read of each batch, in
    `accumulate` items one after the other; see `BatchPlan`.
    device: where the items are wanted; to a GPU each goes by one copy from page-locked memory, on the
    current stream.

    SettingsError, before anything is read, if a number cannot be, a video has fewer than length + 1
    frames or the store has no backward flow; FlowStoreError if a video is not in the store or
    damaged.
    """
    _check_numbers(length=length, batch_size=batch_size)
    plan = BatchPlan(batch_size, seed, rank, ranks, accumulate)
    if bidirectional and length % 2:
        raise SettingsError(f"length is {length}, expected an even number if bidirectional")
    for video in videos:
        _check_flow(store.peek(video.name), length, bidirectional)
    threads = max(1, processors() // max(1, workers))
    read = _FlowReader(store, videos, plan, length, bidirectional, threads)
    return _items(read_ahead(read, plan.pieces(start_iteration, iterations), workers, device), _flow_item, device)


def frame_batches(
    store: ClipSource[FrameClip],
    videos: Sequence[Video],
    *,
    batch_size: int,
    iterations: int,
    start_iteration: int = 0,
    seed: int,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    accumulate: int = 1,
    device: str | torch.device = "cpu",
) -> Iterator[FrameBatchItem]:
    """Batches start_iteration .. iterations - 1 of frames, for the spatial net.

    Videos are drawn uniformly across classes and of each one frame at random (paper, section 5).
    See `flow_batches` for the rest.
    """
    _check_numbers(batch_size=batch_size)
    plan = BatchPlan(batch_size, seed, rank, ranks, accumulate)
    for video in videos:
        store.peek(video.name)
    read = _FrameReader(store, videos, plan)
    return _items(read_ahead(read, plan.pieces(start_iteration, iterations), workers, device), _frame_item, device)


class _Stacks(NamedTuple):
    """What a worker sends: one tensor, as each costs an open file of shared memory."""

    flow: FlowBatch
    labels: list[int]


@dataclass(frozen=True)
class _FlowReader:
    """Reads piece `number` of the plan."""

    store: ClipSource[FlowClip]
    videos: Sequence[Video]
    plan: BatchPlan
    length: int
    bidirectional: bool
    threads: int

    def __call__(self, number: int) -> _Stacks:
        draws = _draw(self.videos, self.plan, number)
        clips = [self.store[video.name] for video, _ in draws]
        starts = [
            _scale(position, clip.count_stacks(self.length)) for clip, (_, position) in zip(clips, draws, strict=True)
        ]
        if self.bidirectional:
            starts = [start + self.length // 2 for start in starts]
        direction = "bidirectional" if self.bidirectional else "forward"
        flow = read_flow_batch(clips, starts, self.length, direction=direction, threads=self.threads)
        return _Stacks(flow, [video.label for video, _ in draws])


@dataclass(frozen=True)
class _FrameReader:
    """Reads piece `number` of the plan: labels, then the frame of each video, packed."""

    store: ClipSource[FrameClip]
    videos: Sequence[Video]
    plan: BatchPlan

    def __call__(self, number: int) -> _Packed:
        draws = _draw(self.videos, self.plan, number)
        clips = [self.store[video.name] for video, _ in draws]
        frames = [
            torch.from_numpy(clip.read(_scale(position, len(clip))))
            for clip, (_, position) in zip(clips, draws, strict=True)
        ]
        labels = torch.tensor([video.label for video, _ in draws], dtype=torch.int64, device="cpu")
        return _pack([labels, *frames])


class _Packed(NamedTuple):
    """Tensors in one buffer: each that a worker sends costs an open file of shared memory."""

    buffer: Tensor  # uint8
    parts: list[tuple[torch.dtype, tuple[int, ...]]]


def _items(
    pieces: Iterator[Read], item: Callable[[Read, str | torch.device], Item], device: str | torch.device
) -> Iterator[Item]:
    """When it ends or is closed, so do the pieces, and the processes that read them."""
    for read in pieces:
        yield item(read, device)


def _pack(tensors: Sequence[Tensor]) -> _Packed:
    parts = [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors]
    spans = _spans(parts)
    buffer = torch.empty(spans[-1][1], dtype=torch.uint8, device="cpu")
    for tensor, (begin, end) in zip(tensors, spans, strict=True):
        buffer[begin:end] = tensor.contiguous().flatten().view(torch.uint8)
    return _Packed(buffer, parts)


def _unpack(packed: _Packed) -> list[Tensor]:
    """Views of the buffer."""
    return [
        packed.buffer[begin:end].view(dtype).view(shape)
        for (dtype, shape), (begin, end) in zip(packed.parts, _spans(packed.parts), strict=True)
    ]


def _spans(parts: Sequence[tuple[torch.dtype, tuple[int, ...]]]) -> list[tuple[int, int]]:
    """First and last byte of each tensor in the buffer."""
    spans, end = [], 0
    for dtype, shape in parts:
        begin = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = begin + prod(shape) * dtype.itemsize
        spans.append((begin, end))
    return spans


def _flow_item(stacks: _Stacks, device: str | torch.device) -> FlowBatchItem:
    flow = stacks.flow.to(device, non_blocking=True)
    return FlowBatchItem(flow.fields, *flow_tables(flow), torch.tensor(stacks.labels, dtype=torch.int64, device="cpu"))


def _frame_item(packed: _Packed, device: str | torch.device) -> FrameBatchItem:
    labels, *frames = _unpack(packed._replace(buffer=packed.buffer.to(device, non_blocking=True)))
    return FrameBatchItem(frames, labels)


def _draw(videos: Sequence[Video], plan: BatchPlan, number: int) -> list[tuple[Video, float]]:
    piece = plan.piece(number)
    labels = [video.label for video in videos]
    draws = class_uniform_draws(labels, plan.seed, piece.iteration, plan.batch_size)
    return [(videos[index], position) for index, position in draws[piece.first : piece.last]]


def _scale(position: float, count: int) -> int:
    """One of 0 .. count - 1, from 0 <= position < 1; the product may round up to count."""
    return min(int(position * count), count - 1)


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise SettingsError(f"{name} is {number}, expected at least 1")


def _check_flow(clip: FlowClip, length: int, bidirectional: bool) -> None:
    if bidirectional:
        clip.length("backward")
    clip.count_stacks(length)  # fails if there are none
