# SPDX-License-Identifier: BSD-3-Clause
"""A table of the paper as it came out, beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_experiment(summary: Mapping[str, Any]) -> str:
    """Format the `summary.json` of `engine.reproduce`: a row a setting, in percent."""
    rows, left_out = summary["rows"], summary["not_run"]
    width = max(len(row["setting"]["text"]) for row in [*rows, *left_out])
    lines = [f"{'':{width}}  top-1  95 % interval  mean class  seeds  paper"]
    for row in rows:
        low, high = (100 * bound for bound in row["interval"])
        interval = f"{low:.1f} .. {high:.1f}"
        lines.append(
            f"{row['setting']['text']:{width}}  {100 * row['top1']:5.1f}  {interval:>13}  "
            f"{100 * row['mean_class']:10.1f}  {row['seeds']:5}  {100 * row['paper']:5.1f}"
        )
    lines += [f"{row['setting']['text']:{width}}  not run: {row['reason']}" for row in left_out]
    return "\n".join(lines)
