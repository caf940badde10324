# SPDX-License-Identifier: BSD-3-Clause
"""Draw what python_tests/scale.py recorded: time and memory of each command over the number of videos.

python benchmarks/scale_chart.py [benchmarks/results/scale.json]     writes scale.svg beside it
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from machine import ROOT
from matplotlib.figure import Figure

_COLOURS = {"extract": "#3182bd", "train": "#d6616b", "evaluate": "#74a02c"}


def draw(record: dict[str, Any], path: Path) -> None:
    """Two panels: seconds of processor time, and the most memory of one process in MB."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    time, memory = figure.subplots(1, 2)
    counts = record["videos"]
    for command, costs in record["commands"].items():
        grown, style = record["growth"][command], {"marker": "o", "color": _COLOURS[command]}
        seconds = [cost["seconds"] for cost in costs]
        label = f"{command}, {1000 * seconds[-1] / counts[-1]:.1f} ms a video"
        time.plot([0, *counts], [0, *seconds], label=label, **style)
        label = f"{command}, {grown['bytes_per_video']:.0f} bytes a video"
        memory.plot(counts, [cost["peak_bytes"] / 1e6 for cost in costs], label=label, **style)
    time.set(title="time", ylabel="seconds of processor time")
    memory.set(title="memory", ylabel="MB of the largest process, at most")
    for axes in (time, memory):
        axes.set(xlabel="videos", xlim=0, ylim=(0, 1.1 * axes.get_ylim()[1]))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    mpl.rcParams["svg.hashsalt"] = "scale"  # the same record gives the same bytes
    figure.savefig(path, metadata={"Date": None})


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else ROOT / "benchmarks" / "results" / "scale.json"
    draw(json.loads(path.read_text()), path.with_suffix(".svg"))


if __name__ == "__main__":
    main(sys.argv[1:])
