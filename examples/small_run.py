# SPDX-License-Identifier: BSD-3-Clause
"""The pipeline from Python on generated videos, with a recipe of one's own: about a minute on two processors.

python examples/small_run.py OUT
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import twostream_ext as ts


def main(out: Path) -> None:
    videos = out / "videos"
    ts.data.generate_videos(videos, seed=1, train_per_class=6, test_per_class=2)
    demo = ts.engine.RECIPES["demo"]
    streams = {name: replace(numbers, iterations=60) for name, numbers in demo.streams.items()}
    recipe = replace(demo, streams=streams, frames=3)
    summary = ts.engine.run_pipeline(videos, videos, out, recipe=recipe)
    print(ts.report.format_table(summary))
    print(ts.report.write_report(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
