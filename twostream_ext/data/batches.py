# SPDX-License-Identifier: BSD-3-Clause
"""Training batches read by worker processes; what they hold depends on seed and iteration alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from twostream_ext.data.inputs import InputBatch, Inputs
from twostream_ext.data.lists import Video
from twostream_ext.data.sampling import BatchPlan, class_uniform_draws
from twostream_ext.data.video_sets import ClipSource
from twostream_ext.devices import processors
from twostream_ext.errors import SettingsError, TwoStreamError

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
    read = _PieceReader(store, videos, plan, inputs, threads=max(1, processors() // max(1, workers)))
    return _items(_loader(read, plan.pieces(start_iteration, iterations), workers, device), device)


@dataclass(frozen=True)
class _PieceReader(Generic[Clip, Batch]):
    """Reads piece `number` of the plan: in one buffer, as each that a worker sends costs an open file; and labels."""

    store: ClipSource[Clip]
    videos: Sequence[Video]
    plan: BatchPlan
    inputs: Inputs[Clip, Batch]
    threads: int

    def __call__(self, number: int) -> tuple[Batch, list[int]]:
        draws = _draw(self.videos, self.plan, number)
        clips = [self.store[video.name] for video, _ in draws]
        places = [_scale(position, self.inputs.count(clip)) for clip, (_, position) in zip(clips, draws, strict=True)]
        return self.inputs.read(clips, places, self.threads), [video.label for video, _ in draws]


class _Pieces(Dataset[Any], Generic[Read]):
    """The pieces by number. An error is handed over, as the loader would wrap it in traces."""

    def __init__(self, read: Callable[[int], Read]) -> None:
        self._read = read

    def __getitem__(self, number: int) -> Read | TwoStreamError:
        try:
            return self._read(number)
        except TwoStreamError as error:
            return error


def _loader(
    read: Callable[[int], Read], numbers: range, workers: int, device: str | torch.device
) -> DataLoader[Read | TwoStreamError]:
    if workers < 0:
        raise SettingsError(f"workers is {workers}, expected at least 0")
    return DataLoader(
        _Pieces(read),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=torch.device(device).type == "cuda",
        collate_fn=_unchanged,
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # else it would draw from the caller's
    )


def _items(
    loader: DataLoader[tuple[Batch, list[int]] | TwoStreamError], device: str | torch.device
) -> Iterator[tuple[Batch, Tensor]]:
    """When it ends or is closed, the loader's iterator goes and takes the workers with it."""
    for read in loader:
        if isinstance(read, TwoStreamError):
            raise read
        batch, labels = read
        yield batch.to(device, non_blocking=True), torch.tensor(labels, dtype=torch.int64).to(device, non_blocking=True)


def _unchanged(packed: Any) -> Any:
    return packed


def _leave_signals_to_parent(worker: int) -> None:
    """Go on when a whole group of processes is told to stop: the parent still needs batches until it has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_parent_says, args=(os.getppid(),), daemon=True).start()


def _end_when_parent_says(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _draw(videos: Sequence[Video], plan: BatchPlan, number: int) -> list[tuple[Video, float]]:
    piece = plan.piece(number)
    labels = [video.label for video in videos]
    draws = class_uniform_draws(labels, plan.seed, piece.iteration, plan.batch_size)
    return [(videos[index], position) for index, position in draws[piece.first : piece.last]]


def _scale(position: float, count: int) -> int:
    """One of 0 .. count - 1, from 0 <= position < 1; the product may round up to count."""
    return min(int(position * count), count - 1)
