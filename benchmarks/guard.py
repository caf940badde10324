# SPDX-License-Identifier: BSD-3-Clause
"""Whether a kernel has become slower than benchmarks/results/guard.json says.

    python -m benchmarks --guard [--record]

Two figures of each workload, on one thread. Its instructions, as callgrind counts them for guard_calls.cpp, once for
each instruction set: the same in every run of one build, so that a fourth more is a fault. And its fraction of the
limit (the limit's time over ours): the least processor time of many rounds in turns, of several processes, since a
process may be slow for as long as it lives. That varies, and more from one kind of processor to another, so that only
a large loss on the recorded kind of processor is a fault. What was measured stands in benchmarks/README.md.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import limits
import machine
import torch
from timing import interleave
from workloads import OURS, Setting

import twostream_ext

RECORD = machine.ROOT / "benchmarks" / "results" / "guard.json"
CALLS = machine.ROOT / "benchmarks" / "guard_calls.cpp"
MOST_INSTRUCTIONS = 1.25  # of those recorded
LEAST_FRACTION = 0.6  # of that recorded
PROCESSES, ROUNDS = 3, 40
ATTEMPTS = 3  # at times: all for a record, and before those that are too long are believed
ISAS = ("baseline", "avx2")

# Of one sample, so that the working set stays in the caches: the module, and what its problem takes. The times of
# trajectory_stack and dequantize_flow fell to a third for minutes on a machine that others used; they are only counted.
TIMED: dict[str, tuple[str, dict[str, Any]]] = {
    "flow_stack, planar codes": ("flow_stack", {"count": 1, "planar": True}),
    "flow_stack, interleaved codes": ("flow_stack", {"count": 1}),
    "flow_stack, bfloat16": ("flow_stack", {"count": 1, "planar": True, "dtype": torch.bfloat16}),
    "flow_stack, channels last": ("flow_stack", {"count": 1, "channels_last": True}),
    "crop_frames, 4 frames": ("crop_frames", {"count": 4}),
    "mean_flow, float32": ("mean_flow", {"count": 1}),
    "mean_flow, interleaved codes": ("mean_flow", {"count": 1, "codes": True}),
    "quantize_flow, interleaved": ("quantize_flow", {"count": 1}),
    "local_response_norm, forward": ("local_response_norm", {"count": 1}),
}

# Whether the C library fills and copies by one long instruction, or past the cache, depends on the processor's caches,
# and made up to an eighth of a count. With these it does neither.
TUNABLES = ":".join(f"glibc.cpu.x86_{what}_threshold={1 << 30}" for what in ("rep_stosb", "rep_movsb", "non_temporal"))

Counts = dict[str, dict[str, int]]  # instructions by instruction set and workload


class GuardError(Exception):
    """Why nothing can be compared, in one line."""


def main(*, record: bool) -> int:
    """Measure, then record or compare; the exit status."""
    try:
        if record:
            write_record(RECORD, instructions(), best_fractions(lambda reached: False))
            print(f"{RECORD.relative_to(machine.ROOT)}: recorded; look at what git diff shows")
            return 0
        return _compare(json.loads(RECORD.read_text()))
    except GuardError as error:
        print(f"guard: {error}", file=sys.stderr)
        return 2


def _compare(recorded: dict[str, Any]) -> int:
    """Tell all figures, and what is worse than recorded; the exit status."""
    if recorded["architecture"] != platform.machine():
        raise GuardError(f"{RECORD.name} is of {recorded['architecture']}, this is {platform.machine()}")
    counts, judged = instructions(), recorded["processor"] == machine.processor()
    reached = best_fractions(lambda each: not judged or not slower_times(recorded["fractions"], each))
    print("\n".join(told(recorded, counts, reached)))
    if not judged:
        print(f"\nThe fractions are told and not judged: the record is of {recorded['processor']}.")
    faults = slower_counts(recorded["instructions"], counts)
    faults += slower_times(recorded["fractions"], reached) if judged else []
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
        print(f"{len(faults)} figures of kernels are worse than recorded. {_advice(recorded)}", file=sys.stderr)
    return int(bool(faults))


def instructions() -> Counts:
    """Count with callgrind, for each instruction set; GuardError where that cannot be done."""
    missing = [tool for tool in ("valgrind", "c++") if shutil.which(tool) is None]
    if missing:
        raise GuardError(f"{' and '.join(missing)}: not on PATH")
    with tempfile.TemporaryDirectory(prefix="twostream-") as folder:
        program = build_calls(Path(folder))
        with ThreadPoolExecutor() as pool:  # its threads only wait
            return dict(zip(ISAS, pool.map(partial(count, program), ISAS), strict=True))


def build_calls(folder: Path) -> Path:
    """Compile guard_calls.cpp against the installed library."""
    program, library = folder / "guard_calls", Path(twostream_ext.get_library()).parent
    options = ["-std=c++17", "-O1", f"-I{twostream_ext.get_include()}", f"-L{library}", f"-Wl,-rpath,{library}"]
    command = ["c++", CALLS, "-o", program, *options, "-ltwostream"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GuardError(f"{CALLS.name} does not compile: {done.stderr}")
    return program


def count(program: Path, isa: str, names: str = "") -> dict[str, int]:
    """Instructions of each call of the program whose name begins with `names`, with an instruction set."""
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        parts = Path(folder) / "part"
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=counted", "--dump-after=counted"]
        command += [f"--callgrind-out-file={parts}", str(program), names]
        environment = {**os.environ, "LD_BIND_NOW": "1", "TWOSTREAM_ISA": isa, "GLIBC_TUNABLES": TUNABLES}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise GuardError(f"{program.name} under callgrind: {done.stderr.strip().splitlines()[-1]}")
        found, *counted = done.stdout.splitlines()
        if found != isa:
            raise GuardError(f"callgrind has {found} here, and the record wants {isa}")
        return {name: _total(parts.with_suffix(f".{number}")) for number, name in enumerate(counted, 1)}


def _total(part: Path) -> int:
    (total,) = re.findall(r"^totals: (\d+)$", part.read_text(), re.MULTILINE)
    return int(total)


def fractions() -> dict[str, float]:
    """Fraction of the limit that each timed workload reaches: the least times of all processes."""
    context = multiprocessing.get_context("spawn")
    measured = []
    for _ in range(PROCESSES):
        with ProcessPoolExecutor(1, context) as pool:
            measured.append(pool.submit(times).result())
    return {name: min(each[name][1] for each in measured) / min(each[name][0] for each in measured) for name in TIMED}


def best_fractions(enough: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The best of several attempts, until they are enough."""
    reached = fractions()
    for _ in range(ATTEMPTS - 1):
        if enough(reached):
            break
        reached = {name: max(fraction, reached[name]) for name, fraction in fractions().items()}
    return reached


