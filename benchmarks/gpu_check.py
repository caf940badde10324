# SPDX-License-Identifier: BSD-3-Clause
"""Everything that needs a GPU, in one go: build, operator tests, compute-sanitizer, first timings.

    python benchmarks/gpu_check.py [OUT]

Run it from a checkout, with the Python that holds torch, pybind11, scikit-build-core and pytest. Nothing is fetched and
nothing is installed outside `build/gpu_check`. Results go to OUT (benchmarks/results) as one JSON file, written after
every step, so that a run cut short leaves what it had.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "gpu_check"
TESTS = ["flow_stack", "crop_frames", "mean_flow", "quantize_flow", "windows", "local_response_norm"]
KEPT_OUTPUT = 4000  # characters of each step

TIMING = """
import json, torch
from twostream_ext import ops

def milliseconds(call, repeat=50):
    for _ in range(5):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeat):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / repeat

N, L, H, W, size = 256, 10, 256, 340, 224
codes = torch.randint(0, 256, (N, L, H, W, 2), dtype=torch.uint8, device="cuda")
lo, step, mean = torch.rand(3, N, L, 2, device="cuda")
windows = ops.random_windows(torch.tensor([[H, W]], device="cuda").expand(N, 2), size, seed=0)
rows = {}
for dtype in (torch.float32, torch.bfloat16):
    out = torch.empty(N, 2 * L, size, size, dtype=dtype, device="cuda")
    time = milliseconds(lambda: ops.flow_stack(codes, windows, size, lo=lo, step=step, mean=mean, out=out))
    moved = out.numel() * (out.element_size() + 1)
    source, target = torch.empty(2, moved // 2, dtype=torch.uint8, device="cuda")
    copy = milliseconds(lambda: target.copy_(source))  # reads and writes `moved` bytes together
    rows[f"flow_stack uint8 -> {dtype}, N={N}, L={L}, {H}x{W} -> {size}"] = {
        "milliseconds": time, "bytes": moved, "GB/s": moved / time / 1e6, "fraction of a copy": copy / time,
    }
del codes
for last in (False, True):
    format = torch.channels_last if last else torch.contiguous_format
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(128, 96, 109, 109, device="cuda", dtype=dtype).to(memory_format=format)
        out = torch.empty_like(x)
        time, copy = milliseconds(lambda: ops.local_response_norm(x, out=out)), milliseconds(lambda: out.copy_(x))
        moved = 2 * x.numel() * x.element_size()
        rows[f"local_response_norm {dtype}, {tuple(x.shape)}, channels last: {last}"] = {
            "milliseconds": time, "bytes": moved, "GB/s": moved / time / 1e6, "fraction of a copy": copy / time,
        }
print(json.dumps(rows))
"""


def main(out: Path) -> int:
    environment = {**os.environ, "PYTHONPATH": str(SITE)}
    uncached = {**environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # or a slab hides what runs over
    python = [sys.executable]
    tests = [str(ROOT / "python_tests" / f"test_{name}.py") for name in TESTS]
    pytest = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cuda and not host", *tests]
    sanitizer = shutil.which("compute-sanitizer") or "compute-sanitizer"
    checked = [sanitizer, "--error-exitcode", "9", "--tool"]
    steps = {
        "build": (
            [
                *python,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-deps",
                "--no-build-isolation",
                "--upgrade",
                "--target",
                str(SITE),
                "-Ccmake.define.TWOSTREAM_CUDA=ON",
                str(ROOT),
            ],
            environment,
        ),
        "info": ([*python, "-m", "twostream_ext", "info"], environment),
        "tests": (pytest, environment),
        "memcheck": ([*checked, "memcheck", *pytest], uncached),
        "racecheck": ([*checked, "racecheck", *pytest], uncached),
        "initcheck": ([*checked, "initcheck", *pytest], uncached),
        "timing": ([*python, "-c", TIMING], environment),
    }
    now = dt.datetime.now(dt.timezone.utc)
    path = out / f"gpu_check_{now:%Y%m%d_%H%M%S}.json"
    result: dict[str, Any] = {"date": now.isoformat(), "commit": _commit(), "python": platform.python_version()}
    result["steps"] = {}
    for name, (command, variables) in steps.items():
        result["steps"][name] = _run(name, command, variables)
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        if name == "build" and result["steps"][name]["exit"] != 0:
            break
    print(path)
    return int(any(step["exit"] != 0 for step in result["steps"].values()))


def _run(name: str, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    started = time.perf_counter()
    SITE.mkdir(parents=True, exist_ok=True)
    try:
        # Not from the checkout itself: its twostream_ext holds no compiled module.
        done = subprocess.run(command, cwd=SITE, env=environment, capture_output=True, text=True, check=False)
        status, output = done.returncode, done.stdout + done.stderr
    except OSError as error:
        status, output = 127, str(error)
    seconds = round(time.perf_counter() - started, 1)
    print(f"{name}: exit {status}, {seconds} s", flush=True)
    if status != 0:
        print(output[-KEPT_OUTPUT:], flush=True)
    return {"exit": status, "seconds": seconds, "output": output[-KEPT_OUTPUT:]}


def _commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results"))
