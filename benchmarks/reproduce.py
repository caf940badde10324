# SPDX-License-Identifier: BSD-3-Clause
"""A table of the paper on generated videos, recorded: what `twostream reproduce TABLE --out DIR` gives, and where.

python benchmarks/reproduce.py table1b --out DIR [--seeds 3] [--threads 2]

Broken off, it goes on in DIR, and tables that are given the same DIR share nets: `nets_trained` says how many are of
this call. So are `seconds`, on the clock, and `processor_seconds`, of all its processes, which work of others on the
machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import machine
import torch

from twostream_ext.engine import GENERATED_RECIPE, MODEL_FILE, TABLES, generate_sources, reproduce
from twostream_ext.files import atomic_write


def record_of(table: str, out: Path, seeds: int, workers: int) -> dict[str, Any]:
    nets, processors, began = nets_in(out), processor_seconds(), time.perf_counter()
    sources = generate_sources(table, out)
    summary = reproduce(table, out, sources, recipe=GENERATED_RECIPE, seeds=range(seeds), workers=workers)
    cost = {
        "seconds": round(time.perf_counter() - began),
        "processor_seconds": round(processor_seconds() - processors),
        "nets_trained": nets_in(out) - nets,
    }
    return {**machine.facts(torch.device("cpu"), torch.get_num_threads()), **cost, **summary}


def nets_in(out: Path) -> int:
    return len(list(out.glob(f"nets/*/{MODEL_FILE}")))


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description="A table of the paper on generated videos.")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", type=Path, required=True, help="directory for videos, nets and scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record = record_of(options.table, options.out, options.seeds, options.workers)
    file = machine.ROOT / "benchmarks" / "results" / f"reproduce_{options.table}.json"
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{file}: {record['seconds']} s, {record['processor_seconds']} s of processors")


if __name__ == "__main__":
    main()
