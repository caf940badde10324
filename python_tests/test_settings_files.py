# SPDX-License-Identifier: BSD-3-Clause
"""Directories that are claimed with settings: who comes first decides, also when many come at once."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from training_runs import make_lists

from twostream_ext.data import generate_videos
from twostream_ext.engine import RECIPES, run_pipeline
from twostream_ext.errors import CheckpointError, ExtractionError, SettingsError
from twostream_ext.media import FrameSettings
from twostream_ext.media.directory import claim_directory

ROUNDS, PROCESSES = 20, 6

Claim = Callable[[Path, int], None]


def claim_store(root: Path, number: int) -> None:
    claim_directory(root, "flow", FrameSettings(None, number))


def claim_generated(root: Path, number: int) -> None:
    generate_videos(root, seed=number, train_per_class=1, test_per_class=1, frames=2, size=(32, 32))


def claim_run(videos: Path, root: Path, number: int) -> None:
    """Empty files stand for the videos, so that the run that has begun fails at once."""
    run_pipeline(videos, videos, root, recipe=RECIPES["demo"], seed=number, say=lambda line: None)


def race(claim: Claim, folders: list[Path], number: int, start: Barrier, results: Path) -> None:
    """Claim one folder after the other; note those where this process had its way, and what it was told elsewhere."""
    torch.set_num_threads(1)  # a forked child that starts torch's threads waits for ever
    won, told = [], []
    for folder in folders:
        start.wait()
        try:
            claim(folder, number)
        except SettingsError as error:
            told.append(str(error))
        except ExtractionError:  # what comes after the claim
            won.append(folder.name)
        else:
            won.append(folder.name)
    results.write_text(json.dumps([won, told]))


@pytest.mark.parametrize("what", ["store", "generated videos", "run"])
def test_of_many_first_starts_with_different_settings_one_wins(tmp_path: Path, what: str) -> None:
    make_lists(tmp_path)
    claims: dict[str, tuple[Claim, int]] = {
        "store": (claim_store, ROUNDS),
        "generated videos": (claim_generated, 3),
        "run": (partial(claim_run, tmp_path), 5),
    }
    claim, rounds = claims[what]
    folders = [tmp_path / f"folder{number}" for number in range(rounds)]
    context = multiprocessing.get_context("fork")
    start = context.Barrier(PROCESSES, timeout=60)
    processes = [
        context.Process(target=race, args=(claim, folders, number, start, tmp_path / f"results{number}"))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    results = [json.loads((tmp_path / f"results{number}").read_text()) for number in range(PROCESSES)]
    assert sorted(name for won, _ in results for name in won) == sorted(folder.name for folder in folders)
    assert all(": was made with " in text for _, told in results for text in told)


@pytest.mark.parametrize("text", ["{", "3", '"text"'])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    make_lists(tmp_path)
    (tmp_path / "out").mkdir()
    for name, damaged, call in (
        (
            "run.json",
            CheckpointError,
            lambda: run_pipeline(tmp_path, tmp_path, tmp_path / "out", recipe=RECIPES["demo"]),
        ),
        ("clips.json", SettingsError, lambda: generate_videos(tmp_path / "out")),
    ):
        (tmp_path / "out" / name).write_text(text)
        with pytest.raises(damaged, match=rf"{name}: (cannot be read|does not hold settings)"):
            call()
