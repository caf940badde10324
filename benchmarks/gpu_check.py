# SPDX-License-Identifier: BSD-3-Clause
"""Everything that needs a GPU, in one go: build, operator tests, compute-sanitizer, the table of kernels.

    python benchmarks/gpu_check.py [OUT]

Run it from a checkout, with the Python that holds torch, pybind11, scikit-build-core and pytest. Nothing is fetched and
nothing is installed outside `build/gpu_check`. It stays under eight minutes: each step has a share of the time that is
left, and one that runs out of it is ended and recorded so. Results go to OUT (benchmarks/results): one JSON file,
written after every step, so that a run cut short leaves what it had, and beside it tvl1_flow_cuda.json and
kernels_cuda.json (and, since compiling takes long, with_compile/kernels_cuda.json for the operators that torch.compile
can rival).
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine

ROOT = machine.ROOT
SITE = ROOT / "build" / "gpu_check"
TESTS = [
    "flow_stack",
    "trajectory_stack",
    "crop_frames",
    "mean_flow",
    "camera_motion",
    "quantize_flow",
    "local_response_norm",
    "gradients",
    "flow_batch",
    "memory_bounds",
    "non_finite",
    "large_shapes",
    "windows",
    "tvl1_flow",
    "tvl1_flow_cuda",
]
TOTAL = 470  # seconds
KEPT_OUTPUT = 4000  # characters of each step
TIMED_OUT = 124


@dataclass(frozen=True)
class Step:
    name: str
    command: list[str]
    share: int
    """Of the time left, in proportion to the shares of the steps still to come; roughly seconds."""
    variables: dict[str, str]


def steps(out: Path) -> list[Step]:
    environment = {**os.environ, "PYTHONPATH": str(SITE)}
    uncached = {**environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # or a slab hides what runs over
    python = sys.executable
    target = [*("--no-deps", "--no-build-isolation", "--upgrade", "--target"), str(SITE)]
    options = ["-Ccmake.define.TWOSTREAM_CUDA=ON", "-Ccmake.define.CMAKE_CUDA_ARCHITECTURES=native"]
    build = [python, "-m", "pip", "install", "-q", *target, *options, str(ROOT)]
    files = [str(path) for name in TESTS if (path := ROOT / "python_tests" / f"test_{name}.py").exists()]
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cuda and not host", *files]
    checked = [shutil.which("compute-sanitizer") or "compute-sanitizer", "--error-exitcode", "9", "--tool"]
    few = ["--hypothesis-profile", "few"]
    flow = [python, str(ROOT / "benchmarks" / "bench_tvl1_flow.py")]
    table = [python, str(ROOT / "benchmarks" / "table.py"), "--device", "cuda", "--rounds", "10"]
    compiled = [*table, "--operators", "flow_stack", "trajectory_stack", "crop_frames", "local_response_norm"]
    return [
        Step("build", build, 150, environment),
        Step("info", [python, "-m", "twostream_ext", "info"], 15, environment),
        Step("tests", pytest, 70, environment),
        Step("memcheck", [*checked, "memcheck", *pytest, *few], 45, uncached),
        Step("racecheck", [*checked, "racecheck", *pytest, *few], 35, uncached),
        Step("initcheck", [*checked, "initcheck", *pytest, *few], 35, uncached),
        Step("synccheck", [*checked, "synccheck", *pytest, *few], 35, uncached),
        Step("tvl1_flow", [*flow, "--device", "cuda", "--out", str(out)], 45, environment),
        Step("table", [*table, "--out", str(out), "--without", "torch.compile"], 70, environment),
        Step("table with torch.compile", [*compiled, "--out", str(out / "with_compile")], 60, environment),
    ]


def main(out: Path) -> int:
    now = dt.datetime.now(dt.timezone.utc)
    path = out / f"gpu_check_{now:%Y%m%d_%H%M%S}.json"
    out.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    result = {"date": now.isoformat(), "commit": machine.commit(), "python": platform.python_version(), "steps": done}
    deadline = time.monotonic() + TOTAL
    coming = steps(out)
    while coming:
        shares = sum(step.share for step in coming)
        step = coming.pop(0)
        done[step.name] = run(step, (deadline - time.monotonic()) * step.share / shares)
        path.write_text(json.dumps(result, indent=1) + "\n")
        if step.name == "build" and done["build"]["exit"] != 0:
            break
    print(path)
    return int(any(each["exit"] != 0 for each in done.values()))


def run(step: Step, seconds: float) -> dict[str, Any]:
    """Run a step in a process group of its own, and end the whole group when the time is up."""
    SITE.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    try:
        # Not from the checkout itself: its twostream_ext holds no compiled module.
        process = subprocess.Popen(
            step.command,
            cwd=SITE,
            env=step.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        status, output = 127, str(error)
    else:
        try:
            output, _ = process.communicate(timeout=seconds)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = TIMED_OUT
    taken = round(time.perf_counter() - started, 1)
    print(f"{step.name}: exit {status}, {taken} s of {seconds:.0f}", flush=True)
    if status != 0:
        print(output[-KEPT_OUTPUT:], flush=True)
    return {"exit": status, "timed_out": status == TIMED_OUT, "seconds": taken, "output": output[-KEPT_OUTPUT:]}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "benchmarks" / "results"))
