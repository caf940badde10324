# SPDX-License-Identifier: BSD-3-Clause
"""The benchmarks in one command, from the top of the checkout; benchmarks/README.md tells how they are made.

    python -m benchmarks [OPERATOR ...]       # ours, each peer that is installed, and the machine's limits
    python -m benchmarks --guard              # has a kernel become slower than the record says? Needs valgrind and g++
    python -m benchmarks --history            # docs/benchmark-history.md anew, from git

Prints a table and writes kernels_<device>.json and kernels_<device>.svg to OUT (build/benchmarks): on the CPU, and on
CUDA where torch sees a GPU and the package was built for it (not yet run on a GPU). Nothing of what is recorded in
benchmarks/results changes without --record. The package must be importable: installed, or PYTHONPATH=. for a build in
the checkout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# The scripts import one another by their names; and the checkout itself, which `-m` puts here, must not hide a package
# that is installed.
sys.path[:1] = [str(FOLDER)] if Path(sys.path[0]).resolve() == FOLDER.parent else [str(FOLDER), sys.path[0]]

import guard  # noqa: E402
import history  # noqa: E402
import markdown  # noqa: E402
import ratio_chart  # noqa: E402
import table  # noqa: E402
import torch  # noqa: E402
from workloads import Setting  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.guard:
        return guard.main(record=options.record)
    if options.history:
        return history.main()
    table.set_threads(options.threads)
    return max(_measure(options, torch.device(device)) for device in options.devices)


def _measure(options: argparse.Namespace, device: torch.device) -> int:
    """One device: the table, the record and the chart; the exit status."""
    path = options.out / f"kernels_{device.type}.json"
    record = table.record_all(options, Setting(device, options.quick), path)
    print(markdown.full(record))
    print(path)
    if record.get("kernels"):
        print(ratio_chart.draw(record, path.with_suffix(".svg")) or table.NO_CHART)
    table.draw_growth(record, table.GROWTH_CHART)
    return table.tell_failed(record)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("operators", nargs="*", type=_operator, metavar="OPERATOR", help=", ".join(table.OPERATORS))
    parser.add_argument("--device", choices=["cpu", "cuda"], help="one alone")
    table.add_common(parser)
    parser.add_argument("--out", type=Path, default=FOLDER.parent / "build" / "benchmarks", help="folder to write to")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/results, what is committed")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--guard", action="store_true", help="compare with benchmarks/results/guard.json")
    other.add_argument("--history", action="store_true", help="only write docs/benchmark-history.md")
    options = parser.parse_args(arguments)
    if options.record and (options.quick or options.operators):
        parser.error("--record is for all operators in their full shapes")
    if options.device == "cuda" and "cuda" not in _devices():
        parser.error("--device cuda: torch sees no GPU, or the package was built without CUDA")
    options.operators = options.operators or table.OPERATORS
    options.devices = [options.device] if options.device else _devices()
    options.rounds = min(options.rounds, 3) if options.quick else options.rounds
    options.out = FOLDER / "results" if options.record else options.out
    options.no_growth = not options.record  # the chart over batch sizes belongs to the record
    return options


def _operator(name: str) -> str:
    if name not in table.OPERATORS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(table.OPERATORS)}")
    return name


def _devices() -> list[str]:
    """Those that this machine has and the package was built for."""
    from twostream_ext import _C

    return ["cpu", "cuda"] if torch.cuda.is_available() and _C.cuda_architectures() else ["cpu"]


if __name__ == "__main__":
    sys.exit(main())
