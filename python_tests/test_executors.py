# SPDX-License-Identifier: BSD-3-Clause
"""Extraction by other workers than our own threads: any executor, a Dask cluster; and what happens when they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_extract import assert_same_files
from videos import moving_frames, write_video

from twostream_ext.cli import main
from twostream_ext.errors import ExtractionError, SettingsError
from twostream_ext.extraction import extract
from twostream_ext.extraction.executors import dask_executor
from twostream_ext.flow import FlowStore

FOLDER = Path(__file__).resolve().parent


def make_videos(folder: Path, count: int, frames: int = 12) -> Path:
    for index in range(count):
        write_video(folder / f"{'ab'[index % 2]}" / f"v{index:02d}.avi", moving_frames(frames, step=(1, 2), seed=index))
    return folder


def local_and_by(executor: Executor, videos: Path, tmp_path: Path, **options: Any) -> None:
    """The store that an executor makes is the one that our threads make."""
    for name, given in (("here", None), ("there", executor)):
        more = {"smallest_side": 32, "backward": True, "preview": True, **options}
        extract(videos, tmp_path / name, frames_out=tmp_path / f"{name}-frames", executor=given, **more)
    assert_same_files(tmp_path / "here", tmp_path / "there")
    assert_same_files(tmp_path / "here-frames", tmp_path / "there-frames")


def test_threads_of_another_pool_make_the_same_store(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        local_and_by(pool, make_videos(tmp_path / "videos", 5), tmp_path)
        with pytest.raises(SettingsError, match="workers is 2, but the executor has workers of its own"):
            extract(tmp_path / "videos", tmp_path / "flow", workers=2, executor=pool)


def spawned(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


def test_processes_make_the_same_store_and_report_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = make_videos(tmp_path / "videos", 4)
    monkeypatch.chdir(tmp_path)
    with spawned(2) as pool:
        local_and_by(pool, Path("videos"), Path(), estimator="estimators:constant")
        (videos / "text.avi").write_text("no video")
        with pytest.raises(ExtractionError, match=r"^1 of 5 .*text.avi: is not a video") as caught:
            extract(videos, tmp_path / "failing", smallest_side=32, executor=pool)
        assert len(caught.value.failures) == 1
        with pytest.raises(ExtractionError, match=r"a worker process died .*; the same call goes on from what is done"):
            extract(videos, tmp_path / "killed", smallest_side=32, executor=pool, estimator="test_executors:deadly")


def deadly(frames: object) -> None:
    """An estimator that takes its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_more_videos_than_are_handed_out_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twostream_ext.extraction.executors._AHEAD", 2)
    with ThreadPoolExecutor(2) as pool:
        local_and_by(pool, make_videos(tmp_path / "videos", 7, frames=4), tmp_path)


def test_a_scheduler_without_dask_or_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(SettingsError, match=r"needs Dask: pip install 'twostream_ext\[dask\]'"),
        dask_executor("tcp://x"),
    ):
        pass


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Cluster:
    """A Dask scheduler and two worker processes of one thread, on this machine."""

    def __init__(self, folder: Path) -> None:
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(FOLDER)])}
        self.folder = folder
        port = self.address.rpartition(":")[2]
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        common = (self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny", "--memory-limit", "0")
        self.workers = [self.start("worker", *common) for _ in range(2)]

    def start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments]
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'twostream_ext[dask]'")
    started = Cluster(tmp_path / "cluster")
    try:
        yield started
    finally:
        started.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask, tornado and sockets that a killed worker leaves
def test_a_dask_cluster_that_loses_a_worker_half_way_makes_the_same_store(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = make_videos(tmp_path / "videos", 60, frames=40)
    monkeypatch.chdir(tmp_path)
    extract("videos", "here", smallest_side=96, backward=True, preview=True)
    killed = threading.Event()

    def kill_one() -> None:
        while len(list((tmp_path / "there").rglob("*.safetensors"))) < 20:
            time.sleep(0.01)
        cluster.workers[0].kill()
        cluster.workers[0].wait()
        killed.set()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    command = ["extract", "videos", "there", "--size", "96", "--backward", "--preview", "--scheduler", cluster.address]
    assert main(command) == 0
    killer.join(timeout=1)
    assert killed.is_set()
    assert cluster.workers[0].wait() != 0
    assert capsys.readouterr().out == "60 videos in there\n"
    assert len(list(videos.rglob("*.avi"))) == 60
    assert_same_files(tmp_path / "here", tmp_path / "there")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dask_scheduler_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dask = pytest.importorskip("dask", reason="Dask is not installed: pip install 'twostream_ext[dask]'")
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'twostream_ext[dask]'")
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(SettingsError, match=f"scheduler {address}: cannot be reached"),
        dask_executor(address),
    ):
        pass


FORKED = """
import os, sys
import cv2, numpy as np
from twostream_ext.extraction import extract

cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 9)  # by several threads, which a child does not have
child = os.fork()
if child == 0:
    extract(sys.argv[1], sys.argv[2], method="dis", smallest_side=None, progress=False)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_of_a_program_that_used_opencv_extracts(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "v.avi", moving_frames(5))
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "videos"), str(tmp_path / "flow")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert list(FlowStore.open(tmp_path / "flow")) == ["v"]
