# SPDX-License-Identifier: BSD-3-Clause
"""`twostream report` of a run of the Kinetics sets' size: how long it takes and how much memory.

    python benchmarks/report.py [--classes N] [--videos N]

makes the files that such a run leaves, without training (nets of the paper's size, logs of 80,000 iterations), lets the
command write the report, and records `benchmarks/results/report.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import machine
import torch

from twostream_ext.engine import RECIPES

RESULT = machine.ROOT / "benchmarks" / "results" / "report.json"
sys.path.insert(0, str(machine.ROOT / "python_tests"))

from made_runs import make_run, measure_report  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=700)
    parser.add_argument("--videos", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_run(
            Path(folder),
            [f"class number {number}" for number in range(options.classes)],
            options.videos,
            recipe=RECIPES["paper"],
            iterations=80_000,
        )
        found = measure_report(Path(folder))
        page_bytes = (Path(folder) / "report.html").stat().st_size
    record = {
        **machine.facts(torch.device("cpu"), torch.get_num_threads()),
        "workload": f"{options.classes} classes, {options.videos} test videos, CNN-M-2048, 80,000 iterations",
        **found._asdict(),
        "page_bytes": page_bytes,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
