# SPDX-License-Identifier: BSD-3-Clause
"""The commands on what a disk may hold when the power was lost at any moment: see power_loss.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from shims import build_shim, run_with_shims

WITHOUT_FLUSHING_BYTES = "import twostream_ext.files\ntwostream_ext.files._flush = lambda path: None"
WITHOUT_FLUSHING_NAMES = "import twostream_ext.files\ntwostream_ext.files._flush_names = lambda folder: None"


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What records, and what faults.py wants, to be loaded before libc."""
    folder = tmp_path_factory.mktemp("shims")
    return [build_shim(folder, name) for name in ("fault_shim", "recording_shim")]


@pytest.mark.unsanitized
def test_what_is_on_the_disk_when_the_power_is_lost_is_whole_and_gone_on_from(
    shims: list[Path], tmp_path: Path
) -> None:
    found = run_with_shims(shims, "power_loss", tmp_path, "--commands", "extract", "train", "evaluate", "--most", "8")
    assert found["wrong"] == []
    assert found["total"]["points"] > 200
    assert found["total"]["tried"] >= 20


@pytest.mark.slow
@pytest.mark.unsanitized
def test_many_disks_of_all_commands(shims: list[Path], tmp_path: Path) -> None:
    found = run_with_shims(shims, "power_loss", tmp_path, "--most", "50")
    assert found["wrong"] == []
    assert found["total"]["tried"] > 150


@pytest.mark.slow
@pytest.mark.unsanitized
@pytest.mark.parametrize(
    ("code", "what"),
    [
        (WITHOUT_FLUSHING_BYTES, "half-written: scores.safetensors"),
        (WITHOUT_FLUSHING_NAMES, "was done, and is lost: scores.safetensors"),
    ],
    ids=["bytes", "names"],
)
def test_a_flush_that_is_left_out_is_found(shims: list[Path], tmp_path: Path, code: str, what: str) -> None:
    found = run_with_shims(shims, "power_loss", tmp_path, "--commands", "evaluate", first=code)
    assert any(what in lost["what"] for lost in found["wrong"])
