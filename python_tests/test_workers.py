# SPDX-License-Identifier: BSD-3-Clause
"""What the processes that read batches do when they are told to stop."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import training_runs

from twostream_ext.data import FlowStacks, read_batches


def batches(store: Path):  # type: ignore[no-untyped-def]
    videos = training_runs.video_set(store)
    store = videos.flow_store()
    return read_batches(store, videos.videos, FlowStacks(2), batch_size=2, iterations=1000, seed=0, workers=1)


def test_only_the_parent_ends_a_reader(tmp_path: Path) -> None:
    """A scheduler sends SIGTERM to all processes of a job; the one that trains then still saves."""
    items = batches(training_runs.make_store(tmp_path))
    next(items)
    (reader,) = multiprocessing.active_children()
    subprocess.run(["kill", "-TERM", str(reader.pid)], check=True)
    time.sleep(0.3)
    assert reader.is_alive()
    for _ in range(5):
        next(items)
    reader.terminate()
    reader.join(5)
    assert not reader.is_alive()
    items.close()


def test_a_program_that_leaves_batches_unread_ends(tmp_path: Path) -> None:
    training_runs.make_store(tmp_path)
    script = f"import pathlib, test_workers; items = test_workers.batches(pathlib.Path({str(tmp_path)!r})); next(items)"
    path = os.pathsep.join([str(Path(__file__).parent), *(each for each in sys.path if each)])
    command = [sys.executable, "-c", script + "; keep = [items]; keep.append(keep)"]
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=100)  # not from a bare checkout
