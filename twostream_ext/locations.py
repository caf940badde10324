# SPDX-License-Identifier: BSD-3-Clause
"""Where the C API lies, for projects in C++ that build on it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def _find(relative: str) -> str:
    # In an editable install, compiled files lie in another folder than the Python files: the spec names both.
    spec = find_spec(__package__)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        candidate = Path(folder) / relative
        if candidate.exists():
            return str(candidate)
    raise FileNotFoundError(f"twostream_ext: {relative} is not part of this installation")


def get_include() -> str:
    """Return the folder to put on the compiler's include path: `#include <twostream/twostream.h>`."""
    return _find("include")


def get_library() -> str:
    """Return the path of the shared library with the C API."""
    return _find("lib/libtwostream.so")


def cmake_prefix_path() -> str:
    """Return what `CMAKE_PREFIX_PATH` needs for `find_package(twostream_ext)`."""
    return str(Path(_find("share/cmake/twostream_ext")).parent.parent.parent)
