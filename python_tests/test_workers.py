# SPDX-License-Identifier: BSD-3-Clause
"""What the processes that read batches do when they are told to stop, however they were started."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import training_runs
from soak import children
from torch.utils.data import DataLoader

from twostream_ext.cli import main
from twostream_ext.data import FlowStacks, InputBatch, VideoSet, read_batches, readers
from twostream_ext.engine import CHECKPOINT_FILE, RECIPES, train_batches
from twostream_ext.engine.streams import TemporalStream
from twostream_ext.errors import FlowStoreError, ReaderError, SettingsError, StoppedError
from twostream_ext.models import TemporalNet

METHODS = ["fork", "forkserver", "spawn"]


def batches(store: Path):  # type: ignore[no-untyped-def]
    videos = training_runs.video_set(store)
    store = videos.flow_store()
    return read_batches(store, videos.videos, FlowStacks(2), batch_size=2, iterations=1000, seed=0, workers=1)


def in_a_group_of_its_own(script: str, folder: Path) -> subprocess.Popen[str]:
    """A program whose process group is its own; the readers that it starts are in that, too."""
    path = os.pathsep.join([str(Path(__file__).parent), *(each for each in sys.path if each)])
    return subprocess.Popen(
        [sys.executable, "-c", f"import pathlib, time, test_workers; folder = pathlib.Path({str(folder)!r}); {script}"],
        cwd=folder,  # not from a bare checkout
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def is_gone(group: int) -> bool:
    """Whether no process of a group is left, after some seconds."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return False


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How readers are started."""
    monkeypatch.setattr(readers, "START_METHOD", request.param)
    return request.param


def test_only_the_parent_ends_a_reader(tmp_path: Path, method: str) -> None:
    """A scheduler sends SIGTERM to all processes of a job; the one that trains then still saves."""
    items = batches(training_runs.make_store(tmp_path))
    next(items)
    (reader,) = multiprocessing.active_children()
    subprocess.run(["kill", "-TERM", str(reader.pid)], check=True)
    subprocess.run(["kill", "-INT", str(reader.pid)], check=True)
    time.sleep(0.3)
    assert reader.is_alive()
    for _ in range(5):
        next(items)
    reader.terminate()
    reader.join(5)
    assert not reader.is_alive()
    items.close()


class StoppedEarly:
    """Is sent the signals while it comes out of its pickle, before a reader has run any line of ours."""

    def __call__(self, number: int) -> int:
        return number + 1

    def __setstate__(self, state: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            subprocess.run(["kill", f"-{int(each)}", str(os.getpid())], check=True)

    def __getstate__(self) -> dict[str, int]:
        return {"some": 1}


@pytest.mark.parametrize("method", [pytest.param("forkserver", marks=pytest.mark.slow), "spawn"], indirect=True)
def test_signals_do_not_end_a_reader_that_is_being_started(method: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert list(readers.read_ahead(StoppedEarly(), range(3), 1)) == [1, 2, 3]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def train(folder: Path, method: str) -> None:
    """The command, with a net small enough to see many batches a second, until it is stopped."""
    multiprocessing.set_start_method(method)
    readers.START_METHOD = method
    RECIPES["demo"] = replace(RECIPES["demo"], input_size=training_runs.SIDE, width=0.05)
    sources = ["--videos", str(folder), "--lists", str(folder), "--flow", str(folder / "flow")]
    numbers = ["--recipe", "demo", "--iterations", "100000", "--batch-size", "8", "--length", "2", "--workers", "2"]
    numbers += ["--checkpoint-every", "2"]  # the log is written with it
    sys.exit(main(["train", "temporal", *sources, "--out", str(folder / "out"), *numbers]))


@pytest.mark.parametrize(
    ("how", "is_hung"),
    [("fork", True), *(pytest.param(each, False, marks=[pytest.mark.slow] * (each != "fork")) for each in METHODS)],
)
def test_a_training_whose_process_group_is_told_to_stop_saves(tmp_path: Path, how: str, is_hung: bool) -> None:
    """Also with a reader that hangs: it saves the state before the batch that does not come."""
    training_runs.make_store(tmp_path / "flow")
    training_runs.make_lists(tmp_path)
    log = tmp_path / "out" / "log.csv"
    with in_a_group_of_its_own(f"test_workers.train(folder, {how!r})", tmp_path) as program:
        while not (log.exists() and log.read_text().count("\n") > 2):
            assert program.poll() is None, program.communicate()
            time.sleep(0.05)
        for reader in children(program.pid) if is_hung else ():
            os.kill(reader, signal.SIGSTOP)
        if is_hung:
            time.sleep(1)  # what was read ahead is used up
        os.killpg(program.pid, signal.SIGTERM)
        errors = program.communicate(timeout=100)[1]
    assert program.returncode == 143, errors
    batch = ", with no batch" if is_hung else ""
    assert errors.startswith(f"twostream: stopped by SIGTERM{batch}; {tmp_path / 'out' / CHECKPOINT_FILE} goes on from")
    assert "Traceback" not in errors
    assert errors.endswith(f"goes on from iteration {len(log.read_text().splitlines()) - 1}\n")
    assert is_gone(program.pid)


def read_for_ever(folder: Path, method: str) -> None:
    readers.START_METHOD = method
    items = batches(folder)
    next(items)
    print("ready", flush=True)
    time.sleep(1000)


@pytest.mark.parametrize("how", ["fork", "forkserver"])
def test_readers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path, how: str) -> None:
    training_runs.make_store(tmp_path)
    with in_a_group_of_its_own(f"test_workers.read_for_ever(folder, {how!r})", tmp_path) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGKILL)
        program.wait(10)
        assert is_gone(program.pid)


@pytest.mark.parametrize("how", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_program_that_leaves_batches_unread_ends(tmp_path: Path, how: str) -> None:
    training_runs.make_store(tmp_path)
    script = f"test_workers.readers.START_METHOD = {how!r}; items = test_workers.batches(folder); next(items)"
    with in_a_group_of_its_own(script + "; keep = [items]; keep.append(keep)", tmp_path) as program:
        assert program.communicate(timeout=100) == ("", "")
    assert program.returncode == 0
    assert is_gone(program.pid)


def train_with_little_shared_memory(folder: Path, megabytes: int, workers: int) -> subprocess.CompletedProcess[str]:
    """The command where /dev/shm is small, as in a container, with batches of some 1.3 MB."""
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm"
    script = f"import pathlib, test_workers; test_workers.train_a_little(pathlib.Path({str(folder)!r}), {workers})"
    path = os.pathsep.join([str(Path(__file__).parent), *(str(Path(each).absolute()) for each in sys.path if each)])
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", f"{mount}; exec {sys.executable} -c {shlex.quote(script)}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def train_a_little(folder: Path, workers: int) -> None:
    RECIPES["demo"] = replace(RECIPES["demo"], input_size=training_runs.SIDE, width=0.05)
    sources = ["--videos", str(folder), "--lists", str(folder), "--flow", str(folder / "flow")]
    numbers = ["--recipe", "demo", "--iterations", "2", "--batch-size", "80", "--length", "2"]
    sys.exit(main(["train", "temporal", *sources, "--out", str(folder / "out"), *numbers, "--workers", str(workers)]))


@pytest.mark.parametrize("workers", [2, 0])
def test_a_batch_that_shared_memory_is_too_small_for_is_an_error(tmp_path: Path, workers: int) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no other mounts may be made here")
    training_runs.make_store(tmp_path / "flow")
    training_runs.make_lists(tmp_path)
    done = train_with_little_shared_memory(tmp_path, 1, workers)
    if workers == 0:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("twostream: error: /dev/shm: has 1.0 MB, of which ")
    assert "MB there" in line
    assert "--workers 0" in line


class Faulty:
    """Reads the first batches, then dies, fails or hangs, as a reader may."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, number: int) -> torch.Tensor:
        if number == 2:
            if self.how == "fails":
                raise FlowStoreError("the file is damaged")
            if self.how == "waits":  # as for a file system that does not answer
                time.sleep(1000)
            os.kill(os.getpid(), {"is killed": signal.SIGKILL, "is stopped": signal.SIGSTOP}[self.how])
        return torch.tensor([number])


