# SPDX-License-Identifier: BSD-3-Clause
"""What a command leaves in its directory for whoever comes after it: the settings, and the result as plain values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from twostream_ext.errors import CheckpointError
from twostream_ext.files import atomic_write, check_directory
from twostream_ext.noted import check_noted

RUN_FILE = "run.json"
SUMMARY_FILE = "summary.json"

# What a summary must hold, and so must its parts.
_RUN = {"top1": dict[str, float], "videos": dict[str, int], "classes": list[str], "recipe": dict[str, Any]}
_MEASURES = {"top1": float, "interval": list[float], "mean_class": float, "mean_class_interval": list[float]}
_SPLITS = {"splits": dict[str, dict[str, Any]], "classes": list[str], "recipe": dict[str, Any], "notes": list[str]}
_TABLE = {
    "table": str,
    "rows": list[dict[str, Any]],
    "not_run": list[dict[str, Any]],
    "splits": int,
    "recipe": dict[str, Any],
}
_ROW = {
    "setting": dict[str, Any],
    "top1": float,
    "interval": list[float],
    "mean_class": float,
    "seeds": int,
    "paper": float,
}
_NOT_RUN = {"setting": dict[str, Any], "reason": str, "paper": float}


def write_summary(out: str | os.PathLike[str], summary: Mapping[str, Any]) -> None:
    """Write a result to `summary.json`, whole or not at all."""
    with atomic_write(Path(out) / SUMMARY_FILE) as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def read_run(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a run; CheckpointError if `out` holds none."""
    return _read_json(Path(out), RUN_FILE, "no run")


def read_summary(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the result of a finished run; CheckpointError if `out` holds none, or a summary of something else."""
    return check_noted(Path(out) / SUMMARY_FILE, _read(out), _RUN, CheckpointError)


def read_any_summary(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the result of a run, of one on several splits (`is_of_splits`) or of `reproduce` (`is_of_table`).

    CheckpointError if `out` holds none of them.
    """
    path, summary = Path(out) / SUMMARY_FILE, _read(out)
    if is_of_table(summary):
        _check_table(path, summary)
    elif is_of_splits(summary):
        _check_splits(path, summary)
    else:
        check_noted(path, summary, _RUN, CheckpointError)
    return summary


def is_of_table(summary: Mapping[str, Any]) -> bool:
    """Whether a summary is that of `reproduce`."""
    return "table" in summary


def is_of_splits(summary: Mapping[str, Any]) -> bool:
    """Whether a summary is that of a run on several splits."""
    return "splits" in summary and not is_of_table(summary)


def _check_splits(path: Path, summary: dict[str, Any]) -> None:
    _check(path, summary, {**_SPLITS, "top1": dict[str, Any]})
    _check_measures(path, summary, summary["top1"])
    for number, split in summary["splits"].items():
        place = f"{path}, split {number}"
        _check(place, split, {"videos": dict[str, Any]})
        _check(f"{place}, videos", split["videos"], {"train": int, "test": int})
        _check_measures(place, split, summary["top1"])


def _check_measures(place: object, given: dict[str, Any], methods: Iterable[str]) -> None:
    """Whether every method has every measure."""
    for measure, kind in _MEASURES.items():
        _check(place, given, {measure: dict[str, Any]})
        _check(f"{place}, {measure}", given[measure], dict.fromkeys(methods, kind))
        if kind is not float:
            for name in methods:
                _check_interval(f"{place}, {measure}", given[measure][name])


def _check_table(path: Path, summary: dict[str, Any]) -> None:
    _check(path, summary, _TABLE)
    for part, kinds in (("rows", _ROW), ("not_run", _NOT_RUN)):
        for number, row in enumerate(summary[part], 1):
            place = f"{path}, {part}, number {number}"
            _check(place, row, kinds)
            _check(place, row["setting"], {"text": str})
            if "interval" in kinds:
                _check_interval(place, row["interval"])


def _check_interval(place: str, ends: list[float]) -> None:
    if len(ends) != 2:
        raise CheckpointError(f"{place}: an interval is {ends!r:.80}, expected two numbers")


def _check(place: object, noted: dict[str, Any], kinds: Mapping[str, Any]) -> None:
    check_noted(place, noted, kinds, CheckpointError)


def _read(out: str | os.PathLike[str]) -> dict[str, Any]:
    return _read_json(Path(out), SUMMARY_FILE, "no finished run")


def _read_json(root: Path, name: str, lack: str) -> dict[str, Any]:
    path = root / name
    check_directory(root, CheckpointError)
    try:
        return check_noted(path, json.loads(path.read_text(encoding="utf-8")), {}, CheckpointError)
    except FileNotFoundError:
        raise CheckpointError(f"{root}: holds {lack} (there is no {name} in it)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
