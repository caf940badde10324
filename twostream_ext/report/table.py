# SPDX-License-Identifier: BSD-3-Clause
"""The table of top-1 accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS = {
    "spatial": "spatial stream",
    "temporal": "temporal stream",
    "average": "two streams, average",
    "svm": "two streams, SVM",
}


def format_table(summary: Mapping[str, Any]) -> str:
    """Format the accuracies of `summary.json` as the paper's table 4 does: one row a method, in percent."""
    videos = summary["videos"]
    width = max(map(len, ROWS.values()))
    lines = [
        f"{len(summary['classes'])} classes, {videos['train']} training and {videos['test']} test videos",
        f"{'':{width}}  top-1",
    ]
    lines += [f"{words:{width}}  {100 * summary['top1'][name]:5.1f}" for name, words in ROWS.items()]
    return "\n".join(lines)
