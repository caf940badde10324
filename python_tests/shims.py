# SPDX-License-Identifier: BSD-3-Clause
"""Compiling what is loaded before libc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

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
