# SPDX-License-Identifier: BSD-3-Clause
"""Processes that read ahead, and end when their parent wants or ends, but not by a signal to the whole group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from twostream_ext.errors import SettingsError, TwoStreamError

Read = TypeVar("Read")

START_METHOD = "fork"
"""How readers are started, on every version of Python. A forked one reads at once; by "spawn" or "forkserver", which
serve as well, it first takes seconds to import torch."""

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_PATIENCE = 1.0  # seconds between two looks at whether the parent lives


def read_ahead(
    read: Callable[[int], Read], numbers: range, workers: int, device: str | torch.device = "cpu"
) -> Iterator[Read]:
    """`read(number)` of each number in turn, read ahead by `workers` processes; with 0 the caller reads.

    read: can be pickled. Its TwoStreamErrors are raised here as they are.
    device: where the results will be wanted; for a GPU they come in page-locked memory.

    When the iterator ends or is closed, the processes end. SIGINT and SIGTERM, which are often sent to a whole group of
    processes, do not end them: their parent may need what they read until it has saved.

    SettingsError, before anything is read, if `workers` is negative.
    """
    if workers < 0:
        raise SettingsError(f"workers is {workers}, expected at least 0")
    loader = DataLoader(
        _Numbered(read),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=torch.device(device).type == "cuda",
        collate_fn=_unchanged,
        worker_init_fn=_leave_signals_to_parent,
        multiprocessing_context=START_METHOD if workers else None,
        generator=torch.Generator("cpu"),  # else it would draw from the caller's
    )
    return _results(loader)


def _results(loader: DataLoader[Read | TwoStreamError]) -> Iterator[Read]:
    """The loader's iterator goes with this one, and takes the processes with it."""
    for result in _start(loader):
        if isinstance(result, TwoStreamError):
            raise result
        yield result


def _start(loader: DataLoader[Read | TwoStreamError]) -> Iterator[Read | TwoStreamError]:
    """Start the processes with the signals blocked, from their first moment and for all their threads."""
    if START_METHOD != "fork":
        resource_tracker.ensure_running()  # or it would be started below, which unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        # The loader draws a seed on the CPU, and would do so on torch's default device.
        with torch.device("cpu"):
            return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Numbered(Dataset[Any], Generic[Read]):
    """The results by number. An error is handed over, as the loader would wrap it in traces."""

    def __init__(self, read: Callable[[int], Read]) -> None:
        self._read = read

    def __getitem__(self, number: int) -> Read | TwoStreamError:
        try:
            return self._read(number)
        except TwoStreamError as error:
            return error


def _unchanged(result: Any) -> Any:
    return result


def _leave_signals_to_parent(worker: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a fork server may have been started with other ones
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent says so by SIGTERM, or is gone.

    The parent is the process that wants the results, also where a fork server is what started this one.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.is_alive():
        came = signal.sigtimedwait({signal.SIGTERM}, _PATIENCE)
        if came is not None and came.si_pid == parent.pid:
            break
    os._exit(0)