FAULTS = {
    "is killed": (ReaderError, "was killed"),
    "fails": (FlowStoreError, "the file is damaged"),
    "waits": (ReaderError, "have given nothing for 2 s"),
    "is stopped": (ReaderError, "have given nothing for 2 s"),
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_wait_ends_with_the_reader(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "HANGS_AFTER", 2)
    kind, words = FAULTS[how]
    with pytest.raises(kind, match=words):
        list(readers.read_ahead(Faulty(how), range(100), 2))
    assert multiprocessing.active_children() == []


def test_a_reader_that_is_killed_is_told_of_where_a_batch_is_wanted_and_nowhere_else() -> None:
    list(DataLoader(range(2), num_workers=1))  # type: ignore[arg-type]  # from now on torch hears of children's ends
    items = readers.read_ahead(Faulty("waits"), range(100), 2)
    next(items)
    for reader in multiprocessing.active_children():
        os.kill(reader.pid, signal.SIGKILL)
    time.sleep(0.5)  # torch would raise a RuntimeError here
    with pytest.raises(ReaderError, match="was killed"):
        list(items)


def test_a_reader_that_hangs_while_it_is_started_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    start = readers._start

    def start_slowly(loader: Any) -> Iterator[Any]:
        started = start(loader)
        time.sleep(0.5)
        return started

    monkeypatch.setattr(readers, "_start", start_slowly)
    with broken_off_after(0.3):
        next(readers.read_ahead(Faulty("is stopped"), range(2, 100), 1))
    check_no_reader_is_left()


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0])
def test_readers_end_also_where_the_wait_for_their_end_is_broken_off(seconds: float) -> None:
    """As by the second SIGTERM of a training that waits for readers that hang, or by an impatient Ctrl-C."""
    items = readers.read_ahead(Faulty("waits"), range(100), 2)
    next(items)
    for reader in multiprocessing.active_children():
        os.kill(reader.pid, signal.SIGSTOP)
    with broken_off_after(seconds):
        items.close()  # type: ignore[attr-defined]
    check_no_reader_is_left()
    assert not readers._receivers  # nor the files that are kept for one


