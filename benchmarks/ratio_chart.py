# SPDX-License-Identifier: BSD-3-Clause
"""Every workload of a record as a row: how many times longer than ours each peer takes, and where the limit lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chart import COLOURS
from workloads import OURS

_FURTHER = {"kornia": "#31a354", "torchvision": "#de9ed6"}
_LIMIT = "limit"
_ROW = 0.26  # inches


def draw(record: dict[str, Any], path: Path) -> Path | None:
    """Draw an SVG, the same bytes for the same record; give the path, or None without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = record["kernels"]
    figure = Figure(figsize=(9, 1.6 + _ROW * len(rows)), layout="constrained")
    axes = figure.subplots()
    for name, places in _places(rows).items():
        axes.plot(*zip(*places, strict=True), **_style(name))
    axes.axvline(1, color="#6a3d9a", linewidth=2, label=OURS)
    axes.set(xscale="log", xlabel="time, ours = 1", ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [f"{row['operator']}, {row['workload']}" for row in rows], fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(fontsize=8, loc="outside upper center", ncols=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "ratios", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    return path


def _places(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, int]]]:
    """Of each peer and of the limit, the points (times longer than ours, row)."""
    places: dict[str, list[tuple[float, int]]] = {}
    for number, row in enumerate(rows):
        for each in row["implementations"]:
            if each["name"] == OURS:
                places.setdefault(_LIMIT, []).append((each["fraction_of_limit"], number))
            elif "ours_is_times_faster" in each:
                places.setdefault(each["name"], []).append((each["ours_is_times_faster"], number))
    return places


def _style(name: str) -> dict[str, Any]:
    if name == _LIMIT:
        return {"label": "limit: a fill, read or copy", "color": "black", "marker": "|", "linestyle": "", "ms": 11}
    return {"label": name, "color": {**COLOURS, **_FURTHER}.get(name, "grey"), "marker": "o", "linestyle": "", "ms": 5}
