# SPDX-License-Identifier: BSD-3-Clause
"""Which videos of another tool's tree are done: one small file for each, below `.done`, where denseflow has its own.

denseflow's are empty, and tell neither which step they are of nor how it was made. Ours hold that as JSON, for each
series of files of the video by its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twostream_ext.files import atomic_write

MARKERS = ".done"
"""The folder of a tree that holds them."""


def read_marker(path: Path) -> dict[str, Any] | None:
    """What is noted of a video by series; None if there is no marker, empty if it is not of ours.

    OSError if it cannot be read.
    """
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def note_done(path: Path, series: str, made_with: Mapping[str, Any]) -> None:
    """Note that a series of files is whole, beside what is noted of others. OSError if it cannot be written."""
    _write(path, {**(read_marker(path) or {}), series: dict(made_with)})


def forget_done(path: Path, series: str) -> None:
    """Note that a series is no longer whole, before its files change. A marker that is not of ours goes."""
    noted = read_marker(path)
    if noted is None:
        return
    noted.pop(series, None)
    if noted:
        _write(path, noted)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, noted: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(noted) + "\n", encoding="utf-8")
