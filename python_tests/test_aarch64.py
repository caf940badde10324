# SPDX-License-Identifier: BSD-3-Clause
"""The CPU operators on aarch64: cross-compiled without a warning, run under emulation, held against this machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FLAGS = (
    "-std=c++17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="no sources beside the tests"),
    pytest.mark.skipif(
        not (shutil.which(CROSS) and shutil.which(EMULATOR)),
        reason="no cross-compiler or no emulator: Debian's g++-aarch64-linux-gnu and qemu-user",
    ),
]


def build(compiler: str, out: Path, *options: str) -> Path:
    sources = [*sorted((ROOT / "csrc" / "cpu").glob("*.cpp")), ROOT / "python_tests" / "c_api_answers.cpp"]
    include = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}"]
    command = [compiler, *FLAGS, *options, *include, *sources, "-o", out, "-ldl"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def answers(*command: str | Path) -> list[tuple[str, np.ndarray]]:
    """What each operator gave, by its name, as 32-bit words."""
    environment = {**os.environ, "TWOSTREAM_ISA": "baseline"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, env=environment)
    found = []
    for line in done.stdout.splitlines():
        words = line.split()
        first = next(at for at, word in enumerate(words) if len(word) == 8 and set(word) <= set("0123456789abcdef"))
        found.append((" ".join(words[:first]), np.array([int(word, 16) for word in words[first:]], np.uint32)))
    return found


def test_aarch64_gives_the_same_bits(tmp_path: Path) -> None:
    """But for local_response_norm, whose powers are the C library's."""
    here = answers(build("c++", tmp_path / "here"))
    there = answers(EMULATOR, build(CROSS, tmp_path / "there", "-static"))
    assert [name for name, _ in here] == [name for name, _ in there]
    assert len(here) == 23
    assert not any("argument" in name for name, _ in here)  # what follows the name of an operator that refused
    for (name, expected), (_, found) in zip(here, there, strict=True):
        assert len(expected) >= 16, name
        if name.startswith("local_response_norm"):
            values = (each.view(np.float32) for each in (found, expected))
            np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(found, expected, err_msg=name)
