# SPDX-License-Identifier: BSD-3-Clause
"""A moment of what soak.py and crowd.py do for as long as one likes."""

from __future__ import annotations

import sys
from pathlib import Path

import crowd
import pytest
import soak


@pytest.mark.unsanitized
def test_a_disturbed_training_goes_on_or_ends_in_a_line(tmp_path: Path) -> None:
    found = soak.soak(tmp_path, minutes=0.04, seed=0, iterations=30, least=2)
    assert found["wrong"] == []
    assert found["hangs"] == 0
    assert found["counts"]["trainings"] >= 1
    assert sum(found["disturbances"].values()) >= 2


@pytest.mark.unsanitized
def test_a_store_that_many_work_on_is_whole(tmp_path: Path) -> None:
    found = crowd.try_all(tmp_path, minutes=0, seed=0, videos=8)
    assert found["wrong"] == []
    for counts in found["scenes"].values():
        assert counts["kills"] >= 1
        assert counts["files compared"] >= 8


@pytest.mark.slow
@pytest.mark.unsanitized
def test_minutes_of_disturbed_training(tmp_path: Path) -> None:
    found = soak.soak(tmp_path, minutes=2, seed=1)
    assert (found["wrong"], found["hangs"]) == ([], 0)
    assert set(found["disturbances"]) == set(soak.DISTURBANCES)


@pytest.mark.slow
@pytest.mark.unsanitized
def test_minutes_of_many_on_one_store(tmp_path: Path) -> None:
    found = crowd.try_all(tmp_path, minutes=2, seed=1)
    assert found["wrong"] == []


@pytest.mark.slow
@pytest.mark.unsanitized
def test_a_writer_that_replaces_what_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two extractions that write the same file, of which one has its reader already."""
    monkeypatch.setattr(sys.modules["twostream_ext.files"], "_place", lambda temporary, target: False)
    found = crowd.try_all(tmp_path, minutes=2, seed=0)
    assert any("was changed while it was in use" in each for each in found["wrong"])
