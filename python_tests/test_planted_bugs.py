# SPDX-License-Identifier: BSD-3-Clause
"""The tests of the kernels notice faults: each is planted in a copy of the sources, where the tests must then fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import twostream_ext

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("flow_stack", "crop_frames", "mean_flow", "quantize_flow", "memory_bounds")


class Bug(NamedTuple):
    """`text` of `file` becomes `replacement`; `races`: the race check finds it (it may change no result)."""

    file: str
    text: str
    replacement: str
    backend: str = "cuda_on_host"
    tests: tuple[str, ...] = TESTS
    races: bool = False


WINDOW, FIELDS, SLOTS = "core/window.h", "cuda/fields.cuh", "cuda/tvl1_slots.cuh"
COLUMN = "return window.left + (window.flip ? width - 1 - column : column);"
COLUMN_PAST_THE_ROW = "return window.left + (window.flip ? width - column : column);"
TOP = "{clamp(numbers[0], 0, sample.height - height),"
TOP_PAST_THE_FIELD = "{clamp(numbers[0], 0, sample.height - height + 1),"
MERGE = "merge(shared[threadIdx.x], shared[threadIdx.x + half]);\n    }\n    __syncthreads();"
BUGS = {
    "the mirrored column is one too far, CUDA": Bug(WINDOW, COLUMN, COLUMN_PAST_THE_ROW),
    "the mirrored column is one too far, CPU": Bug(WINDOW, COLUMN, COLUMN_PAST_THE_ROW, "cpu"),
    "a window may end a row below its field, CUDA": Bug(WINDOW, TOP, TOP_PAST_THE_FIELD),
    "no barrier after a step of the reduction": Bug(
        FIELDS, MERGE, MERGE.removesuffix("__syncthreads();"), tests=("mean_flow",)
    ),
    "no barrier before the reduction": Bug(
        FIELDS, "= mine;\n  __syncthreads();\n  for (unsigned", "= mine;\n  for (unsigned", tests=("mean_flow",)
    ),
    "the reduction adds a neighbour's share": Bug(
        FIELDS, "shared[threadIdx.x + half]);", "shared[threadIdx.x + half - 1]);"
    ),
    "the reduction reads past shared memory": Bug(
        FIELDS, "shared[threadIdx.x + half]);", "shared[threadIdx.x + half + 1]);"
    ),
    "no barrier before shared memory is used again": Bug(
        FIELDS, "__syncthreads();  // the next", "// the next", tests=("mean_flow",), races=True
    ),
    "every block of a pair writes its record": Bug(
        SLOTS, "return blockIdx.x == 0 && blockIdx.y == 0 && ", "return ", tests=("tvl1_flow_cuda",), races=True
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the sources, in which what one bug does not touch stays compiled for the next."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("csrc", "twostream_ext", "python_tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("CMakeLists.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@contextlib.contextmanager
def planted(bug: Bug, copy: Path) -> Iterator[None]:
    path = copy / "csrc" / bug.file
    text = path.read_text()
    assert text.count(bug.text) == 1, f"{bug.file} no longer holds, once: {bug.text}"
    path.write_text(text.replace(bug.text, bug.replacement))
    yield
    path.write_text(text)


def build(copy: Path) -> None:
    """Put `_C` and its library into the copy's package."""
    import pybind11

    folder = copy / "build" / "package"
    configure = [
        *("cmake", "-S", str(copy), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug"),
        *("-DTWOSTREAM_CUDA=OFF", f"-DPython_EXECUTABLE={sys.executable}"),
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    install = ["cmake", "--install", str(folder), "--prefix", str(copy)]
    for command in (configure, ["cmake", "--build", str(folder)], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.unsanitized
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(copy, name):
    bug = BUGS[name]
    with planted(bug, copy):
        if bug.backend == "cpu":
            build(copy)
        # Otherwise the package under test serves as it is; the copy's conftest compiles the copy's CUDA kernels.
        package = copy if bug.backend == "cpu" else Path(twostream_ext.__file__).parent.parent
        tests = [str(copy / "python_tests" / f"test_{each}.py") for each in bug.tests]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-k",
            "[cpu" if bug.backend == "cpu" else "not [cpu",
            "-p",
            "no:cacheprovider",
            *tests,
        ]
        environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
        environment["TWOSTREAM_RACE_CHECK"] = str(int(bug.races))
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    words = done.stdout + done.stderr
    assert done.returncode != 0, f"not found: {name}\n{words}"
    found = [line for line in words.splitlines() if line.startswith(("FAILED", "Fatal Python error"))]
    assert found, words
    assert ("race in " in words) == bug.races, words
    print(f"{name}: {found[0]}")
