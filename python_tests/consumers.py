# SPDX-License-Identifier: BSD-3-Clause
"""C++ projects that build on the installed package from outside of its tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import twostream_ext

needs_cmake = pytest.mark.skipif(shutil.which("c++") is None or shutil.which("cmake") is None, reason="no compiler")


def configure(source: Path, build: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Let CMake look for the package where it says that it is."""
    prefix = f"-DCMAKE_PREFIX_PATH={twostream_ext.cmake_prefix_path()}"
    command = ["cmake", "-S", str(source), "-B", str(build), prefix, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build_project(source: Path, build: Path, *options: str) -> None:
    """Configure and build; what went wrong is what the test shows."""
    done = configure(source, build, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(["cmake", "--build", str(build)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
