# SPDX-License-Identifier: BSD-3-Clause
"""Figures of a run: confusion matrix and per-class recall (paper, figures 5 and 6), and examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from twostream_ext.flow import flow_to_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_CLASSES = 3  # of each net, beside an example
_STREAM_COLOURS = {"spatial": "#4c78a8", "temporal": "#f58518", "average": "#54a24b"}


class Example(NamedTuple):
    """One test video: a frame, the flow from it, and what the nets say."""

    frame: npt.NDArray[np.uint8]  # RGB [H, W, 3]
    flow: npt.NDArray[np.float32]  # pixels [H, W, 2]
    label: str
    scores: dict[str, npt.NDArray[np.float32]]  # by stream, and "average": softmax [classes]


def confusion_matrix(
    labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    """Count predictions: row = true class, column = predicted class, each row divided by its sum."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, predictions), 1)
    shares: npt.NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _figure(**options: Any) -> Figure:
    """Matplotlib is imported here: it takes most of a second, and tables and videos do without it."""
    from matplotlib.figure import Figure

    return Figure(**options)


def _plain(names: Iterable[str]) -> list[str]:
    """Names for Matplotlib, which takes what stands between two dollars for a formula."""
    return [name.replace("$", r"\$") for name in names]


def draw_confusion(matrix: npt.NDArray[np.float64], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix; with few classes, each cell shows its percentage."""
    side = 2.5 + 0.32 * len(classes)
    figure = _figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), _plain(classes), rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), _plain(classes), fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")
    if len(classes) <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            value = matrix[row, column]
            colour = "white" if value > 0.5 else "black"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title("Two streams, average: predictions of each class, %", fontsize=10)
    return figure


def draw_recall(recall: dict[str, npt.NDArray[np.float64]], classes: Sequence[str]) -> Figure:
    """Draw the recall of each class, a bar for each of the streams and their average."""
    figure = _figure(figsize=(7, 1.5 + 0.3 * len(classes)), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(classes))
    for offset, (name, values) in zip((-0.26, 0.0, 0.26), recall.items(), strict=True):
        axes.barh(positions + offset, values, height=0.24, label=name, color=_STREAM_COLOURS[name])
    axes.set_yticks(positions, _plain(classes), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("recall")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return figure


def draw_examples(examples: Sequence[Example], classes: Sequence[str]) -> Figure:
    """Draw a row for each video: frame, flow, and the highest scores of each net and of both."""
    figure = _figure(figsize=(11, 1.9 * len(examples)), layout="constrained")
    grid = figure.subplots(len(examples), 5, squeeze=False, width_ratios=[1.35, 1.35, 1, 1, 1])
    for row, example in zip(grid, examples, strict=True):
        row[0].imshow(example.frame)
        row[0].set_title(_plain([example.label])[0], fontsize=9)
        row[1].imshow(flow_to_colour(example.flow))
        row[1].set_title("optical flow", fontsize=9)
        for axes in row[:2]:
            axes.set_axis_off()
        for axes, (name, scores) in zip(row[2:], example.scores.items(), strict=True):
            _draw_scores(axes, name, scores, example.label, classes)
    return figure


def _draw_scores(
    axes: Axes,
    name: str,
    scores: npt.NDArray[np.float32],
    label: str,
    classes: Sequence[str],
) -> None:
    best = np.argsort(-scores, kind="stable")[:_SHOWN_CLASSES]
    right = [classes[index] == label for index in best]
    colours = [_STREAM_COLOURS[name] if hit else "#d0d0d0" for hit in right]
    axes.barh(range(len(best)), scores[best], color=colours)
    for place, (index, hit) in enumerate(zip(best, right, strict=True)):
        weight = "bold" if hit else "normal"
        axes.text(0.02, place, _plain([classes[index]])[0], va="center", fontsize=8, weight=weight)
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=7)
    axes.invert_yaxis()
    axes.set_title(name, fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
