# SPDX-License-Identifier: BSD-3-Clause
"""The commands with calls that fail one by one, and killed at any moment: see faults.py, which may try many more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shims import build_shim

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes calls fail, to be loaded before libc."""
    return build_shim(tmp_path_factory.mktemp("shim"), "fault_shim")


def let_fail(shim: Path, folder: Path, code: str, *options: str) -> dict[str, Any]:
    """What faults.py found; `code` is run before it."""
    out = folder / "faults.json"
    script = f"import sys, faults\n{code}\nsys.exit(faults.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder), "--out", str(out), *options]
    paths = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    assert done.returncode == bool(found["wrong"])
    return found


@pytest.mark.unsanitized
def test_a_fault_of_each_kind_leaves_one_line_and_nothing_half_written(shim: Path, tmp_path: Path) -> None:
    kinds = ["write: no space", "write: short", "read: I/O error", "open: too many files", "rename: I/O error"]
    kinds += ["fsync: I/O error", "allocation: no memory"]
    options = ["--commands", "extract", "train", "evaluate", "--kinds", *kinds, "--most", "1", "--kills", "1"]
    found = let_fail(shim, tmp_path, "", *options)
    assert found["wrong"] == []
    assert found["faults"] + found["kills"] >= 15


@pytest.mark.slow
@pytest.mark.unsanitized
def test_many_faults_of_all_commands(shim: Path, tmp_path: Path) -> None:
    found = let_fail(shim, tmp_path, "", "--most", "3", "--kills", "5")
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
    found = let_fail(shim, tmp_path, IN_PLACE, "--commands", "evaluate", "--kinds", "write: no space", "--most", "3")
    assert any("half-written: scores.safetensors" in fault["what"] for fault in found["wrong"])
