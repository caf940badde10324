# SPDX-License-Identifier: BSD-3-Clause
"""Processes that read ahead, and end when their parent wants or ends, but not by a signal to the whole group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from twostream_ext.errors import ReaderError, SettingsError, TwoStreamError

Read = TypeVar("Read")

START_METHOD = "fork"
"""How readers are started, on every version of Python. A forked one reads at once; by "spawn" or "forkserver", which
serve as well, it first takes seconds to import torch."""

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_SHARED_MEMORY = "/dev/shm"
_END: Any = object()
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
    results = _start(loader)
    while True:
        try:
            result = next(results, _END)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ReaderError(
                "a process that reads training batches was killed, perhaps by the system for want of memory; "
                "fewer --workers need less"
            ) from error
        if result is _END:
            return
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
            result = self._read(number)
            if get_worker_info() is not None:
                _share(result)
        except TwoStreamError as error:
            return error
        return result


def _share(result: Any) -> None:
    """Bring tensors where other processes can read them. The loader would, but in a thread whose errors nobody hears.

    ReaderError if there is not enough room.
    """
    tensors = list(_tensors(result))
    try:
        for tensor in tensors:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        raise ReaderError(_no_room(tensors)) from error


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All that a result holds: a tensor, a dataclass, or a sequence of them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)


def _no_room(tensors: list[torch.Tensor]) -> str:
    status = os.statvfs(_SHARED_MEMORY)
    whole, free = (blocks * status.f_frsize / 1e6 for blocks in (status.f_blocks, status.f_bavail))
    needed = sum(tensor.untyped_storage().nbytes() for tensor in tensors) / 1e6
    return (
        f"{_SHARED_MEMORY}: has {whole:.1f} MB, of which {free:.1f} MB are free; a batch needs {needed:.1f} MB there, "
        "and each reader reads 2 ahead; enlarge it (docker run --shm-size), or read without readers: --workers 0"
    )


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