def times() -> dict[str, tuple[float, float]]:
    """The least seconds of this thread for each workload: ours, and its limit's."""
    torch.set_num_threads(1)
    device, found = torch.device("cpu"), {}
    for name, (operator, options) in TIMED.items():
        module = importlib.import_module(f"bench_{operator}")
        problem = module.problem(Setting(), **options)
        ours = next(each for each in module.WORKLOADS[0].implementations if each.name == OURS)
        calls = {OURS: ours.call(problem), "limit": limits.limit(problem, device)}
        least = {
            each: taken.minimum for each, taken in interleave(calls, device, ROUNDS, clock=time.thread_time).items()
        }
        found[name] = least[OURS], least["limit"]
    return found


def slower_counts(recorded: Counts, counts: Counts) -> list[str]:
    """A line for each workload that needs too many instructions, or is not in both."""
    lines = []
    for isa in recorded:
        before, now = recorded[isa], counts[isa]
        lines += [f"{name}, {isa}: is in the record alone" for name in before if name not in now]
        lines += [f"{name}, {isa}: is not in the record" for name in now if name not in before]
        lines += [
            f"{name}, {isa}: {now[name]:,} instructions, recorded are {before[name]:,} ({now[name] / before[name]:.2f})"
            for name in before
            if name in now and now[name] > MOST_INSTRUCTIONS * before[name]
        ]
    return lines


def slower_times(recorded: dict[str, float], reached: dict[str, float]) -> list[str]:
    """A line for each workload that reaches too little of the limit, or is not in both."""
    lines = [f"{name}: its time is in the record alone" for name in recorded if name not in reached]
    lines += [f"{name}: its time is not in the record" for name in reached if name not in recorded]
    lines += [
        f"{name}: {reached[name]:.3f} of the limit, recorded is {recorded[name]:.3f}"
        for name in recorded
        if name in reached and reached[name] < LEAST_FRACTION * recorded[name]
    ]
    return lines


def told(recorded: dict[str, Any], counts: Counts, reached: dict[str, float]) -> list[str]:
    """All figures beside those of the record, as Markdown."""
    lines = ["| workload | instructions / recorded, " + " | ".join(ISAS) + " |", "| --- |" + " ---: |" * len(ISAS)]
    for name in counts[ISAS[0]]:
        ratios = (counts[isa][name] / recorded["instructions"][isa].get(name, float("nan")) for isa in ISAS)
        lines.append(f"| {name} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |")
    lines += ["", "| workload | fraction of the limit | recorded |", "| --- | ---: | ---: |"]
    for name, fraction in reached.items():
        lines.append(f"| {name} | {fraction:.3f} | {recorded['fractions'].get(name, float('nan')):.3f} |")
    return lines


def write_record(path: Path, counts: Counts, reached: dict[str, float]) -> None:
    record = {
        **machine.facts(torch.device("cpu"), 1),
        "architecture": platform.machine(),
        "processor": machine.processor(),
        "compiler": compiler(Path(twostream_ext.get_library())),
        "processes": PROCESSES,
        "rounds": ROUNDS,
        "instructions": counts,
        "fractions": {name: round(fraction, 4) for name, fraction in reached.items()},
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def compiler(library: Path) -> str:
    """What compiled a library, as it says itself."""
    found = re.search(rb"GCC: \(([^\0]*)\0", library.read_bytes())
    return "unknown" if found is None else found[0].decode().rstrip("\0")


def _advice(recorded: dict[str, Any]) -> str:
    ours = compiler(Path(twostream_ext.get_library()))
    other = "" if ours == recorded["compiler"] else f" The record is of {recorded['compiler']}, this library of {ours}."
    return f"If they are meant, record anew and commit: python -m benchmarks --guard --record.{other}"
