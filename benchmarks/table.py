# SPDX-License-Identifier: BSD-3-Clause
"""All implementations of each operator side by side: Markdown to the terminal, a JSON file, a chart.

    python benchmarks/table.py [--operators flow_stack ...] [--threads 2] [--device cpu|cuda] [--rounds 15]
                               [--without torch.compile ...] [--out DIR] [--chart FILE] [--quick]
    python benchmarks/table.py --page      # only: put the recorded results into docs/benchmarks.md

Every result is compared with a NumPy reference before anything is timed. All implementations and the limit are timed
interleaved, round by round; ratios are medians of the rounds' ratios. Writes OUT/kernels_<device>.json
(benchmarks/results) and docs/kernels.png; with --quick (tiny shapes, only to see that it works) build/benchmarks/.
Peers that cannot be imported are listed with the reason; `pip install '.[bench]'` brings what is light, and
benchmarks/dali.py tells how to add DALI. The package must be importable: installed, or PYTHONPATH=. for a build in the
checkout.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import chart
import limits
import machine
import markdown
import torch
from timing import Times, interleave
from workloads import OURS, Call, Problem, Setting, UnavailableError, Workload

ROOT = Path(__file__).resolve().parent.parent
OPERATORS = (
    "flow_stack",
    "trajectory_stack",
    "crop_frames",
    "mean_flow",
    "camera_motion",
    "quantize_flow",
    "dequantize_flow",
    "local_response_norm",
    "random_windows",
    "ten_crop_windows",
    "overhead",
)
GROWTH_CHART = ROOT / "docs" / "kernels.png"
NO_CHART = "no chart: matplotlib cannot be imported"
_BYTES, _BYTES_QUICK = 1 << 27, 1 << 20  # of which the machine's limits are told; the first is more than caches hold


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    results = ROOT / "benchmarks" / "results"
    if options.page:
        recorded = [json.loads(path.read_text()) for path in sorted(results.glob("kernels_*.json"))]
        markdown.write_page(ROOT / "docs" / "benchmarks.md", recorded)
        return 0
    if options.quick:
        results = ROOT / "build" / "benchmarks"
    out = options.out or results
    device = torch.device(options.device)
    set_threads(options.threads)
    path = out / f"kernels_{device.type}.json"
    record = record_all(options, Setting(device, options.quick), path)
    print(markdown.full(record))
    print(path)
    draw_growth(record, options.chart or (out / GROWTH_CHART.name if options.quick else GROWTH_CHART))
    return tell_failed(record)


def draw_growth(record: dict[str, Any], picture: Path) -> None:
    """Draw time over batch size, where it was measured, and tell where."""
    if record.get("growth"):
        print(chart.draw(record["growth"], picture) or NO_CHART)


def record_all(options: argparse.Namespace, setting: Setting, path: Path) -> dict[str, Any]:
    """Measure all that is asked for, and write it to the path."""
    record = machine.facts(setting.device, options.threads)
    record["limits"] = limits.speeds(setting.device, _BYTES_QUICK if setting.quick else _BYTES, options.rounds)
    for section, entries in measure(options, setting):
        record.setdefault(section, []).extend(entries)
        path.parent.mkdir(parents=True, exist_ok=True)  # after every operator: a run cut short leaves what it had
        path.write_text(json.dumps(record, indent=1) + "\n")
    return record


def tell_failed(record: dict[str, Any]) -> int:
    """Name what failed of ours; the exit status."""
    for each in record.get("failed", []):
        print(f"FAILED {each['operator']}: {each['error']}", file=sys.stderr)
    return int("failed" in record)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=OPERATORS, metavar="OPERATOR")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add_common(parser)
    parser.add_argument("--no-growth", action="store_true", help="leave out the batch sizes of the chart")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    parser.add_argument("--chart", type=Path, help="file for the chart")
    parser.add_argument("--page", action="store_true", help="only regenerate the table in docs/benchmarks.md")
    options = parser.parse_args(arguments)
    options.rounds = min(options.rounds, 3) if options.quick else options.rounds
    return options


def add_common(parser: argparse.ArgumentParser) -> None:
    """What `python -m benchmarks` takes as well."""
    parser.add_argument("--threads", type=int, default=2, help="threads of torch, OpenCV and DALI (NumPy has one)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="implementations to leave out")
    parser.add_argument("--quick", action="store_true", help="tiny shapes and three rounds")


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(threads)


def measure(options: argparse.Namespace, setting: Setting) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (section of the record, its new entries). What fails of ours comes as section `failed`."""
    for operator in options.operators:
        module = importlib.import_module(f"bench_{operator}")
        for section, entries in _sections(operator, module, setting, options).items():
            for entry in entries:
                try:
                    yield section, [entry()]
                except Exception as error:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    yield "failed", [{"operator": operator, "error": f"{type(error).__name__}: {error}"}]


