# SPDX-License-Identifier: BSD-3-Clause
"""Processes that read ahead, and end when their parent wants or ends, but not by a signal to the whole group."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils.signal_handling import _remove_worker_pids  # type: ignore[attr-defined]

from twostream_ext.errors import ReaderError, SettingsError, TwoStreamError, describe

Read = TypeVar("Read")

START_METHOD = "fork"
"""How readers are started, on every version of Python. A forked one reads at once; by "spawn" or "forkserver", which
serve as well, it first takes seconds to import torch."""

HANGS_AFTER = 600
"""Seconds that a batch may take to come until the processes are taken to hang, while this one runs."""

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_SHARED_MEMORY = "/dev/shm"
_END: Any = object()
_PATIENCE = 1.0  # seconds between two looks at whether the others live
_GRACE = 2.0  # seconds for processes to end when they are told to; then they are killed


def read_ahead(
    read: Callable[[int], Read], numbers: range, workers: int, device: str | torch.device = "cpu"
) -> Iterator[Read]:
    """`read(number)` of each number in turn, read ahead by `workers` processes; with 0 the caller reads.

    read: can be pickled. Its TwoStreamErrors are raised here as they are.
    device: where the results will be wanted; for a GPU they come in page-locked memory.

    When the iterator ends or is closed, the processes end, and are killed if they hang. SIGINT and SIGTERM, which are
    often sent to a whole group of processes, do not end them: their parent may need what they read until it has saved.

    SettingsError, before anything is read, if `workers` is negative. ReaderError if a process is killed, or if nothing
    comes of them for `HANGS_AFTER` seconds; any signal handler of the caller runs while it waits.
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
    return _results(loader, workers) if workers else _read_here(loader)


def _read_here(loader: DataLoader[Read | TwoStreamError]) -> Iterator[Read]:
    for result in _start(loader):
        if isinstance(result, TwoStreamError):
            raise result
        yield result


def _results(loader: DataLoader[Read | TwoStreamError], workers: int) -> Iterator[Read]:
    """What the processes read; they end with this iterator."""
    receiver = _Receiver(loader)
    try:
        receiver.start()
        while True:
            result = receiver.next()
            if result is _END:
                return
            if isinstance(result, TwoStreamError):
                raise result
            yield result
    finally:
        receiver.close()


class _Receiver:
    """Receives results in a thread of its own, whose caller can always give up waiting for it.

    To receive may take for ever: of a process that hangs while it hands over the memory of a tensor, or that was killed
    while it held a lock. And the loader, where it is used by the main thread, raises that a process was killed from
    whatever line that thread happens to be at.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._processes: list[BaseProcess] = []
        self._is_closed = False
        gpu = torch.cuda.current_device() if loader.pin_memory else None  # a thread begins with the first one
        self._thread = threading.Thread(target=self._receive, args=(loader, gpu), daemon=True)

    def start(self) -> None:
        """Start the processes; whatever happens meanwhile, `close` ends them."""
        _receivers.add(self)
        self._thread.start()

    def next(self) -> Any:
        """The next result, or `_END`. ReaderError if there will be none."""
        self._wanted.put(True)
        for _ in range(max(1, round(HANGS_AFTER / _PATIENCE))):  # not by a clock, which goes on while we are stopped
            try:
                result = self._came.get(timeout=_PATIENCE)
            except queue.Empty:
                self._check_alive(None)
                continue
            if isinstance(result, _Failure):
                self._check_alive(result.error)
                raise result.error
            return result
        raise ReaderError(
            f"the processes that read training batches have given nothing for {HANGS_AFTER} s; they hang, perhaps on a "
            "file system that does not answer"
        )

    def close(self) -> None:
        """End the processes, and with them the thread."""
        if self in _receivers:
            self._is_closed = True
            self._wanted.put(False)
            try:
                _end(self._processes)
                # It may be starting them. Where they are not forked, semaphores are said to be leaked unless it ends,
                # too, which looks every 5 s whether they live.
                self._thread.join(_GRACE if START_METHOD == "fork" else _GRACE + 5)
            finally:
                # Also if this is broken off, even while it kills: kept, it would keep the files that tell the
                # processes' end. If one is left all the same, it is ended with the program.
                _kill(self._processes)
                if _are_gone(self._processes):
                    _receivers.discard(self)

    def _receive(self, loader: DataLoader[Any], gpu: int | None) -> None:
        if gpu is not None:
            torch.cuda.set_device(gpu)
        try:
            results = _start(loader)
            self._processes += results._workers  # type: ignore[attr-defined]  # there is no public list of them
            _leave_alone(results)
            if self._is_closed:  # while they were started
                _end(self._processes)
                _receivers.discard(self)
            while self._wanted.get() and not self._is_closed:
                self._came.put(next(results, _END))
        except Exception as error:
            # Its trace would take the loader's iterator along. This thread alone shall have that: to free it, too, may
            # take for ever. (What happened in another process is in the text.)
            error.__cause__ = error.__context__ = None
            self._came.put(_Failure(error.with_traceback(None)))

    def _check_alive(self, error: Exception | None) -> None:
        """ReaderError if a process was killed. A broken connection is seen before the end of its process."""
        if isinstance(error, (OSError, EOFError)):
            time.sleep(_PATIENCE)
        if any(process.exitcode for process in self._processes):
            raise ReaderError(
                "a process that reads training batches was killed, perhaps by the system for want of memory; "
                "fewer --workers need less"
            )


class _Failure(NamedTuple):
    """Why nothing could be received."""

    error: Exception


_receivers: set[_Receiver] = set()
"""Those of this process that are open."""

os.register_at_fork(after_in_child=_receivers.clear)


@atexit.register  # later than `multiprocessing` did, so that it comes before that waits for all processes
def _close_all() -> None:
    for receiver in list(_receivers):
        receiver.close()


def _end(processes: list[BaseProcess]) -> None:
    """End processes; they are killed if they hang, and also if a signal's handler breaks off the wait for them."""
    try:
        for process in processes:
            process.terminate()
        end = time.monotonic() + _GRACE
        for process in processes:
            process.join(max(0, end - time.monotonic()))
    finally:
        _kill(processes)


def _kill(processes: list[BaseProcess]) -> None:
    """Kill those that are left of processes."""
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.kill()
    for process in alive:
        process.join(_GRACE)


def _are_gone(processes: list[BaseProcess]) -> bool:
    """Whether processes that were told to end have ended.

    For a moment, `is_alive` and `join` take one for alive whose end another thread, that which receives, has just seen.
    """
    end = time.monotonic() + _GRACE
    while any(process.is_alive() for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _leave_alone(results: Any) -> None:
    """Keep torch from looking after the processes of a loader's iterator.

    It would raise that one was killed in the main thread, at whatever line that is, if the program has ever used a
    loader there.
    """
    results._worker_pids_set = False
    _remove_worker_pids(id(results))


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
        raise ReaderError(_no_room(tensors, error)) from error


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


def _no_room(tensors: list[torch.Tensor], error: Exception) -> str:
    status = os.statvfs(_SHARED_MEMORY)
    whole, free = (blocks * status.f_frsize / 1e6 for blocks in (status.f_blocks, status.f_bavail))
    needed = sum(tensor.untyped_storage().nbytes() for tensor in tensors) / 1e6
    if free > needed:
        return f"a batch of {needed:.1f} MB cannot be handed to the process that trains: {describe(error)}"
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
