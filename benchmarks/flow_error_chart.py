# SPDX-License-Identifier: BSD-3-Clause
"""Draw what benchmarks/flow_error.py recorded: the error of flow methods over their time, one panel a kind of motion.

python benchmarks/flow_error_chart.py [benchmarks/results/flow_error.json [docs/flow-error.png]]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from machine import ROOT
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

TITLES = {"smooth": "real frames, smooth motion", "layered": "layers with exact borders"}
OURS, OTHERS, FRONT = "#6a3d9a", "#3182bd", "#b9a3d0"


def draw(record: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(TITLES)), TITLES, strict=True):
        _panel(axes, record, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axes: Any, record: dict[str, Any], kind: str) -> None:
    front = sorted((each["milliseconds"], each["error"][kind]) for each in record["front"])
    axes.plot(*zip(*front, strict=True), "o", color=FRONT, markersize=4, label="tvl1_flow, other settings")
    for name, of in record["methods"].items():
        place = of["milliseconds"], of["error"][kind]
        ours = name.startswith("tvl1")
        axes.plot(*place, "D" if ours else "s", color=OURS if ours else OTHERS, markersize=8)
        axes.annotate(name, place, xytext=(7, -14 if ours else 5), textcoords="offset points", fontsize=10)
    axes.set(xscale="log", title=TITLES[kind], ylim=(0, 1.1 * axes.get_ylim()[1]))
    axes.set(xlabel="milliseconds a pair of 256x340, one core", ylabel="mean end-point error, pixels")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="upper right")


def main(arguments: list[str]) -> None:
    given = [Path(each) for each in arguments]
    source = given[0] if given else ROOT / "benchmarks" / "results" / "flow_error.json"
    draw(json.loads(source.read_text()), given[1] if len(given) > 1 else ROOT / "docs" / "flow-error.png")


if __name__ == "__main__":
    main(sys.argv[1:])
