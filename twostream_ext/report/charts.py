# SPDX-License-Identifier: BSD-3-Clause
"""Where the lines and letters of a report's charts lie; `templates/*.svg` draw them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from twostream_ext.engine import TrainingCurves
from twostream_ext.report.result import percent

_POINTS = 160  # of a line, at most: means of as many stretches of the training
_LETTER = 6.3  # pixels, about the width of a letter at the size of labels
_LONGEST = 30  # letters of a label; what is longer is cut, and whole in the table
_CELL = 22  # pixels, of a confusion matrix with numbers in its cells
_SMALL_CELL = 12  # pixels, of one of many classes
NUMBERED_CLASSES = 40
"""Of so many classes, cells of the confusion matrix have room for numbers."""


class Label(NamedTuple):
    """A name beside a row or a column."""

    text: str  # what is drawn: the name, or its beginning
    name: str
    place: float  # of its middle, in pixels


class Tick(NamedTuple):
    text: str
    place: float


class Line(NamedTuple):
    name: str
    points: str  # as SVG has them


class Chart(NamedTuple):
    """Lines over iterations."""

    file: str
    title: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    left: float
    right: float
    top: float
    bottom: float
    width: float
    height: float


def training_charts(curves: Mapping[str, TrainingCurves], batch_sizes: Mapping[str, int]) -> list[Chart]:
    """Loss, learning rate and samples a second of the nets by name; without the last for nets of unknown batch size."""
    binned = {name: _means(each) for name, each in curves.items() if len(each.iteration)}
    if not binned:
        return []
    loss = {name: (each.iteration, each.loss) for name, each in binned.items()}
    rate = {name: (each.iteration, np.log10(np.maximum(each.learning_rate, 1e-12))) for name, each in binned.items()}
    speed = {
        name: (each.iteration, batch_sizes[name] / np.maximum(each.seconds, 1e-9))
        for name, each in binned.items()
        if name in batch_sizes
    }
    charts = [_chart("loss", "Loss", loss), _chart("learning_rate", "Learning rate", rate, decades=True)]
    return [*charts, _chart("samples_per_second", "Samples a second", speed)] if speed else charts


def _means(curves: TrainingCurves) -> TrainingCurves:
    """Of each of `_POINTS` stretches of the training; of the learning rate the first, as it changes in steps."""
    stretches = min(_POINTS, len(curves.iteration))
    starts = np.linspace(0, len(curves.iteration), stretches, endpoint=False).astype(int)
    sizes = np.diff([*starts, len(curves.iteration)])
    means = TrainingCurves(*(np.add.reduceat(each, starts) / sizes for each in curves))
    return means._replace(learning_rate=curves.learning_rate[starts])


def _chart(
    file: str,
    title: str,
    values: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    *,
    decades: bool = False,
) -> Chart:
    """Lines of (x, y). decades: y are logarithms to base 10, and ticks are written as what they are of."""
    left, right, top, bottom, width, height = 46.0, 350.0, 34.0, 196.0, 360.0, 224.0
    finite = {name: (x[np.isfinite(y)], y[np.isfinite(y)]) for name, (x, y) in values.items()}
    last = max(float(x.max(initial=1)) for x, _ in finite.values())
    ys = np.concatenate([y for _, y in finite.values()])
    if decades:
        powers = range(math.floor(ys.min(initial=0)), math.ceil(ys.max(initial=-12)) + 1)
        marks = [float(power) for power in powers] if len(powers) > 1 else [float(powers[0]), powers[0] + 1.0]
    else:
        marks = _round_numbers(float(ys.max(initial=0)) or 1.0)
    low, span = marks[0], marks[-1] - marks[0]

    def across(x: float) -> float:
        return left + (right - left) * x / last

    def up(y: float) -> float:
        return bottom - (bottom - top) * (y - low) / span

    lines = [
        Line(name, " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)))
        for name, (x, y) in finite.items()
    ]
    x_ticks = [Tick(_thousands(mark), across(mark)) for mark in _round_numbers(last) if mark <= last]
    y_ticks = [Tick(f"{10.0**mark:g}" if decades else _thousands(mark), up(mark)) for mark in marks]
    return Chart(file, title, lines, x_ticks, y_ticks, left, right, top, bottom, width, height)


def _round_numbers(largest: float) -> list[float]:
    """0 and a few more round numbers, the last of which is not below `largest`."""
    rough = largest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * count for count in range(math.ceil(largest / step * 0.999) + 1)]


def _thousands(number: float) -> str:
    return f"{number / 1000:g}k" if number >= 10_000 else f"{number:g}"


class RowMarks(NamedTuple):
    """A row of a table of the paper: a line of text, and below it marks on a scale."""

    text: str
    name: str
    y: float  # of the marks
    low: float  # where the interval begins, from the left, in pixels
    high: float
    here: float
    paper: float


def experiment_layout(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where our numbers lie beside the paper's, for `experiment.svg`; rows: as in `summary.json` of `reproduce`."""
    left, width, top, step = 14.0, 420.0, 34.0, 42.0
    length = width - 2 * left

    def across(share: float) -> float:
        return left + length * min(1.0, max(0.0, share))

    marks = []
    for number, row in enumerate(rows):
        text, (low, high) = row["setting"]["text"], map(across, row["interval"])
        place = top + step * number + 28
        marks.append(RowMarks(_cut(text, 60), text, place, low, high, across(row["top1"]), across(row["paper"])))
    bottom = top + step * len(rows) + 4
    ticks = [Tick(f"{share}", across(share / 100)) for share in (0, 25, 50, 75, 100)]
    return {"rows": marks, "ticks": ticks, "top": top, "bottom": bottom, "width": width, "height": bottom + 24}


