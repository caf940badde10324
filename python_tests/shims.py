# SPDX-License-Identifier: BSD-3-Clause
"""Compiling what is loaded before libc, and running with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


def build_shim(folder: Path, name: str) -> Path:
    """The library of `<name>.c`, made in a folder; the test is skipped where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = folder / f"{name}.so"
    command = [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(HERE / f"{name}.c"), "-ldl"], check=True)
    return library


def run_with_shims(shims: Sequence[Path], program: str, folder: Path, *options: str, first: str = "") -> dict[str, Any]:
    """What a program beside this file, say faults.py, wrote to its --out; the code `first` is run before it."""
    out = folder / f"{program}.json"
    script = f"import sys, {program}\n{first}\nsys.exit({program}.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder), "--out", str(out), *options]
    paths = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    environment = {**os.environ, "LD_PRELOAD": ":".join(map(str, shims)), "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    assert done.returncode == bool(found["wrong"])
    return found
