# SPDX-License-Identifier: BSD-3-Clause
"""Batches made ready for the net: on a GPU, beside the training of the one before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Batch = tuple[Tensor, Tensor]  # inputs and labels


class Feed(Generic[Item]):
    """Gives `prepare(item)` for each item.

    On a GPU, copies and kernels of the next item run on a stream of their own while the net trains on this one; on the
    CPU the same steps are done when they are asked for, where nothing is gained by doing them before.
    (Its part for GPUs has not yet run on one.)
    """

    seconds_waited: float
    """Time spent waiting for items in all."""

    def __init__(
        self,
        items: Iterator[Item],
        prepare: Callable[[Item], Batch],
        device: torch.device,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """waiting: is entered for each wait for an item, and may end it by an exception."""
        self.seconds_waited = 0.0
        self._waiting = waiting
        self._items = items
        self._prepare = prepare
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ahead = 0 if self._stream is None else 1  # batches
        self._ready: deque[tuple[Batch, torch.cuda.Event | None]] = deque()

    def __iter__(self) -> Feed[Item]:
        return self

    def __next__(self) -> Batch:
        with torch.cuda.stream(self._stream):  # None: nothing happens
            while len(self._ready) <= self._ahead and (item := self._wait()) is not None:
                batch = self._prepare(item)
                self._ready.append((batch, None if self._stream is None else self._stream.record_event()))
        if not self._ready:
            raise StopIteration
        batch, done = self._ready.popleft()
        if done is not None:
            stream = torch.cuda.current_stream(batch[0].device)
            stream.wait_event(done)
            for tensor in batch:
                tensor.record_stream(stream)  # its memory is not used again before the net is done with it
        return batch

    def _wait(self) -> Item | None:
        began = time.perf_counter()
        with self._waiting():
            item = next(self._items, None)
        self.seconds_waited += time.perf_counter() - began
        return item
