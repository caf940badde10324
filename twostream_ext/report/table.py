# SPDX-License-Identifier: BSD-3-Clause
"""Tables of accuracies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from twostream_ext.engine import is_of_splits, is_of_table
from twostream_ext.models import FUSIONS, Accuracy, wilson_interval
from twostream_ext.report.experiment import format_experiment

ROWS = {
    "spatial": "spatial stream",
    "temporal": "temporal stream",
    "average": "two streams, average",
    "svm": "two streams, SVM",
    "weighted": "two streams, weighted",
    "svm_chosen": "two streams, SVM, C chosen",
}


def format_summary(summary: Mapping[str, Any]) -> str:
    """Format any `summary.json`: of a run, of one on several splits, or of a table of the paper."""
    if is_of_table(summary):
        return format_experiment(summary)
    return format_splits(summary) if is_of_splits(summary) else format_table(summary)


def format_table(summary: Mapping[str, Any]) -> str:
    """Format the accuracies of `summary.json` as the paper's table 4 does: one row a method, in percent."""
    videos = summary["videos"]
    rows = {name: accuracy_in(summary, name) for name in ROWS if name in summary["top1"]}
    lines = [
        f"{len(summary['classes'])} classes, {videos['train']} training and {videos['test']} test videos",
        format_accuracies({ROWS[name]: row for name, row in rows.items()}),
        *useless_fusions(rows, ROWS),
        *_choices(summary),
    ]
    return "\n".join(lines)


def format_splits(summary: Mapping[str, Any]) -> str:
    """Format the accuracies of a run on several splits: one row a method, each split and their mean, in percent."""
    splits, means = summary["splits"], mean_accuracies(summary)
    words = {name: ROWS.get(name, name) for name in means}
    width = max(map(len, words.values()))
    lines = [f"{len(summary['classes'])} classes, {len(splits)} splits"]
    for measure, title, ends in (("top1", "top-1", "interval"), ("mean_class", "mean class", "mean_class_interval")):
        heads = [f"{f'split {number}':>8}" for number in splits]
        lines.append("  ".join([f"{title:{width}}", *heads, f"{'mean':>5}", "95 % interval"]))
        for name, mean in means.items():
            each = [f"{_percent(split[measure][name]):>8}" for split in splits.values()]
            of_all = [_percent(getattr(mean, measure)), _interval(getattr(mean, ends))]
            lines.append("  ".join([f"{words[name]:{width}}", *each, *of_all]))
    return "\n".join([*lines, *useless_fusions(means, ROWS)])


def mean_accuracies(summary: Mapping[str, Any]) -> dict[str, Accuracy]:
    """The means over the splits of a run, by method."""
    return {
        name: Accuracy(
            summary["top1"][name],
            tuple(summary["interval"][name]),
            summary["mean_class"][name],
            tuple(summary["mean_class_interval"][name]),
        )
        for name in summary["top1"]
    }


def _choices(summary: Mapping[str, Any]) -> list[str]:
    """A line that tells what was chosen on held-out videos, if any were."""
    if "fusion" not in summary:
        return []
    weights = ", ".join(f"{name} {weight:g}" for name, weight in summary["fusion"]["weights"].items())
    chosen = f"weights {weights} and C {summary['fusion']['C']:g}"
    return [f"Chosen on {summary['videos']['held_out']} training videos that no net trained on: {chosen}"]


def accuracy_in(summary: Mapping[str, Any], name: str) -> Accuracy:
    """That of a stream or fusion in `summary.json`, with NaN for what it does not tell, as those of 0.1.0."""
    top1, count, nothing = summary["top1"][name], summary["videos"]["test"], (math.nan, math.nan)
    if name not in summary.get("interval", {}):
        return Accuracy(top1, wilson_interval(round(top1 * count), count), math.nan, nothing)
    low, high = summary["interval"][name]
    class_low, class_high = summary["mean_class_interval"][name]
    return Accuracy(top1, (low, high), summary["mean_class"][name], (class_low, class_high))


def format_accuracies(rows: Mapping[str, Accuracy]) -> str:
    """One row a method, in percent: both measures, each with its 95 % interval; `-` for what is NaN."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}  top-1  95 % interval  mean class  95 % interval"]
    for words, row in rows.items():
        of_videos = f"{_percent(row.top1)}  {_interval(row.interval)}"
        of_classes = f"{_percent(row.mean_class):>10}  {_interval(row.mean_class_interval)}"
        lines.append(f"{words:{width}}  {of_videos}  {of_classes}")
    return "\n".join(lines)


def format_accuracy(found: Accuracy, videos: int) -> str:
    """Both measures of so many videos in a line of words."""
    parts = [
        f"{words}: {_percent(share).strip()} (95 % interval {' '.join(_interval(ends).split())})"
        for words, share, ends in (
            (f"top-1 of {videos} videos", found.top1, found.interval),
            ("mean class", found.mean_class, found.mean_class_interval),
        )
    ]
    return ", ".join(parts)


def useless_fusions(rows: Mapping[str, Accuracy], words: Mapping[str, str]) -> list[str]:
    """A line that names the fusions that are not above the best of the streams, if there are any and several streams.

    rows: of streams and of `FUSIONS`, by name. words: what to call them, where it is not their name.
    """
    streams = {name: row.top1 for name, row in rows.items() if name not in FUSIONS}
    if len(streams) < 2:
        return []
    best = max(streams, key=lambda name: streams[name])
    useless = [words.get(name, name) for name in FUSIONS if name in rows and rows[name].top1 <= streams[best]]
    return [f"Not above the {words.get(best, best)} alone: {'; '.join(useless)}"] if useless else []


def format_classes(classes: Sequence[str], scores: Tensor, labels: Tensor) -> str:
    """The videos of each class and how many percent of them have their highest score there; classes with none: `-`.

    scores: float [videos, classes]; labels: int [videos].
    """
    right = scores.argmax(1) == labels
    width = max(map(len, classes))
    lines = [f"{'':{width}}  videos  top-1  95 % interval"]
    for label, name in enumerate(classes):
        own = right[labels == label]
        hits, count = int(own.sum()), len(own)
        share, interval = (hits / count, wilson_interval(hits, count)) if count else (math.nan, (math.nan, math.nan))
        lines.append(f"{name:{width}}  {count:6}  {_percent(share)}  {_interval(interval)}")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{'-':>5}" if math.isnan(share) else f"{100 * share:5.1f}"


def _interval(ends: tuple[float, float]) -> str:
    """As wide as its column's head."""
    low, high = ends
    return f"{'-':>13}" if math.isnan(low) else f"{100 * low:5.1f} - {100 * high:5.1f}"
