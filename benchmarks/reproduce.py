# SPDX-License-Identifier: BSD-3-Clause
"""A table of the paper on generated videos, recorded: what `twostream reproduce TABLE --out DIR` gives, and where.

python benchmarks/reproduce.py table1b --out DIR [--seeds 3] [--threads 2]

Broken off, it goes on in DIR; `seconds` are then those of the last call alone, and `goes_on` says so.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import machine
import torch

from twostream_ext.engine import GENERATED_RECIPE, TABLES, generate_sources, reproduce
from twostream_ext.files import atomic_write


def record_of(table: str, out: Path, seeds: int, workers: int) -> dict[str, Any]:
    goes_on = (out / "nets").exists()
    began = time.perf_counter()
    sources = generate_sources(table, out)
    summary = reproduce(table, out, sources, recipe=GENERATED_RECIPE, seeds=range(seeds), workers=workers)
    seconds = round(time.perf_counter() - began)
    facts = machine.facts(torch.device("cpu"), torch.get_num_threads())
    return {**facts, "seconds": seconds, "goes_on": goes_on, **summary}


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
    print(f"{file}: {record['seconds']} s")


if __name__ == "__main__":
    main()
