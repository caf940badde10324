# SPDX-License-Identifier: BSD-3-Clause
"""The commands on what a disk may hold when the power was lost at any moment: see power_loss.py."""

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

WITHOUT_FLUSHING_BYTES = "import twostream_ext.files\ntwostream_ext.files._flush = lambda path: None"
WITHOUT_FLUSHING_NAMES = "import twostream_ext.files\ntwostream_ext.files._flush_names = lambda folder: None"


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What records, and what faults.py wants, to be loaded before libc."""
    folder = tmp_path_factory.mktemp("shims")
    return ":".join(str(build_shim(folder, name)) for name in ("fault_shim", "recording_shim"))


def lose_power(shims: str, folder: Path, code: str, *options: str) -> dict[str, Any]:
    """What power_loss.py found; `code` is run before it."""
    out = folder / "power_loss.json"
    script = f"import sys, power_loss\n{code}\nsys.exit(power_loss.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder), "--out", str(out), *options]
    paths = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    environment = {**os.environ, "LD_PRELOAD": shims, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    assert done.returncode == bool(found["wrong"])
    return found


@pytest.mark.unsanitized
def test_what_is_on_the_disk_when_the_power_is_lost_is_whole_and_gone_on_from(shims: str, tmp_path: Path) -> None:
    found = lose_power(shims, tmp_path, "", "--commands", "extract", "train", "evaluate", "--most", "8")
    assert found["wrong"] == []
    assert found["total"]["points"] > 200
    assert found["total"]["tried"] >= 20


@pytest.mark.slow
@pytest.mark.unsanitized
def test_many_disks_of_all_commands(shims: str, tmp_path: Path) -> None:
    found = lose_power(shims, tmp_path, "", "--most", "50")
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
def test_a_flush_that_is_left_out_is_found(shims: str, tmp_path: Path, code: str, what: str) -> None:
    found = lose_power(shims, tmp_path, code, "--commands", "evaluate")
    assert any(what in lost["what"] for lost in found["wrong"])
