# SPDX-License-Identifier: BSD-3-Clause
"""Training batches read by worker processes; what they hold depends on seed and iteration alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from twostream_ext.data.inputs import InputBatch, Inputs
from twostream_ext.data.readers import read_ahead
from twostream_ext.data.sampling import BatchPlan, ClassOrder, order_by_class
from twostream_ext.data.split import Video
from twostream_ext.data.video_sets import ClipSource
from twostream_ext.devices import processors
from twostream_ext.errors import SettingsError

Clip = TypeVar("Clip")
Batch = TypeVar("Batch", bound=InputBatch)
Read = TypeVar("Read")


def read_batches(
    store: ClipSource[Clip],
    videos: Sequence[Video],
    inputs: Inputs[Clip, Batch],
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
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches start_iteration .. iterations - 1 of a net's inputs, and their labels int64 [N] beside them.

    Videos are drawn uniformly across classes and of each an input at random (paper, section 5).

    workers: processes that read ahead; with 0 the caller reads. The processors are shared among them,
    as threads that decode. Batch i depends on `seed` and i, and neither on `start_iteration` nor on
    `workers`.
    rank, ranks, accumulate: only the share of process `rank` of `ranks` is read of each batch, in
    `accumulate` items one after the other; see `BatchPlan`.
    device: where the batches are wanted; to a GPU each goes by one copy from page-locked memory, on the
    current stream.

    SettingsError, before anything is read, if a number cannot be or a video has no input;
    FlowStoreError if a video is not in the store or damaged.
    """
    if batch_size < 1:
        raise SettingsError(f"batch_size is {batch_size}, expected at least 1")
    plan = BatchPlan(batch_size, seed, rank, ranks, accumulate)
    for video in videos:
        inputs.count(store.peek(video.name))  # fails if there is none
    by_class = order_by_class([video.label for video in videos])
    read = _PieceReader(store, videos, by_class, plan, inputs, threads=max(1, processors() // max(1, workers)))
    return _items(read_ahead(read, plan.pieces(start_iteration, iterations), workers, device), device)


@dataclass(frozen=True)
class _PieceReader(Generic[Clip, Batch]):
    """Reads piece `number` of the plan: in one buffer, as each that a worker sends costs an open file; and labels."""

    store: ClipSource[Clip]
    videos: Sequence[Video]
    by_class: ClassOrder
    plan: BatchPlan
    inputs: Inputs[Clip, Batch]
    threads: int

    def __call__(self, number: int) -> tuple[Batch, list[int]]:
        piece = self.plan.piece(number)
        batch = self.by_class.draw(self.plan.seed, piece.iteration, self.plan.batch_size)
        draws = [(self.videos[index], position) for index, position in batch[piece.first : piece.last]]
        clips = [self.store[video.name] for video, _ in draws]
        places = [_scale(position, self.inputs.count(clip)) for clip, (_, position) in zip(clips, draws, strict=True)]
        return self.inputs.read(clips, places, self.threads), [video.label for video, _ in draws]


def _items(pieces: Iterator[tuple[Batch, list[int]]], device: str | torch.device) -> Iterator[tuple[Batch, Tensor]]:
    """When it ends or is closed, so do the pieces, and the processes that read them."""
    for batch, labels in pieces:
        numbers = torch.tensor(labels, dtype=torch.int64, device="cpu")
        yield batch.to(device, non_blocking=True), numbers.to(device, non_blocking=True)


def _scale(position: float, count: int) -> int:
    """One of 0 .. count - 1, from 0 <= position < 1; the product may round up to count."""
    return min(int(position * count), count - 1)
