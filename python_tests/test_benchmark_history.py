# SPDX-License-Identifier: BSD-3-Clause
"""The history of the benchmarks' records: benchmarks/history.py."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def history(benchmark_scripts: Path) -> ModuleType:
    import history

    return history


def record_of(day: int, milliseconds: float) -> dict[str, Any]:
    ours = {"name": "twostream_ext", "median_ms": milliseconds, "fraction_of_limit": 0.5}
    return {
        "date": f"2026-01-{day:02}T10:00:00+00:00",
        "commit": f"{day:040x}",
        "machine": {"cpu": "a processor", "cores": 2, "threads": 2},
        "versions": {"torch": "2.13.0"},
        "kernels": [{"operator": "mean_flow", "workload": "float32", "implementations": [ours]}],
    }


def git(folder: Path, *arguments: str) -> None:
    who = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "protocol.file.allow=always",
    ]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(history: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two records, the later of which was committed first."""
    root = tmp_path / "checkout"
    (root / history.RECORD).parent.mkdir(parents=True)
    git(root, "init", "-q")
    for day in (2, 1):
        (root / history.RECORD).write_text(json.dumps(record_of(day, 7.0 + day)))
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "record")
    monkeypatch.setattr(history.machine, "ROOT", root)
    return root


@needs_git
def test_the_history_holds_every_record_once_by_date_also_one_that_is_not_committed(
    history: ModuleType, checkout: Path
) -> None:
    assert [each["date"][8:10] for each in history.records()] == ["01", "02"]
    (checkout / history.RECORD).write_text(json.dumps(record_of(3, 10.0)))
    before = history.page(history.records())
    assert "| `mean_flow`, float32 | 8.00 ms (0.50) | 9.00 ms (0.50) | 10 ms (0.50) |" in before
    assert "| #3 | 2026-01-03 10:00 | 0000000 | a processor, 2 cores, 2 threads | 2.13.0 |" in before
    git(checkout, "commit", "-q", "-a", "-m", "record")
    assert history.page(history.records()) == before


@needs_git
def test_no_history_is_made_of_a_part_of_it(
    history: ModuleType, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", checkout.as_uri(), "shallow")
    monkeypatch.setattr(history.machine, "ROOT", tmp_path / "shallow")
    with pytest.raises(history.HistoryError, match="this checkout is shallow"):
        history.records()
    monkeypatch.setattr(history.machine, "ROOT", tmp_path)
    with pytest.raises(history.HistoryError, match="git does not know it here"):
        history.records()


def test_the_page_is_what_the_script_makes_of_git(history: ModuleType) -> None:
    try:
        found = history.records()
    except history.HistoryError as error:
        pytest.skip(str(error))
    assert history.PAGE.read_text(encoding="utf-8") == history.page(found)
