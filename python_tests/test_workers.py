# SPDX-License-Identifier: BSD-3-Clause
"""What the processes that read batches do when they are told to stop, however they were started."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import training_runs

from twostream_ext.cli import main
from twostream_ext.data import FlowStacks, read_batches, readers
from twostream_ext.engine import CHECKPOINT_FILE, RECIPES
from twostream_ext.errors import FlowStoreError, ReaderError

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


@pytest.mark.parametrize("method", ["forkserver", "spawn"], indirect=True)
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


@pytest.mark.parametrize("how", METHODS)
def test_a_training_whose_process_group_is_told_to_stop_saves(tmp_path: Path, how: str) -> None:
    training_runs.make_store(tmp_path / "flow")
    training_runs.make_lists(tmp_path)
    log = tmp_path / "out" / "log.csv"
    with in_a_group_of_its_own(f"test_workers.train(folder, {how!r})", tmp_path) as program:
        while not (log.exists() and log.read_text().count("\n") > 2):
            assert program.poll() is None, program.communicate()
            time.sleep(0.05)
        os.killpg(program.pid, signal.SIGTERM)
        errors = program.communicate(timeout=100)[1]
    assert program.returncode == 143, errors
    assert errors.startswith(f"twostream: stopped by SIGTERM; {tmp_path / 'out' / CHECKPOINT_FILE} goes on from")
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


@pytest.mark.parametrize("how", ["fork", "spawn"])
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


class Hanging:
    """Reads the first batches, then dies or fails, as a reader may."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, number: int) -> int:
        if number < 2:
            return number
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FlowStoreError("the file is damaged")


@pytest.mark.parametrize(("how", "error"), [("killed", ReaderError), ("fails", FlowStoreError)])
def test_a_wait_ends_with_the_reader(how: str, error: type[Exception]) -> None:
    items = readers.read_ahead(Hanging(how), range(100), 2)
    began = time.monotonic()
    with pytest.raises(error, match=r"was killed|is damaged"):
        list(items)
    assert time.monotonic() - began < 60
