# SPDX-License-Identifier: BSD-3-Clause
"""The page of the C API: it names all functions, its programs build and give what NumPy gives, versions are refused."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import reference
from test_docs import blocks, pytestmark, read  # noqa: F401  the mark: the pages may not be beside the tests

import twostream_ext
from twostream_ext import ops
from twostream_ext.cli import main

PAGE = "docs/c-api.md"
HEADERS = Path(twostream_ext.get_include()) / "twostream"
LENGTH, HEIGHT, WIDTH, SIDE = 3, 21, 34, 16

needs_cmake = pytest.mark.skipif(shutil.which("c++") is None or shutil.which("cmake") is None, reason="no compiler")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None or not ops.built_with_cuda(), reason="no nvcc, or no CUDA")


@pytest.fixture
def cmake_dir(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["cmake-dir"]) == 0
    return capsys.readouterr().out.strip()


@pytest.fixture
def codes(tmp_path: Path) -> npt.NDArray[np.uint8]:
    """A file of codes, as the programs read it."""
    made = np.random.default_rng(3).integers(0, 256, (LENGTH, HEIGHT, WIDTH, 2), dtype=np.uint8)
    made.tofile(tmp_path / "codes.raw")
    return made


def program(number: int, folder: Path) -> Path:
    """Write a program of the page and its CMakeLists.txt; give the path of its source."""
    text = read(PAGE)
    (name,) = re.findall(r"add_executable\(\w+ (\S+)\)", blocks(text, "cmake")[number])
    (folder / "CMakeLists.txt").write_text(blocks(text, "cmake")[number])
    (folder / name).write_text(blocks(text, "cpp")[number])
    return folder / name


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build(*command: str | Path) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def stacks_of(program: Path, folder: Path) -> npt.NDArray[np.float32]:
    numbers = [str(each) for each in (LENGTH, HEIGHT, WIDTH, SIDE)]
    build(program, folder / "codes.raw", *numbers, folder / "stacks.raw")
    return np.fromfile(folder / "stacks.raw", np.float32).reshape(10, 2 * LENGTH, SIDE, SIDE)


def expected_stacks(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    down, right = HEIGHT - SIDE, WIDTH - SIDE
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    windows = [(*place, flip) for flip in (0, 1) for place in places]
    fields = -20 + codes.astype(np.float64) * 40 / 255
    found: npt.NDArray[np.float64] = reference.flow_stack([fields], [windows], (SIDE, SIDE), subtract_mean=True)[0]
    return found


@needs_cmake
def test_the_program_gives_what_numpy_gives(tmp_path: Path, cmake_dir: str, codes: npt.NDArray[np.uint8]) -> None:
    source = program(0, tmp_path)
    build("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dtwostream_ext_DIR={cmake_dir}")
    build("cmake", "--build", tmp_path / "build")
    found = stacks_of(tmp_path / "build" / source.stem, tmp_path)
    np.testing.assert_allclose(found, expected_stacks(codes), atol=2e-5)
    one_too_high = ["3", "21", "34", "22"]
    too_large = run(tmp_path / "build" / source.stem, tmp_path / "codes.raw", *one_too_high, tmp_path / "none.raw")
    assert (too_large.returncode, too_large.stderr) == (1, "flow_stack: invalid argument\n")


@needs_nvcc
def test_the_program_for_a_gpu_compiles(tmp_path: Path, codes: npt.NDArray[np.uint8]) -> None:
    """And gives the same where there is a GPU; else it says that there is none."""
    source, library = program(1, tmp_path), Path(twostream_ext.get_library())
    paths = [f"-I{twostream_ext.get_include()}", library, "-Xlinker", f"-rpath={library.parent}"]
    build("nvcc", "-std=c++17", "-Werror=all-warnings", source, *paths, "-o", tmp_path / source.stem)
    if ops.build_info().cuda_devices:
        np.testing.assert_allclose(stacks_of(tmp_path / source.stem, tmp_path), expected_stacks(codes), atol=2e-5)
    else:
        done = run(tmp_path / source.stem, tmp_path / "codes.raw", "3", "21", "34", "16", tmp_path / "none.raw")
        assert done.returncode == 1
        assert done.stderr.startswith("cudaSetDevice: cudaError")


@needs_cmake
@pytest.mark.parametrize("wanted", ["99", "0.2", "0.1.999", "0.0"])
def test_another_version_is_refused_with_both_versions_named(tmp_path: Path, cmake_dir: str, wanted: str) -> None:
    project = "cmake_minimum_required(VERSION 3.20)\nproject(wanting NONE)\n"
    (tmp_path / "CMakeLists.txt").write_text(f"{project}find_package(twostream_ext {wanted} REQUIRED)\n")
    done = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dtwostream_ext_DIR={cmake_dir}")
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    there = f"{cmake_dir}/twostream_ext-config.cmake, version: {twostream_ext.__version__}"
    expected = [f'compatible with requested version "{wanted}"', f"considered but not accepted: {there}"]
    assert [each for each in expected if each not in said] == []
    (shown,) = (" ".join(block.split()) for block in blocks(read(PAGE), "text") if "requested version" in block)
    assert shown.replace('"99"', f'"{wanted}"').replace("...", cmake_dir) in said


@needs_cmake
def test_the_version_that_is_there_is_taken(tmp_path: Path, cmake_dir: str) -> None:
    (minor,) = re.findall(r"`find_package\(twostream_ext ([\d.]+)\)`", read(PAGE))
    project = "cmake_minimum_required(VERSION 3.20)\nproject(wanting NONE)\n"
    (tmp_path / "CMakeLists.txt").write_text(f"{project}find_package(twostream_ext {minor} REQUIRED)\n")
    build("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dtwostream_ext_DIR={cmake_dir}")


def test_the_project_for_a_gpu_also_finds_the_runtime() -> None:
    plain, with_cuda = (block.splitlines() for block in blocks(read(PAGE), "cmake"))
    renamed = [line.replace("stack_cuda", "stack").replace(" CUDA::cudart", "") for line in with_cuda]
    assert [line for line in renamed if line not in plain] == ["find_package(CUDAToolkit REQUIRED)"]
    assert with_cuda[-1].endswith(" CUDA::cudart)")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_headers_are_plain_c(tmp_path: Path) -> None:
    (tmp_path / "all.c").write_text("#include <twostream/twostream.h>\n")
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    build("cc", *flags, f"-I{twostream_ext.get_include()}", tmp_path / "all.c")


def test_every_function_is_named() -> None:
    headers = "".join(path.read_text() for path in HEADERS.glob("*.h"))
    functions = re.findall(r"TWOSTREAM_API [^;]*?\b(twostream_\w+)\(", headers)
    declared = {re.sub("_(cpu|cuda)$", "", name) for name in functions}
    rows = "\n".join(re.findall(r"^\| `twostream_.*$", read(PAGE), re.MULTILINE))
    named = set(re.findall(r"`(twostream_\w+)`", rows))
    assert named == declared


def test_every_status_is_told() -> None:
    listed = (HEADERS / "common.h").read_text().partition("enum twostream_status")[2].partition("}")[0]
    values = dict(re.findall(r"(TWOSTREAM_\w+) = (-?\d+)", listed))
    told = {name: value for value, name in re.findall(r"(-?\d+) \(`(TWOSTREAM_\w+)`", read(PAGE))}
    assert told == values