@contextmanager
def broken_off_after(seconds: float) -> Iterator[None]:
    """The body, which a signal's handler ends by an exception."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(TimeoutError):
            yield
    finally:
        signal.signal(signal.SIGALRM, before)


def check_no_reader_is_left() -> None:
    for _ in range(100):
        if not multiprocessing.active_children():
            return
        time.sleep(0.05)
    raise AssertionError(f"{multiprocessing.active_children()} are left")


@pytest.mark.parametrize("how", ["waits", "is stopped"])
def test_a_program_with_a_reader_that_hangs_ends(tmp_path: Path, how: str) -> None:
    script = f"items = test_workers.readers.read_ahead(test_workers.Faulty({how!r}), range(100), 1); "
    with in_a_group_of_its_own(
        script + "next(items); time.sleep(0.5); keep = [items]; keep.append(keep)", tmp_path
    ) as program:
        assert program.communicate(timeout=100) == ("", "")
    assert program.returncode == 0
    assert is_gone(program.pid)


def test_a_training_that_fails_leaves_no_reader_while_its_error_is_kept(tmp_path: Path) -> None:
    """The trace of an error keeps all that the training had."""
    videos = training_runs.video_set(training_runs.make_store(tmp_path / "store"))

    def fail(*_: object, **__: object) -> Any:
        raise SettingsError("no such input")

    with pytest.raises(SettingsError) as kept:
        train_batches(
            training_runs.new_net(),
            partial(reads, videos, 1, workers=2),
            prepare=fail,
            settings=training_runs.SETTINGS,
            out_dir=tmp_path / "out",
            progress=False,
        )
    assert multiprocessing.active_children() == []
    assert str(kept.value) == "no such input"


def reads(videos: VideoSet, accumulate: int, start: int, workers: int = 0) -> Iterator[tuple[InputBatch, torch.Tensor]]:
    settings = training_runs.SETTINGS
    return read_batches(
        videos.flow_store(),
        videos.videos,
        FlowStacks(training_runs.LENGTH),
        batch_size=settings.batch_size,
        iterations=settings.iterations,
        start_iteration=start,
        seed=settings.seed,
        workers=workers,
        accumulate=accumulate,
    )


def train_on(batches: Callable[[int], Iterator[Any]], out: Path, accumulate: int = 1) -> TemporalNet:
    net = training_runs.new_net()
    prepare = partial(TemporalStream().training_input, settings=net.settings)
    settings = training_runs.SETTINGS
    train_batches(net, batches, prepare=prepare, settings=settings, out_dir=out, accumulate=accumulate, progress=False)
    return net


@pytest.mark.parametrize(
    ("accumulate", "goes_on", "is_told_twice"), [(1, "iteration 3", False), (2, "its last state", True)]
)
def test_a_training_that_is_told_to_stop_and_gets_no_batch_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, goes_on: str, is_told_twice: bool
) -> None:
    """The batch of iteration 3 does not come; checkpoints are written every 2 iterations."""
    monkeypatch.setattr(sys.modules["twostream_ext.engine.train"], "_GRACE", 1000.0 if is_told_twice else 0.2)
    videos = training_runs.video_set(training_runs.make_store(tmp_path / "store"))
    stop = partial(os.kill, os.getpid(), signal.SIGTERM)

    def hang(start: int) -> Iterator[tuple[InputBatch, torch.Tensor]]:
        yield from islice(reads(videos, accumulate, start), 3 * accumulate + accumulate - 1)
        stop()
        if is_told_twice:
            threading.Timer(0.2, stop).start()
        time.sleep(1000)

    with pytest.raises(StoppedError, match=f"with no batch; .* goes on from {goes_on}$"):
        train_on(hang, tmp_path / "out", accumulate)
    ended = train_on(partial(reads, videos, accumulate), tmp_path / "out", accumulate)
    whole = train_on(partial(reads, videos, accumulate), tmp_path / "whole", accumulate)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, ended.state_dict()[name]), name
    assert len((tmp_path / "out" / "log.csv").read_text().splitlines()) == 1 + training_runs.SETTINGS.iterations