class Cell(NamedTuple):
    """A number in a confusion matrix."""

    x: float
    y: float
    percent: int
    strong: bool  # on a dark ground


def confusion_layout(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Where all of a confusion matrix with names beside it lies, for `confusion.svg`."""
    numbered = len(classes) <= NUMBERED_CLASSES
    cell = _CELL if numbered else _SMALL_CELL
    margin = _margin(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    filled = zip(*(each.tolist() for each in np.nonzero(shares)), strict=True)
    cells = [
        Cell(
            margin + (column + 0.5) * cell,
            margin + (row + 0.5) * cell,
            percent(shares[row, column]),
            shares[row, column] > 0.5,
        )
        for row, column in (filled if numbered else ())
    ]
    side = cell * len(classes)
    labels = _labels(classes, margin + cell / 2, cell)
    return {"margin": margin, "side": side, "labels": labels, "cells": cells, "size": margin + side + 8}


def recall_layout(recall: Mapping[str, npt.NDArray[np.float64]], classes: Sequence[str]) -> dict[str, Any]:
    """Where the bars of each class's recall lie, for `recall.svg`; recall: [classes] by method, NaN without videos."""
    margin, top, length, bar = _margin(classes), 30.0, 420.0, 5.0
    row = bar * len(recall) + 9
    bars = [
        (name, top + place * row + number * bar, length * value)
        for number, (name, values) in enumerate(recall.items())
        for place, value in enumerate(values.tolist())
        if value == value  # not NaN
    ]
    return {
        "margin": margin,
        "length": length,
        "bar": bar - 1,
        "bars": bars,
        "names": list(recall),
        "labels": _labels(classes, top + bar * len(recall) / 2, row),
        "top": top - 6,
        "bottom": top + row * len(classes),
        "width": margin + length + 24,
        "height": top + row * len(classes) + 24,
    }


def _labels(classes: Sequence[str], first: float, step: float) -> list[Label]:
    return [Label(_cut(name), name, first + step * place) for place, name in enumerate(classes)]


def _margin(classes: Sequence[str]) -> float:
    """Room for the labels."""
    return _LETTER * max(_letters(_cut(name)) for name in classes) + 14


def _letters(text: str) -> int:
    """How many letters wide a text is: those of East Asia are two, and what is drawn over another is none."""
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) > 0 for each in text)


def _cut(name: str, longest: int = _LONGEST) -> str:
    kept = name
    while _letters(kept) > longest:
        kept = kept[: min(len(kept) - 1, longest)]
    return name if kept == name else f"{kept}…"
