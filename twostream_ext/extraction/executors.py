# SPDX-License-Identifier: BSD-3-Clause
"""Who works on the videos: threads of this process, any executor, a Dask cluster."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch
from tqdm import tqdm

from twostream_ext.errors import ExtractionError, SettingsError, TwoStreamError, VideoError, describe
from twostream_ext.extraction.job import Made, StretchT, Submit
from twostream_ext.optional_packages import import_optional
from twostream_ext.threads import single_threads

_AHEAD = 1024  # videos that an executor has been given and not done
_WAIT = 0.5  # seconds between two updates of the progress bar where no video ends


class _StoppedError(BaseException):
    """The extraction was given up, through no fault of the video."""


class VideoJob(Protocol):
    """What is to be done with a video."""

    @property
    def video(self) -> Path: ...


JobT = TypeVar("JobT", bound=VideoJob)


class Outcome(NamedTuple):
    """What is to be said of videos, by their paths."""

    failures: dict[Path, str]  # why those have no files that have none
    damages: dict[Path, str]  # what those have lost that have files


class Progress:
    """Counts videos and what is done of them, and shows both, with the time left, on a terminal."""

    def __init__(self, total: int, done: int, shown: bool, *, work: str = "flow", counted: str = "pairs") -> None:
        """total, done: videos; work: what is done; counted: what is counted of a video."""
        self.count = 0
        self._counted = counted
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._bar = tqdm(
            total=total, initial=done, desc=work, unit="video", smoothing=0, disable=None if shown else True
        )

    def add(self, count: int) -> None:
        with self._lock:
            self.count += count

    def add_video(self, told: str = "") -> None:
        """told: a line to be printed."""
        if told:
            self._bar.write(told)
        self._note_rate()
        self._bar.update()

    def refresh(self) -> None:
        self._note_rate()
        self._bar.refresh()

    def _note_rate(self) -> None:
        rate = self.count / (time.perf_counter() - self._started)
        self._bar.set_postfix_str(f"{rate:.{0 if rate >= 10 else 1}f} {self._counted}/s", refresh=False)

    def close(self) -> None:
        self._bar.close()


def run_on_threads(
    jobs: Iterable[JobT], make: Callable[[JobT, Submit], Made], workers: int, progress: Progress
) -> Outcome:
    """Work on videos with `workers` threads, which share even a single video; make: does one of them."""
    stop = threading.Event()
    with (
        single_threads(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ThreadPoolExecutor(workers) as decoders,
    ):
        submit = _bounded(pool, 2 * workers, stop, progress)

        def make_counted(job: JobT) -> Made:
            return make(job, submit)._replace(pairs=0)  # the stretches are counted one by one

        try:
            return _run(jobs, lambda job: decoders.submit(make_counted, job), workers, progress)
        except BaseException:
            stop.set()
            for each in (pool, decoders):  # what is in work ends, what waits is not begun
                each.shutdown(wait=False, cancel_futures=True)
            raise


def run_on_executor(
    jobs: Iterable[JobT], run: Callable[[JobT], Made], executor: Executor, progress: Progress
) -> Outcome:
    """Work on videos by the workers of an executor, one thread a video; run: does one of them, and can be pickled."""
    with single_threads():
        return _run(jobs, lambda job: executor.submit(run, job), _AHEAD, progress)


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """The executor of a Dask cluster, by its scheduler's address, "tcp://host:8786" say.

    SettingsError if Dask cannot be imported or the scheduler cannot be reached.
    """
    client_of = import_optional("distributed", "--scheduler", "dask").Client
    try:
        client = client_of(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(f"scheduler {address}: cannot be reached: {describe(error)}") from error
    with client:
        yield client.get_executor(pure=False)  # each video is a task of its own, done again where its worker died


def _run(jobs: Iterable[JobT], submit: Callable[[JobT], Future[Made]], ahead: int, progress: Progress) -> Outcome:
    """Have `ahead` videos under way at any time."""
    failures: dict[Path, str] = {}
    damages: dict[Path, str] = {}
    under_way: dict[Future[Made], JobT] = {}
    finished: queue.SimpleQueue[Future[Made]] = queue.SimpleQueue()

    def start(count: int) -> None:
        for job in islice(waiting, count):
            future = submit(job)
            under_way[future] = job
            future.add_done_callback(finished.put)

    waiting = iter(jobs)
    try:
        start(ahead)
        while under_way:
            try:
                future = finished.get(timeout=_WAIT)
            except queue.Empty:
                progress.refresh()
                continue
            job = under_way.pop(future)
            start(1)
            told = ""
            try:
                made = future.result()
                told = made.told
                progress.add(made.pairs)
                if made.damage:
                    damages[job.video] = f"{job.video}: {made.damage}"
            except VideoError as error:
                failures[job.video] = str(error)
            except (TwoStreamError, BrokenExecutor):
                raise
            except Exception as error:
                failures[job.video] = f"{job.video}: {describe(error)}"
            progress.add_video(told)
    except BrokenExecutor as error:
        raise ExtractionError(
            f"a worker process died ({describe(error)}); the same call goes on from what is done"
        ) from error
    finally:
        for future in under_way:
            future.cancel()
    return Outcome(failures, damages)


def _bounded(pool: Executor, most: int, stop: threading.Event, progress: Progress) -> Submit:
    """Submit to a pool, waiting while `most` stretches are waiting or in work, and count what is done."""
    slots = threading.BoundedSemaphore(most)

    def submit(call: Callable[[], StretchT]) -> Future[StretchT]:
        slots.acquire()
        if stop.is_set():
            slots.release()
            raise _StoppedError
        future = pool.submit(_counted, call, progress)
        future.add_done_callback(lambda _: slots.release())
        return future

    return submit


def _counted(call: Callable[[], StretchT], progress: Progress) -> StretchT:
    coded = call()
    progress.add(coded.pairs)
    return coded
