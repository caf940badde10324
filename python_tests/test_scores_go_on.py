# SPDX-License-Identifier: BSD-3-Clause
"""Scoring that is killed, or shared between processes, ends with the scores of one that was neither."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import training_runs
from torch import Tensor

from twostream_ext.cli import main
from twostream_ext.engine import evaluate, load_scores, save_model, save_scores
from twostream_ext.models import TemporalNet

# As `python -m twostream_ext`, keeping each video's score at once and taking its time for one.
SLOWLY = """
import sys, time
from twostream_ext.cli import main
from twostream_ext.engine import evaluate, scores

names = evaluate.__globals__
score = names["_score"]

def slowly(*arguments):
    time.sleep(0.3)
    return score(*arguments)

names["_score"] = slowly
scores._KEEP_EVERY = 0
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = training_runs.make_folder(tmp_path_factory.mktemp("videos"))
    torch.manual_seed(0)
    net = TemporalNet(3, length=2, width=0.05, input_size=training_runs.SIDE)
    save_model(root / "model.safetensors", net, ["c0", "c1", "c2"])
    return root


def arguments(videos: Path, out: Path, frames: int = 4) -> list[str]:
    sources = [*training_runs.sources(videos), "--part", "train"]
    numbers = ["--frames-per-video", str(frames), "--device", "cpu"]
    return ["evaluate", "--model", str(videos / "model.safetensors"), *sources, "--out", str(out), *numbers]


def environment(**more: str) -> dict[str, str]:
    """One thread each, as torchrun sets it: how a convolution is split may change its last bits."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def expected(videos: Path) -> Tensor:
    """The scores of one process that is left alone."""
    out = videos / "alone.safetensors"
    command = [sys.executable, "-m", "twostream_ext", *arguments(videos, out)]
    subprocess.run(command, cwd=videos, env=environment(), check=True, capture_output=True)
    return load_scores(out).scores


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry for each video that is scored."""
    calls: list[int] = []
    names = evaluate.__globals__
    inner = names["_score"]
    monkeypatch.setitem(names, "_score", lambda *given: (calls.append(1), inner(*given))[1])
    return calls


def test_a_killed_evaluation_goes_on_where_it_was(
    videos: Path, expected: Tensor, tmp_path: Path, scored: list[int]
) -> None:
    out, part = tmp_path / "scores.safetensors", tmp_path / "scores.safetensors.part"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, *arguments(videos, out)], cwd=videos, env=environment())
    while not (part.exists() and len(load_scores(part).names) >= 2):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(load_scores(part).names)
    assert 2 <= kept < 6
    assert not out.exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(arguments(videos, out)) == 0
    finally:
        torch.set_num_threads(threads)
    assert len(scored) == 6 - kept
    assert torch.equal(load_scores(out).scores, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.safetensors"]


def test_what_was_kept_of_other_scores_is_not_used(videos: Path, tmp_path: Path, scored: list[int]) -> None:
    """Of other numbers of frames, and of another data set of the same net."""
    whole, out = tmp_path / "whole.safetensors", tmp_path / "scores.safetensors"
    assert main(arguments(videos, whole, frames=2)) == 0
    names, labels, values, _, made_from = load_scores(whole)
    for origin in ({**made_from, "frames": 3, "dataset": "default"}, {**made_from, "dataset": "other"}):
        scored.clear()
        save_scores(f"{out}.part", names[:3], labels[:3], values[:3], made_from=origin)
        assert main(arguments(videos, out, frames=2)) == 0
        assert len(scored) == 6
    save_scores(f"{out}.part", names[:3], labels[:3], values[:3], made_from={**made_from, "dataset": "default"})
    scored.clear()
    assert main(arguments(videos, out, frames=2)) == 0
    assert len(scored) == 3
    assert torch.equal(load_scores(out).scores, values)


def test_a_kept_part_that_is_damaged_is_named(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.safetensors"
    Path(f"{out}.part").write_bytes(b"noise")
    assert main(arguments(videos, out)) == 1
    assert f"{out}.part: cannot be read" in capsys.readouterr().err


def test_two_processes_give_the_scores_of_one(videos: Path, expected: Tensor, tmp_path: Path) -> None:
    """They go on from the score that one has kept, so that the rest is odd; the first writes and shows it."""
    out = tmp_path / "scores.safetensors"
    names, labels, values, _, made_from = load_scores(videos / "alone.safetensors")
    origin = {**made_from, "dataset": "default"}
    save_scores(f"{out}.part", names[:1], labels[:1], values[:1], made_from=origin)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "twostream_ext", *arguments(videos, out)]
    processes = [
        subprocess.Popen(
            command,
            env=environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE="2", RANK=str(rank)),
            cwd=videos,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    assert torch.equal(load_scores(out).scores, expected)
    assert "top-1 of 6 videos" in said[0][0]
    assert [
        line for line in said[1][0].splitlines() if not line.startswith("[Gloo]")
    ] == []  # torch 2.10 tells of peers
    assert [path.name for path in tmp_path.iterdir()] == ["scores.safetensors"]
