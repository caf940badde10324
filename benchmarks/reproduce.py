# SPDX-License-Identifier: BSD-3-Clause
"""A table of the paper, recorded: what `twostream reproduce TABLE --out DIR` gives, and where.

python benchmarks/reproduce.py table1b --out DIR [--seeds 3] [--first-seed 0] [--budget 1] [--threads 2]
    [--videos VIDEOS --lists LISTS] [--record reproduce_table1b.json]

Without --videos on generated videos; with them by the recipe "small". Broken off, or given with more seeds, it goes on
in DIR. The record's `cost` is of all these calls: `seconds` on the clock, `processor_seconds` of all processes, which
work of others on the machine changes less, and `nets_trained`, which are fewer than the table needs where another table
in DIR has left some.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
import torch

from twostream_ext.data import DataSource
from twostream_ext.engine import GENERATED_RECIPE, MODEL_FILE, RECIPES, TABLES, Sources, generate_sources, reproduce
from twostream_ext.files import atomic_write


def record_of(options: argparse.Namespace) -> dict[str, Any]:
    if options.videos:
        sources, recipe = Sources(DataSource(options.videos, options.lists, name="first")), RECIPES["small"]
    else:
        sources, recipe = generate_sources(options.table, options.out), GENERATED_RECIPE
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    recipe = recipe.scaled(options.budget)
    summary = reproduce(options.table, options.out, sources, recipe=recipe, seeds=seeds, workers=options.workers)
    del summary["data"]  # where the videos lie
    facts = machine.facts(torch.device("cpu"), torch.get_num_threads())
    return {**facts, "budget": options.budget, "seed_numbers": list(seeds), **summary}


@contextmanager
def costs_noted(file: Path, out: Path) -> Iterator[None]:
    """Add what is done inside to the costs in a file, also if it is broken off."""
    began = costs(out)
    try:
        yield
    finally:
        before = json.loads(file.read_text()) if file.exists() else dict.fromkeys(began, 0)
        ended = costs(out)
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps({name: round(before[name] + ended[name] - began[name]) for name in began}))


def costs(out: Path) -> dict[str, float]:
    return {
        "seconds": time.perf_counter(),
        "processor_seconds": sum(os.times()[:4]),  # of this process, and of those it started that have ended
        "nets_trained": len(list(out.glob(f"nets/*/{MODEL_FILE}"))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A table of the paper on generated videos.")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", type=Path, required=True, help="directory for videos, nets and scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--lists", type=Path)
    parser.add_argument("--record", help="name of the record (reproduce_TABLE.json)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    noted = options.out / f"cost_{options.table}.json"
    with costs_noted(noted, options.out):
        record = record_of(options)
    record["cost"] = json.loads(noted.read_text())
    file = machine.ROOT / "benchmarks" / "results" / (options.record or f"reproduce_{options.table}.json")
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{file}: {record['cost']}")


if __name__ == "__main__":
    main()
