# SPDX-License-Identifier: BSD-3-Clause
"""The settings that the content of a directory is made with, noted in a file there: whoever comes first decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twostream_ext.errors import SettingsError, TwoStreamError
from twostream_ext.files import create_file
from twostream_ext.noted import check_noted


def claim(
    path: Path,
    settings: Mapping[str, Any],
    damaged: type[TwoStreamError],
    *,
    unnoted: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Note settings in a file of a directory, made where it is missing, or check that they are those noted there.

    Of several processes that come at once with different settings, one has its way. unnoted: settings that earlier
    versions did not note, with the values they had then.

    SettingsError, naming the directory and the setting, if they differ; `damaged`, naming the file, if it cannot be
    read; OSError if it cannot be written.
    """
    text = json.dumps(settings, indent=1) + "\n"
    if not create_file(path, text):
        compare_settings(path.parent, {**unnoted, **read_settings(path, damaged)}, json.loads(text))


def read_settings(path: Path, damaged: type[TwoStreamError]) -> dict[str, Any]:
    """What was noted in a file; `damaged`, naming the file, if it cannot be read."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(f"{path}: cannot be read: {error}") from error
    return check_noted(path, noted, {}, damaged)


def compare_settings(place: Path, noted: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """SettingsError, naming the place and the setting, if something wanted is noted otherwise."""
    for name, value in wanted.items():
        if noted.get(name) != value:
            raise SettingsError(
                f"{place}: was made with {name} {_shown(noted.get(name))}, not {_shown(value)}; "
                "use another directory or the same setting"
            )


def _shown(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
