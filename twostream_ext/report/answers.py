# SPDX-License-Identifier: BSD-3-Clause
"""What the nets say of videos and of windows of them, a line each: CSV, JSON, or a table on a terminal."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from twostream_ext.engine import STREAMS, FinishedRun, Prediction, Window
from twostream_ext.errors import SettingsError
from twostream_ext.files import atomic_write, remove_leftovers_of

Row = dict[str, str | int | float]
"""An answer by the names of its columns; those that it lacks stay empty."""
WriteRow = Callable[[Row], None]

ANSWER_FILES = (".csv", ".json")

_SECONDS_WIDTH = 9
_TIMES = ("start", "end")
_MACHINES = ("svm", "svm_chosen")


def answer_columns(run: FinishedRun | Prediction) -> list[str]:
    """Of an answer: the class, its scores by what gave them, those first that chose it, and the classes of the SVMs."""
    has_weights = "weighted" in run.scores if isinstance(run, Prediction) else run.weights is not None
    fusions = ["weighted", "average"] if has_weights else ["average"]
    machines = ["svm"] if run.svm_chosen is None else ["svm", "svm_chosen"]
    return ["class", *fusions, *STREAMS, *machines]


def answer_row(prediction: Prediction) -> Row:
    """The class with the highest fused score, its scores to four digits, and the classes that the SVMs choose."""
    best = int(prediction.scores[prediction.fused].argmax())
    row: Row = {"class": prediction.best, "svm": prediction.classes[prediction.svm]}
    if prediction.svm_chosen is not None:
        row["svm_chosen"] = prediction.classes[prediction.svm_chosen]
    return row | {name: round(float(scores[best]), 4) for name, scores in prediction.scores.items()}


def window_row(window: Window) -> Row:
    """The answer of a window with where it begins and ends, in seconds to three digits."""
    return {"start": round(window.start, 3), "end": round(window.end, 3), **answer_row(window.prediction)}


class Spans:
    """Windows of the same class that follow each other become one row; no more than that row is kept.

    It lasts from the beginning of the first window to the end of the last, with their number as "windows" and the mean
    of each score. The classes of the SVMs, which may differ from window to window, are left out.
    """

    def __init__(self, write: WriteRow) -> None:
        """write: gets each span when it has ended."""
        self._write = write
        self._span: Row | None = None
        self._sums: dict[str, float] = {}
        self._windows = 0

    def add(self, row: Row) -> None:
        """Take the next row of `window_row`; others may stand beside what that gives ("video", say)."""
        scores = {name: value for name, value in row.items() if isinstance(value, float) and name not in _TIMES}
        if self._span is None or self._span["class"] != row["class"]:
            self.end()
            self._span = {name: value for name, value in row.items() if name not in scores and name not in _MACHINES}
            self._sums = dict.fromkeys(scores, 0.0)
        self._span["end"] = row["end"]
        self._windows += 1
        for name, score in scores.items():
            self._sums[name] += score

    def end(self) -> None:
        """Give the last span, after the last window."""
        if self._span is not None:
            means = {name: round(total / self._windows, 4) for name, total in self._sums.items()}
            self._write({**self._span, **means, "windows": self._windows})
        self._span, self._windows = None, 0


def span_columns(columns: Sequence[str]) -> list[str]:
    """Those of spans, of windows with these columns."""
    return [*(name for name in columns if name not in _MACHINES), "windows"]


def check_answers(out: str | os.PathLike[str]) -> None:
    """SettingsError unless the name ends in .csv or .json."""
    if Path(out).suffix.lower() not in ANSWER_FILES:
        raise SettingsError(f"{out}: answers are written as {' or '.join(ANSWER_FILES)}, give it one of these endings")


@contextmanager
def answers_file(out: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[WriteRow]:
    """Yield what writes a row to a .csv or .json; whole at the end, or not at all if the body raises.

    Rows go to the disk as they come: there may be more than the memory holds. A .json is a list of objects, without the
    columns that a row lacks. SettingsError for another ending; OSError if it cannot be written.
    """
    check_answers(out)
    remove_leftovers_of(out)
    with atomic_write(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = _csv_rows if Path(out).suffix.lower() == ".csv" else _json_rows
        with rows(file, columns) as write:
            yield write


@contextmanager
def _csv_rows(file: TextIO, columns: Sequence[str]) -> Iterator[WriteRow]:
    rows = csv.DictWriter(file, columns, restval="", lineterminator="\n")

    def write(row: Row) -> None:
        rows.writerow(row)
        file.flush()  # whoever looks sees what there is

    rows.writeheader()
    yield write


@contextmanager
def _json_rows(file: TextIO, columns: Sequence[str]) -> Iterator[WriteRow]:
    count = 0

    def write(row: Row) -> None:
        nonlocal count
        ordered = {name: row[name] for name in columns if name in row}
        file.write(f"{',' if count else '['}\n {json.dumps(ordered, ensure_ascii=False)}")
        file.flush()
        count += 1

    yield write
    file.write("\n]\n" if count else "[]\n")


def table_line(row: Row, columns: Sequence[str], classes: Sequence[str]) -> str:
    """A row as a line of a table whose columns stand under each other; of their own names, its head."""
    longest = max(map(len, classes))
    cells = []
    for name in columns:
        text = _shown(name, row.get(name, ""))
        if name in ("class", *_MACHINES):
            cells.append(f"{text:{max(longest, len(name))}}")
        elif name in ("video", "error"):
            cells.append(text)
        else:
            cells.append(f"{text:>{_SECONDS_WIDTH if name in _TIMES else max(5, len(name))}}")
    return "  ".join(cells).rstrip()


def _shown(name: str, value: str | int | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if name in _TIMES else f"{value:.3f}"
