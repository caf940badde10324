# SPDX-License-Identifier: BSD-3-Clause
"""The commands with calls that fail one by one, and killed at any moment: see faults.py, which may try many more."""

from __future__ import annotations

from pathlib import Path

import pytest
from shims import build_shim, run_with_shims


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes calls fail, to be loaded before libc."""
    return build_shim(tmp_path_factory.mktemp("shim"), "fault_shim")


@pytest.mark.unsanitized
def test_a_fault_of_each_kind_leaves_one_line_and_nothing_half_written(shim: Path, tmp_path: Path) -> None:
    kinds = ["write: no space", "write: short", "read: I/O error", "open: too many files", "rename: I/O error"]
    kinds += ["fsync: I/O error", "allocation: no memory"]
    options = ["--commands", "extract", "train", "evaluate", "--kinds", *kinds, "--most", "1", "--kills", "1"]
    found = run_with_shims([shim], "faults", tmp_path, *options)
    assert found["wrong"] == []
    assert found["faults"] + found["kills"] >= 15


@pytest.mark.slow
@pytest.mark.unsanitized
def test_many_faults_of_all_commands(shim: Path, tmp_path: Path) -> None:
    found = run_with_shims([shim], "faults", tmp_path, "--most", "3", "--kills", "5")
    assert found["wrong"] == []
    assert found["faults"] > 200


IN_PLACE = """
from contextlib import contextmanager
from pathlib import Path
import twostream_ext.tensor_files

@contextmanager
def write_in_place(path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    yield Path(path)

twostream_ext.tensor_files.atomic_write = write_in_place
"""


@pytest.mark.slow
@pytest.mark.unsanitized
def test_a_file_that_is_written_in_place_is_found(shim: Path, tmp_path: Path) -> None:
    options = ["--commands", "evaluate", "--kinds", "write: no space", "--most", "3"]
    found = run_with_shims([shim], "faults", tmp_path, *options, first=IN_PLACE)
    assert any("half-written: scores.safetensors" in fault["what"] for fault in found["wrong"])
