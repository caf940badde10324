# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks/results/kernels_cpu.json has held from record to record, as docs/benchmark-history.md.

    python -m benchmarks --history

The records are those that git has of the file, and the one that lies there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import machine
import markdown
from workloads import OURS

RECORD = "benchmarks/results/kernels_cpu.json"
PAGE = machine.ROOT / "docs" / "benchmark-history.md"
HEAD = f"""# Benchmark history

All records of the kernels on the CPU that `{RECORD}` has held, oldest first. This page is
made by `python -m benchmarks --history` from git, whenever a record is made; `benchmarks/README.md` tells how one is
made.

A row of the second table is a workload: what ours took, and in brackets its fraction of the limit, which is a fill,
read or copy of as many bytes in the same rounds. **Compare fractions, not times, and those with care.** The records
come from shared machines, whose neighbours differ from hour to hour, and a processor's name may stand for several
kinds. In `benchmarks/results/before_after.json`, two versions measured in turns on one machine, single workloads lie
between 0.6 and 1.6 where the median is 0.98. Whether a change made anything slower is what
`benchmarks/before_after.py` measures and what `python -m benchmarks --guard` watches.
"""


class HistoryError(Exception):
    """Why there is no history to read, in one line."""


def main() -> int:
    """Write the page; the exit status."""
    try:
        PAGE.write_text(page(records()))
    except HistoryError as error:
        print(f"history: {error}", file=sys.stderr)
        return 2
    print(PAGE)
    return 0


def records() -> list[dict[str, Any]]:
    """All there are, each once, by their dates."""
    try:
        machine.git(machine.ROOT, "ls-files", "--error-unmatch", RECORD)
        if machine.git(machine.ROOT, "rev-parse", "--is-shallow-repository") == "true":
            raise HistoryError("this checkout is shallow; git fetch --unshallow brings the rest")
        commits = machine.git(machine.ROOT, "log", "--format=%H", "--diff-filter=AM", "--", RECORD).split()
        texts = [machine.git(machine.ROOT, "show", f"{commit}:{RECORD}") for commit in commits]
    except (OSError, subprocess.CalledProcessError) as error:
        raise HistoryError(f"{RECORD}: git does not know it here: {error}") from error
    texts.append((machine.ROOT / RECORD).read_text())
    found = {record["date"]: record for record in map(json.loads, texts)}
    return [found[date] for date in sorted(found)]


def page(found: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    numbers = [f"#{number}" for number in range(1, len(found) + 1)]
    lines = markdown.table(["record", "date", "commit", "machine", "torch"], list(map(_origin, numbers, found)))
    names = dict.fromkeys(name for record in found for name in _reached(record))
    rows = [[_shown(name), *(_reached(record).get(name, "") for record in found)] for name in names]
    lines += ["", *markdown.table(["workload", *numbers], rows)]
    return HEAD + "\n" + "\n".join(lines) + "\n"


def _origin(number: str, record: dict[str, Any]) -> list[str]:
    of = record["machine"]
    where = f"{of['cpu']}, {of['cores']} cores, {of['threads']} threads"
    commit, _, changes = record["commit"].partition("+")
    return [
        number,
        record["date"][:16].replace("T", " "),
        commit[:7] + (f" with {changes}" if changes else ""),
        where,
        record["versions"]["torch"],
    ]


def _reached(record: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Time and fraction of ours, by operator and workload."""
    return {
        (
            kernel["operator"],
            kernel["workload"],
        ): f"{markdown.duration(ours['median_ms'])} ({ours['fraction_of_limit']:.2f})"
        for kernel in record["kernels"]
        for ours in kernel["implementations"]
        if ours["name"] == OURS
    }


def _shown(name: tuple[str, str]) -> str:
    return f"`{name[0]}`, {name[1]}"
