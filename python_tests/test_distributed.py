# SPDX-License-Identifier: BSD-3-Clause
"""Training in two processes against one: the same samples, the same weights; and what a stop leaves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_runs
from safetensors.torch import load_file
from torch import Tensor

from twostream_ext.engine import CHECKPOINT_FILE

HERE = Path(__file__).parent


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}


def start_two(folder: Path) -> None:
    """Start `training_runs` twice, with what `torchrun` tells its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "training_runs.py"), str(folder)],
            env=environment(**common, RANK=str(rank)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of `training_runs` in this process and in two."""
    root = tmp_path_factory.mktemp("runs")
    training_runs.make_store(root / "store")
    training_runs.main(root)
    start_two(root)
    return root


def weights(folder: Path, name: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / f"{name}.pt", weights_only=True)
    return state


def samples(folder: Path, name: str) -> list[list[float]]:
    return json.loads((folder / f"{name}.json").read_text())  # type: ignore[no-any-return]


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("run", ["one", "two", "pieces"])
def test_two_processes_are_given_the_samples_of_one(folder: Path, run: str) -> None:
    alone = samples(folder, f"{run}1.0")
    assert [number for number, *_ in alone] == list(range(5 * 16))
    shares = [samples(folder, f"{run}2.{rank}") for rank in range(2)]
    assert [len(share) for share in shares] == [5 * 8, 5 * 8]
    assert sorted([*shares[0], *shares[1]]) == alone


@pytest.mark.parametrize("run", ["one", "two", "pieces"])
def test_two_processes_end_with_the_weights_of_one(folder: Path, run: str) -> None:
    first, second = (weights(folder, f"{run}2.{rank}") for rank in range(2))
    assert furthest(first, second) == 0
    assert furthest(first, weights(folder, f"{run}1.0")) < 1e-5
    start = training_runs.new_net(3 if run == "one" else {"small": 1, "large": 3}).state_dict()
    assert furthest(first, start) > 1e-3


def test_four_pieces_of_four_are_a_batch_of_sixteen(folder: Path) -> None:
    assert samples(folder, "pieces1.0") == samples(folder, "two1.0")
    assert furthest(weights(folder, "pieces1.0"), weights(folder, "two1.0")) < 1e-5


def test_some_process_had_no_video_of_one_head(folder: Path) -> None:
    """Or the test of what then happens would be none."""
    labels = [label for rank in range(2) for _, label, *_ in samples(folder, f"pieces2.{rank}")]
    pieces = [set(labels[at : at + 2]) for at in range(0, len(labels), 2)]
    assert {0} in pieces
    assert any(0 not in piece for piece in pieces)


def test_only_the_first_process_writes(folder: Path) -> None:
    rows = (folder / "one2" / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["iteration", "0", "1", "2", "3", "4"]
    alone = (folder / "one1" / "log.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == [row.split(",")[1] for row in alone]  # the loss of the whole batch
    assert len(list((folder / "one2" / "tensorboard").iterdir())) == 1


def test_processes_that_were_given_different_things_all_stop_and_say_which(folder: Path) -> None:
    said = [json.loads((folder / f"disagreements.{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    beginnings = [
        "learning_rate is 0.01 in process 0, but 0.02 in process 1: all must be given the same command",
        "trained_parameters is ",
        "checksum of the list of videos is ",
    ]
    assert len(said[0]) == 3
    assert all(line.startswith(beginning) for line, beginning in zip(said[0], beginnings, strict=True))
    assert not (folder / "none" / CHECKPOINT_FILE).exists()


def test_all_processes_get_the_mean_image_of_a_checkpoint(folder: Path) -> None:
    """As they get its weights: on several machines only the first has the file, and the pretrained one may be gone."""
    first, second = (weights(folder, f"mean.{rank}") for rank in range(2))
    assert furthest(first, second) == 0
    assert (first["backbone.mean_image"] == 0.5).all()


@pytest.mark.slow
def test_ten_kills_change_no_bit(tmp_path: Path) -> None:
    training_runs.make_store(tmp_path / "store")
    command = [sys.executable, str(HERE / "training_runs.py"), str(tmp_path), "kills", "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    kills = json.loads((tmp_path / "kills.json").read_text())
    assert len(kills) == 10
    assert len({lines for _, lines in kills}) > 3  # they fell in different places
    whole = tmp_path / "whole"
    expected = load_file(whole / CHECKPOINT_FILE)
    losses = [row.split(",")[:3] for row in (whole / "log.csv").read_text().splitlines()]
    assert len(losses) == 151
    runs = sorted(tmp_path.glob("killed*"))
    assert runs
    for run in runs:
        found = load_file(run / CHECKPOINT_FILE)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)  # weights and momentum
        assert [row.split(",")[:3] for row in (run / "log.csv").read_text().splitlines()] == losses
        assert not list(run.glob(".*.tmp"))
