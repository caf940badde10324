# SPDX-License-Identifier: BSD-3-Clause
"""What the pages about a table of the paper, and about a run on several splits, are filled with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twostream_ext.engine import TABLES, split_folder
from twostream_ext.report.charts import experiment_layout
from twostream_ext.report.content import Part, method_colours, recipe_facts, verdict, versions
from twostream_ext.report.table import ROWS, mean_accuracies

_MEASURES = (
    ("top1", "interval", "per video, %"),
    ("mean_class", "mean_class_interval", "mean over classes, %"),
)


def draw_table(summary: Mapping[str, Any]) -> Part:
    """All of the page about a table of the paper, from the `summary.json` of `engine.reproduce`."""
    name, rows = summary["table"], summary["rows"]
    table = TABLES.get(name)
    content = {
        "heading": f"The paper's {name.replace('table', 'table ')}",
        "title": table.title if table else name,
        "rows": rows,
        "not_run": summary["not_run"],
        "splits": summary["splits"],
        "seeds": sorted({row["seeds"] for row in rows}),
        "notes": summary.get("notes", []),
        "facts": {
            **recipe_facts(summary["recipe"], {"splits": summary["splits"]}),
            "Data": dict(summary.get("data", {})),
            "Versions that made this page": versions(),
        },
        "chart": experiment_layout(rows),
    }
    return Part(content, {}, {"table": ("experiment.svg", {})} if rows else {})


def draw_splits(summary: Mapping[str, Any]) -> Part:
    """All of the page about a run on several splits, from the `summary.json` of `engine.run_splits`."""
    splits, means = summary["splits"], mean_accuracies(summary)
    content = {
        "heading": "Two-stream result",
        "title": f"{len(summary['classes'])} classes, {len(splits)} splits",
        "measures": [
            {
                "words": words,
                "methods": [
                    {
                        "name": name,
                        "words": ROWS.get(name, name),
                        "each": [split[measure][name] for split in splits.values()],
                        "mean": getattr(mean, measure),
                        "interval": getattr(mean, ends),
                    }
                    for name, mean in means.items()
                ],
            }
            for measure, ends, words in _MEASURES
        ],
        "splits": [
            {"number": number, "videos": split["videos"], "page": f"{split_folder('', number)}/report.html"}
            for number, split in splits.items()
        ],
        "seed": summary["seed"],
        "notes": summary["notes"],
        "colours": method_colours(means),
        "verdict": verdict(means),
        "facts": {
            **recipe_facts(summary["recipe"], {"seed": summary["seed"]}),
            "Versions that made this page": versions(),
        },
    }
    return Part(content, {}, {})