def _sections(
    operator: str, module: ModuleType, setting: Setting, options: argparse.Namespace
) -> dict[str, list[Callable[[], dict[str, Any]]]]:
    workloads = [each for each in module.WORKLOADS if setting.device.type in each.devices]
    sections: dict[str, list[Callable[[], dict[str, Any]]]] = {
        "kernels": [partial(compare, operator, each, setting, options) for each in workloads]
    }
    if setting.device.type == "cpu" and operator != "overhead":
        sections["threads"] = [partial(scale, operator, workloads[0], setting, options)]
    growth = getattr(module, "GROWTH", None)
    if growth is not None and setting.device.type == "cpu" and not options.no_growth:
        sections["growth"] = [
            partial(grow, operator, label, count, make(count), setting, options)
            for label, make in growth.workloads.items()
            for count in (growth.counts[:2] if setting.quick else growth.counts)
        ]
    return sections


def grow(
    operator: str, label: str, count: int, workload: Workload, setting: Setting, options: argparse.Namespace
) -> dict[str, Any]:
    """One batch size of a line of the chart."""
    return {"label": label, "count": count, **compare(operator, workload, setting, options)}


def compare(operator: str, workload: Workload, setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Check all implementations of a workload, time them interleaved with the limit, and tell what each reached."""
    print(f"{operator}, {workload.name}", file=sys.stderr, flush=True)
    gc.collect()
    problem = workload.build(setting)
    calls: dict[str, Call] = {}
    absent, parts = {}, set()
    for implementation in workload.those_on(setting.device):
        if implementation.name in options.without:
            continue
        try:
            call = implementation.call(problem)
        except UnavailableError as reason:
            absent[implementation.name] = str(reason)
            continue
        except Exception as error:
            if implementation.name == OURS:
                raise
            # A peer that fails must not cost the others their turn; its row says what happened.
            absent[implementation.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        calls[implementation.name] = call
        if implementation.part:
            parts.add(implementation.name)
    times = interleave({**calls, "limit": limits.limit(problem, setting.device)}, setting.device, options.rounds)
    return {
        "operator": operator,
        "workload": workload.name,
        "shapes": problem.shapes,
        "bytes": {"read": problem.read, "written": problem.written, "counted": problem.counted},
        "limit": {"what": limits.describe(problem, setting.device), **_seconds(times["limit"])},
        "implementations": [_entry(name, times, problem, part=name in parts) for name in calls],
        "absent": absent,
    }


def _seconds(times: Times) -> dict[str, float]:
    return {"median_ms": times.median * 1e3, "minimum_ms": times.minimum * 1e3, "rounds": len(times.counted)}


def _entry(name: str, times: dict[str, Times], problem: Problem, part: bool) -> dict[str, Any]:
    entry = {
        "name": name,
        **_seconds(times[name]),
        "gigabytes_per_second": problem.bytes / times[name].median / 1e9,
        "fraction_of_limit": times["limit"].over(times[name]),
    }
    if name != OURS and not part:
        entry["ours_is_times_faster"] = times[name].over(times[OURS])
    return entry


def scale(operator: str, workload: Workload, setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Time our kernel with one thread and with all, interleaved."""
    problem = workload.build(setting)
    call = workload.implementations[0].call(problem)

    def with_threads(threads: int) -> Callable[[], None]:
        def run() -> None:
            torch.set_num_threads(threads)
            call()

        return run

    names = {1: "1", options.threads: str(options.threads)}
    times = interleave({name: with_threads(count) for count, name in names.items()}, setting.device, options.rounds)
    torch.set_num_threads(options.threads)
    most = names[options.threads]
    return {
        "operator": operator,
        "workload": workload.name,
        "shapes": problem.shapes,
        "median_ms": {name: each.median * 1e3 for name, each in times.items()},
        "speedup": times["1"].over(times[most]),
    }


if __name__ == "__main__":
    sys.exit(main())
