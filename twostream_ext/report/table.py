# SPDX-License-Identifier: BSD-3-Clause
"""Tables of top-1 accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

ROWS = {
    "spatial": "spatial stream",
    "temporal": "temporal stream",
    "average": "two streams, average",
    "svm": "two streams, SVM",
}


def format_table(summary: Mapping[str, Any]) -> str:
    """Format the accuracies of `summary.json` as the paper's table 4 does: one row a method, in percent."""
    videos = summary["videos"]
    head = f"{len(summary['classes'])} classes, {videos['train']} training and {videos['test']} test videos"
    return f"{head}\n{format_top1({words: summary['top1'][name] for name, words in ROWS.items()})}"


def format_top1(rows: Mapping[str, float]) -> str:
    """One row a method, in percent."""
    width = max(map(len, rows))
    return "\n".join(
        [f"{'':{width}}  top-1", *(f"{words:{width}}  {100 * value:5.1f}" for words, value in rows.items())]
    )


def format_classes(classes: Sequence[str], scores: Tensor, labels: Tensor) -> str:
    """The videos of each class and how many percent of them have their highest score there; classes with none: `-`.

    scores: float [videos, classes]; labels: int [videos].
    """
    right = scores.argmax(1) == labels
    width = max(map(len, classes))
    lines = [f"{'':{width}}  videos  top-1"]
    for label, name in enumerate(classes):
        own = right[labels == label]
        percent = f"{100 * own.double().mean().item():5.1f}" if len(own) else f"{'-':>5}"
        lines.append(f"{name:{width}}  {len(own):6}  {percent}")
    return "\n".join(lines)
