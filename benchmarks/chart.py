# SPDX-License-Identifier: BSD-3-Clause
"""Time over batch size, log-log: how each implementation grows, and how far above the limit it runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workloads import OURS

COLOURS = {
    "NumPy": "#8c6d31",
    "torch": "#d6616b",
    "torch grid_sample": "#d6616b",
    "torch.compile": "#e7969c",
    "OpenCV": "#3182bd",
    "OpenCV remap": "#3182bd",
    "DALI": "#74a02c",
}


def draw(entries: Sequence[dict[str, Any]], path: Path) -> Path | None:
    """Draw one panel an operator; give the path, or None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    operators = list(dict.fromkeys(entry["operator"] for entry in entries))
    figure = Figure(figsize=(6.2 * len(operators), 5.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, operator in zip(figure.subplots(1, len(operators), squeeze=False)[0], operators, strict=True):
        _panel(axes, operator, [entry for entry in entries if entry["operator"] == operator])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _panel(axes: Any, operator: str, entries: Sequence[dict[str, Any]]) -> None:
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for entry in entries:
        for each in entry["implementations"]:
            name = f"{OURS}, {entry['label']}" if each["name"] == OURS else each["name"]
            lines[name].append((entry["count"], each["median_ms"]))
        if entry["label"] == "float32":
            lines["limit: fill of the float32 stack"].append((entry["count"], entry["limit"]["median_ms"]))
    for name, points in sorted(lines.items(), key=lambda item: -item[1][-1][1]):
        axes.plot(*zip(*sorted(points), strict=True), label=name, **_style(name))
    counts = sorted({entry["count"] for entry in entries})
    axes.set(xscale="log", yscale="log", title=operator, xlabel="batch size", ylabel="milliseconds for a batch")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2)


def _style(name: str) -> dict[str, Any]:
    if name.startswith("limit"):
        return {"color": "black", "linestyle": ":", "linewidth": 1.5}
    if name.startswith(OURS):
        dashed = "--" if "bfloat16" in name else "-"
        return {"color": "#6a3d9a", "linestyle": dashed, "linewidth": 2.5, "marker": "o", "markersize": 4}
    return {"color": COLOURS.get(name, "grey"), "linewidth": 1.3, "marker": ".", "markersize": 6}
