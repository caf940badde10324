# SPDX-License-Identifier: BSD-3-Clause
"""Two-stream convolutional networks for action recognition in videos (Simonyan & Zisserman, NIPS 2014).

The rooms are imported when they are first used, so that a project that wants the kernels alone pays for nothing else:
`ops` (kernels), `media` (video files and stores), `flow`, `extraction`, `motion` (scores of videos), `data`, `models`,
`engine`, `report`.
"""

from __future__ import annotations

import importlib
from typing import Any

try:
    from twostream_ext import _C
except ImportError as error:
    raise ImportError(
        f"twostream_ext: its compiled module cannot be imported from {__path__[0]} ({error}). In a source checkout, "
        "run Python from another directory, or install it in place: pip install -e ."
    ) from error
from twostream_ext.locations import cmake_prefix_path, get_include, get_library

__version__: str = _C.version()

_ROOMS = ("data", "engine", "extraction", "flow", "media", "models", "motion", "ops", "report")
_STEPS = {"extract": "extraction"}
"""Functions that have a short name here, with their rooms."""

__all__ = [
    "__version__",
    "cmake_prefix_path",
    "data",
    "engine",
    "extract",
    "extraction",
    "flow",
    "get_include",
    "get_library",
    "media",
    "models",
    "motion",
    "ops",
    "report",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _STEPS:
        return getattr(importlib.import_module(f"{__name__}.{_STEPS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_STEPS})
