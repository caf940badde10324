# SPDX-License-Identifier: BSD-3-Clause
"""What is installed: version, libraries, headers, and a C++ project that builds on them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from consumers import build_project, needs_cmake

import twostream_ext
from twostream_ext import _C

ALLOWED = re.compile(r"(libstdc\+\+|libm|libgcc_s|libc|ld-linux-x86-64|ld-linux-aarch64|libtwostream)\.so")

CONSUMER_CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(consumer LANGUAGES CXX)
find_package(twostream_ext REQUIRED)
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE twostream_ext::twostream)
"""

CONSUMER_CODE = """
#include <twostream/twostream.h>
#include <cstdio>

int main() {
  const float field[2 * 3 * 2] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};  // 2 x 3 pixels of (x, y)
  const twostream_sample sample{field, 2, 3, 12, 6, 2, 1};
  const int32_t window[3] = {0, 1, 1};  // columns 1 and 2, mirrored
  float stack[2 * 2 * 2];
  const twostream_flow_stack_args args{{&sample, 1, 1, TWOSTREAM_FLOAT32}, window, 1, nullptr, nullptr, nullptr,
                                       {stack, TWOSTREAM_FLOAT32, 2, 2, 8, 8, 4, 2, 1}};
  const int status = twostream_flow_stack_cpu(&args);
  std::printf("%d %s:", status, twostream_version());
  for (float value : stack) std::printf(" %g", value);
  std::puts("");
}
"""


def test_version_is_the_header_s():
    header = (Path(twostream_ext.get_include()) / "twostream" / "version.h").read_text()
    assert f'"{twostream_ext.__version__}"' in header
    assert _C.version() == twostream_ext.__version__


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
def test_libraries_need_only_the_system():
    for path in (twostream_ext.get_library(), _C.__file__):
        shown = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
        needed = re.findall(r"NEEDED.*\[(.*)\]", shown)
        assert needed
        assert all(ALLOWED.match(name) for name in needed), needed


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
def test_the_library_exports_the_c_api_and_nothing_else():
    command = ["nm", "-D", "--defined-only", twostream_ext.get_library()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    exported = {line.split()[-1] for line in shown.splitlines()}
    headers = "".join(path.read_text() for path in Path(twostream_ext.get_include(), "twostream").glob("*.h"))
    declared = set(re.findall(r"TWOSTREAM_API [^;]*?\b(twostream_\w+)\(", headers))
    assert exported == declared


@needs_cmake
def test_a_cxx_project_builds_on_the_package(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER_CMAKE)
    (tmp_path / "main.cpp").write_text(CONSUMER_CODE)
    build_project(tmp_path, tmp_path / "build")
    shown = subprocess.run([tmp_path / "build" / "consumer"], capture_output=True, text=True, check=True).stdout
    assert shown == f"0 {twostream_ext.__version__}: -4 -2 -10 -8 5 3 11 9\n"


def test_rooms_are_imported_when_used():
    assert twostream_ext.models.CNNM2048 is not None
    assert "flow" in dir(twostream_ext)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        twostream_ext.nonsense  # noqa: B018


def test_the_stub_names_what_the_module_holds():
    stub = Path(twostream_ext.__file__).with_name("_C.pyi").read_text()
    described = set(re.findall(r"^def (\w+)\(", stub, flags=re.MULTILINE))
    assert described == {name for name in dir(_C) if not name.startswith("_")}
