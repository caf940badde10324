# SPDX-License-Identifier: BSD-3-Clause
"""Scores of videos as rows of a table: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twostream_ext.errors import SettingsError
from twostream_ext.files import atomic_write, remove_leftovers_of
from twostream_ext.motion.fields import CameraMotion, Displacement
from twostream_ext.motion.score import MotionScore
from twostream_ext.optional_packages import import_optional

Row = dict[str, str | int | float | bool | None]
"""Of a video, by the names of the columns; None where something has no value."""

SCORE_FILES = (".csv", ".jsonl", ".parquet")

_DIGITS = 6  # of a number: more than flow is exact to
_KINDS: dict[str, type] = {
    **dict.fromkeys(("video", "error"), str),
    **dict.fromkeys(("frames", "width", "height", "cuts"), int),
    "still": bool,
}
"""Of the columns; that of all others is float."""


def score_columns() -> list[str]:
    """The columns of a table of scores: those of `score_row`, and "error", which says why a video has none."""
    nothing = Displacement(math.nan, math.nan, math.nan)
    camera = CameraMotion(*[math.nan] * len(CameraMotion._fields))
    empty = MotionScore(0, 0.0, 1, 1, nothing, nothing, camera, math.nan, still=False, cuts=0)
    return [*score_row("", empty), "error"]


def score_row(video: str, score: MotionScore) -> Row:
    """A video's name and its scores: lengths in pixels of the file a second, and relative to its diagonal."""
    row: Row = {
        "video": video,
        "frames": score.frames,
        "seconds": _rounded(score.seconds),
        "width": score.width,
        "height": score.height,
    }
    for name, lengths in (("", score.displacement), ("object_", score.objects)):
        row |= {f"{name}{each}": _rounded(value) for each, value in lengths._asdict().items()}
        row |= {f"{name}relative_{each}": _rounded(value / score.diagonal) for each, value in lengths._asdict().items()}
    row |= {f"camera_{name}": _rounded(value) for name, value in score.camera._asdict().items()}
    return row | {"moving": _rounded(score.moving), "still": score.still, "cuts": score.cuts}


def check_scores_file(out: str | os.PathLike[str]) -> None:
    """SettingsError unless scores can be written in the format that the name's ending tells."""
    ending = Path(out).suffix.lower()
    if ending not in SCORE_FILES:
        raise SettingsError(f"{out}: scores are written as {', '.join(SCORE_FILES)}, give it one of these endings")
    if ending == ".parquet":
        _load_pyarrow(out)


def write_scores(out: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Write rows to a .csv, .jsonl or .parquet, whole or not at all."""
    write = {".csv": _write_csv, ".jsonl": _write_json_lines, ".parquet": _write_parquet}[Path(out).suffix.lower()]
    remove_leftovers_of(out)
    with atomic_write(out) as temporary:
        write(temporary, rows)


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, score_columns(), restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: int(value) if isinstance(value, bool) else value for name, value in row.items()})


def _write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    pyarrow = _load_pyarrow(path)
    types = {str: pyarrow.string(), int: pyarrow.int64(), bool: pyarrow.bool_(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[_KINDS.get(name, float)]) for name in score_columns()])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), path)


def _load_pyarrow(out: str | os.PathLike[str]) -> Any:
    import_optional("pyarrow.parquet", f"{out}: Parquet", "parquet")
    return import_optional("pyarrow", f"{out}: Parquet", "parquet")
