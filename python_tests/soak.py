# SPDX-License-Identifier: BSD-3-Clause
"""Training with readers that are killed, stopped, or short of memory, at random moments, for as long as one likes.

python soak.py FOLDER [--minutes 30] [--seed N] [--out FILE]

One process trains, again and again, with two readers. Each disturbance must end in training that goes on, or in one
clear line, after which `--resume` goes on; never in a wait without end. At the end of each training the weights must be
those of an undisturbed one, bit for bit; no reader may be left, and memory, threads and open files must stay as they
are. Prints the counts and what did not hold; exits with 1 if anything did not.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import io
import json
import mmap
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import long_run
import torch
import training_runs

from twostream_ext import cli, engine
from twostream_ext.data import readers
from twostream_ext.engine.training_log import TrainingLog

HANGS_AFTER = 5  # seconds until the training takes its readers to hang
SECONDS = 90  # without an iteration, or an end, until the training itself is taken to hang
EVERY = 4.0  # seconds between two disturbances, at most
ITERATIONS = 400
MOST_WRONG = 20  # then it ends
SETTLED_AFTER = 15  # seconds until a thread that is still there is taken to stay
GROWTH = 60.0  # MB that a process may come to hold while it trains over and over


class Progress:
    """What the training has done, in memory that both processes see."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, 16)
        self._numbers = (ctypes.c_uint64 * 2).from_buffer(memory)

    @property
    def steps(self) -> int:
        """Iterations and ends."""
        return self._numbers[0]

    def step(self) -> None:
        self._numbers[0] += 1

    @property
    def is_over(self) -> bool:
        return bool(self._numbers[1])

    def end(self) -> None:
        self._numbers[1] = 1


class Held(NamedTuple):
    """What the process that trains holds, between two trainings."""

    megabytes: float
    open_files: int
    threads: int
    processes: int


def held() -> Held:
    _settle()
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    open_files = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
    megabytes = pages * mmap.PAGESIZE / 1e6
    return Held(megabytes, open_files, threading.active_count(), len(children(os.getpid())))


def _left() -> int:
    """Number of processes that are still there after some seconds; on a busy machine they may take one to end."""
    for _ in range(100):
        if not children(os.getpid()):
            break
        time.sleep(0.05)
    return len(children(os.getpid()))


def _settle() -> None:
    """Wait for the threads that received of readers, which look every 5 s whether those live."""
    end = time.monotonic() + SETTLED_AFTER
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.05)


def children(process: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(stat.parent.name))
    return found


