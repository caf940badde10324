# SPDX-License-Identifier: BSD-3-Clause
"""`twostream cmake-dir`: where CMake finds the package, for `-Dtwostream_ext_DIR=`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import twostream_ext


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "cmake-dir",
        help="print the directory of the CMake package",
        description="Print the directory to give to CMake as -Dtwostream_ext_DIR=.",
    )
    return parser


def execute(_: argparse.Namespace) -> None:
    print(Path(twostream_ext.cmake_prefix_path()) / "share" / "cmake" / "twostream_ext")