def train(folder: Path, *, workers: int = 2, iterations: int = ITERATIONS) -> tuple[int, str]:
    """The command; what main returned, and what it said."""
    numbers = ["--recipe", "demo", "--iterations", str(iterations), "--batch-size", "4", "--length", "2"]
    options = ["--out", str(folder / "out"), "--workers", str(workers), "--checkpoint-every", "10", "--resume"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(["train", "temporal", *training_runs.sources(folder), *numbers, *options])
    return status, said.getvalue()


def weights(folder: Path) -> bytes:
    return (folder / "out" / engine.MODEL_FILE).read_bytes()


def train_over_and_over(folder: Path, iterations: int, progress: Progress) -> dict[str, Any]:
    """Trainings of so many iterations until all is over; counts, and what did not hold."""
    readers.HANGS_AFTER = HANGS_AFTER
    tick = TrainingLog.tick

    def noted(self: TrainingLog, seconds: float) -> None:
        tick(self, seconds)
        progress.step()
        counts["iterations"] += 1

    counts: Counter[str] = Counter()
    wrong: list[str] = []
    whole = None
    first: Held | None = None
    last = held()
    idle = 0  # trainings in a row that ended before their first iteration
    while counts["trainings"] < 2 or not progress.is_over:
        shutil.rmtree(folder / "out", ignore_errors=True)
        status = 1
        TrainingLog.tick = noted  # type: ignore[method-assign]
        while status:
            before = counts["iterations"]
            # The one that all are compared with is not disturbed: it has no readers.
            status, said = train(folder, workers=2 if whole else 0, iterations=iterations)
            progress.step()
            counts[f"ended with {status}"] += 1
            wrong += check_end(status, said)
            left = _left()
            if left:
                wrong.append(f"{left} readers are left after: {said}")
            idle = 0 if counts["iterations"] > before else idle + 1
            if idle == MOST_WRONG:
                wrong.append(f"does not get on: {said}")
            if len(wrong) > MOST_WRONG or idle == MOST_WRONG:
                break
        if status:
            break
        whole = whole or weights(folder)
        counts["trainings"] += 1
        if weights(folder) != whole:
            wrong.append("the weights are not those of an undisturbed training")
        last = held()
        if counts["trainings"] == 2:  # the first with readers
            first = last
    TrainingLog.tick = tick  # type: ignore[method-assign]
    first = first or last
    if last.megabytes > first.megabytes + GROWTH:
        wrong.append(f"memory grew from {first.megabytes:.0f} to {last.megabytes:.0f} MB")
    if last[1:] != first[1:]:
        wrong.append(f"open files, threads, processes were {first[1:]}, are {last[1:]}")
    return {"counts": counts, "at_begin": first._asdict(), "at_end": last._asdict(), "wrong": wrong}


def check_end(status: int, said: str) -> list[str]:
    """What is wrong with the end of a training."""
    begins = {0: "", 1: "twostream: error: ", 143: "twostream: stopped by SIGTERM"}
    lines = said.splitlines()
    if status not in begins or len(lines) != (status != 0) or not said.startswith(begins[status]):
        return [f"ended with {status}: {said[-1500:]}"]
    return []


def _kill(reader: int, _: int, __: random.Random) -> None:
    os.kill(reader, signal.SIGKILL)


def _hang(reader: int, _: int, __: random.Random) -> None:
    os.kill(reader, signal.SIGSTOP)


def _hang_and_stop(reader: int, training: int, __: random.Random) -> None:
    os.kill(reader, signal.SIGSTOP)
    os.kill(training, signal.SIGTERM)


def _pause(reader: int, _: int, draw: random.Random) -> None:
    os.kill(reader, signal.SIGSTOP)
    time.sleep(draw.uniform(0.1, 2))
    os.kill(reader, signal.SIGCONT)


def _starve(reader: int, _: int, __: random.Random) -> None:
    resource.prlimit(reader, resource.RLIMIT_AS, (1 << 20, 1 << 20))


DISTURBANCES: dict[str, Callable[[int, int, random.Random], None]] = {
    "reader killed": _kill,
    "reader hung": _hang,
    "reader hung, training told to stop": _hang_and_stop,
    "reader paused": _pause,
    "reader without memory": _starve,
}


def disturb(
    training: int, progress: Progress, minutes: float, draw: random.Random, least: int = 0
) -> tuple[Counter[str], int]:
    """Disturb a random reader at random moments; counts, and how often the training hung.

    It ends when the time is over and there were so many, which on a slow machine takes longer, but not SECONDS.
    """
    counts: Counter[str] = Counter()
    end = time.monotonic() + 60 * minutes
    kinds: list[str] = []
    while (now := time.monotonic()) < end or (counts.total() < least and now < end + SECONDS):
        time.sleep(draw.uniform(0.05, min(EVERY, 10 * minutes)))
        found = children(training)
        if not found:
            continue
        kinds = kinds or draw.sample(list(DISTURBANCES), len(DISTURBANCES))
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            DISTURBANCES[kinds[-1]](draw.choice(found), training, draw)
            counts[kinds.pop()] += 1
        if not _goes_on(progress):
            return counts, 1
    return counts, 0


def _goes_on(progress: Progress) -> bool:
    """Whether there is an iteration or an end in time."""
    before, end = progress.steps, time.monotonic() + SECONDS
    while progress.steps < before + 2:  # one may have been about to end
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def soak(folder: Path, minutes: float, seed: int, iterations: int = ITERATIONS, least: int = 0) -> dict[str, Any]:
    """Train in a forked process, disturbed for so many minutes and at least so often; counts, and what did not hold."""
    folder.mkdir(parents=True, exist_ok=True)
    training_runs.make_folder(folder)
    progress = Progress()
    training = os.fork()
    if training == 0:
        _be_trained_in(folder, iterations, progress)
    began = time.monotonic()
    while not children(training) and time.monotonic() < began + SECONDS:
        time.sleep(0.05)  # the one without readers
    disturbances, hangs = disturb(training, progress, minutes, random.Random(seed), least)
    progress.end()
    status = _wait(training, progress)
    result = folder / "result.json"
    found = json.loads(result.read_text()) if result.exists() else {"counts": {}, "wrong": []}
    words = (folder / "words.txt").read_text(errors="replace")
    wrong = found["wrong"]
    if hangs or status:
        wrong.append(f"the training hung, or ended with {status}: {words[-3000:]}")
    elif words:
        wrong.append(f"said beside its lines: {words[-3000:]}")
    hours = (time.monotonic() - began) / 3600
    return {"hours": round(hours, 4), "disturbances": disturbances, "hangs": hangs, **found, "wrong": wrong}


def _be_trained_in(folder: Path, iterations: int, progress: Progress) -> None:
    """What the forked process does; it does not return."""
    with (folder / "words.txt").open("w") as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
        faulthandler.register(signal.SIGUSR1, file=words, all_threads=True)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # another test may have had a handler set
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # between two trainings
        status = 99
        try:
            torch.set_num_threads(1)
            recipe = engine.RECIPES["demo"]
            engine.RECIPES["demo"] = replace(recipe, input_size=training_runs.SIDE, width=0.05)
            found = train_over_and_over(folder, iterations, progress)
            (folder / "result.json").write_text(json.dumps(found))
            status = 0
        except BaseException:
            traceback.print_exc(file=words)
        words.flush()
        os._exit(status)


def _wait(process: int, progress: Progress) -> int:
    """Its exit status, when the training that it is at is done; one that hangs is asked where, and killed."""
    while True:
        before, end = progress.steps, time.monotonic() + SECONDS
        while progress.steps == before and time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        if progress.steps == before:
            break
    os.kill(process, signal.SIGUSR1)
    time.sleep(1)
    for each in (*children(process), process):
        os.kill(each, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


if __name__ == "__main__":
    sys.exit(long_run.main(soak, __doc__, minutes=30))
