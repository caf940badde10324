# SPDX-License-Identifier: BSD-3-Clause
"""camera_motion: a robust affine map of each whole field. Bytes: the fields once. Limit: the fields read four times, as
a robust fit has at least a pass for a start, two to find what moves on its own, and one over what is left.

    python benchmarks/bench_camera_motion.py [--scenes 50] [--quick] [--out DIR]

measures how far from still the background of random scenes is once the map is subtracted, for each share of the area
that moves on its own, beside OpenCV's estimateAffine2D (RANSAC) and plain least squares, and writes
OUT/camera_motion.json. Run by pytest or table.py it times, as the other benchmarks do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import machine
import numpy as np
import numpy.typing as npt
import torch
from workloads import (
    OURS,
    Call,
    Implementation,
    Move,
    Problem,
    Setting,
    Workload,
    codes_of,
    describe,
    interleaved,
    nbytes,
)

sys.path.insert(0, str(machine.ROOT / "python_tests"))

from camera_scenes import background_error, camera_scene

from twostream_ext import ops

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
THRESHOLD = 0.5  # pixels; of 0.25 to 3, RANSAC's default, the one with the smallest errors


def problem(setting: Setting, count: int = 2, codes: bool = False, planar: bool = False) -> Problem:
    """Scenes [N, L, H, W, 2], a third of each of which moves on its own, in float32 or in codes."""
    sizes, device = setting.sizes(count), setting.device
    size = (sizes.height, sizes.width)
    scenes = [camera_scene(seed, 0.3, size) for seed in range(sizes.distinct * sizes.length)]
    flow = torch.from_numpy(np.stack([field for field, _, _ in scenes])).float().movedim(-1, 1)
    flow = flow.reshape(sizes.distinct, sizes.length, 2, *size)
    lo = step = None
    if codes:
        flow, lo, step, _ = codes_of(flow)
    whole = sizes.spread(flow, device)
    fields = whole.permute(0, 1, 3, 4, 2) if planar else interleaved(whole)
    inputs = SimpleNamespace(flow=fields)
    inputs.lo, inputs.step = (None if each is None else sizes.spread(each, device) for each in (lo, step))
    inputs.out = torch.empty(*fields.shape[:2], 2, 3, device=device)

    def reference() -> torch.Tensor:
        maps = torch.from_numpy(np.stack([camera for _, camera, _ in scenes])).float()
        return maps.reshape(sizes.distinct, sizes.length, 2, 3)

    return Problem(
        inputs,
        reference,
        [0.5 if setting.quick else 0.1],
        describe(fields, inputs.out),
        nbytes(fields),
        nbytes(inputs.out),
        "fields read once, maps written once",
        (Move("read", 4 * nbytes(fields)),),
    )


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.camera_motion(i.flow, lo=i.lo, step=i.step, out=i.out)


def _opencv(problem: Problem) -> Call:
    i = problem.inputs

    def run() -> torch.Tensor:
        fields = i.flow if i.lo is None else ops.dequantize_flow(i.flow, i.lo, i.step)
        return torch.tensor(np.stack([[ransac(field) for field in sample] for sample in fields.numpy()]))

    return run


IMPLEMENTATIONS = (
    Implementation(OURS, _ours),
    Implementation("OpenCV RANSAC", _opencv, needs="cv2", devices=("cpu",), tolerance=0.5),
)


def _workload(name: str, devices: tuple[str, ...] = ("cpu", "cuda"), **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), IMPLEMENTATIONS, devices)


WORKLOADS = [
    _workload("float32"),
    _workload("interleaved codes", codes=True),
    _workload("planar codes", codes=True, planar=True),
    _workload("256 samples, planar codes", ("cuda",), count=256, codes=True, planar=True),
]


def test_camera_motion(measure: Callable[[], None]) -> None:
    measure()


# ---- how right it is -----------------------------------------------------------------------------------------------


def ransac(field: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The map [2, 3] that OpenCV finds for a field [H, W, 2]."""
    import cv2

    height, width = field.shape[:2]
    y, x = np.mgrid[:height, :width]
    places = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
    moved = places + field.reshape(-1, 2).astype(np.float32)
    found, _ = cv2.estimateAffine2D(places, moved, method=cv2.RANSAC, ransacReprojThreshold=THRESHOLD)
    return np.asarray(found - np.eye(2, 3))


def fitted(iterations: int) -> Callable[[npt.NDArray[np.floating]], npt.NDArray[np.float32]]:
    return lambda field: ops.camera_motion(torch.from_numpy(field)[None, None], iterations=iterations)[0, 0].numpy()


METHODS: dict[str, Callable[[npt.NDArray[np.floating]], npt.NDArray[np.floating]]] = {
    OURS: fitted(8),
    "OpenCV RANSAC": ransac,
}


def accuracy(scenes: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Mean and worst error of the background, and the least processor time of one field, for each share and method."""
    rows = []
    for share in SHARES:
        drawn = [camera_scene(seed, share, size) for seed in range(1000, 1000 + scenes)]
        for name, method in METHODS.items():
            print(f"accuracy: {share:.0%}, {name}", file=sys.stderr, flush=True)
            errors, seconds = [], []
            for scene in drawn:
                field = scene[0].astype(np.float32)
                began = time.process_time()
                found = method(field)
                seconds.append(time.process_time() - began)
                errors.append(background_error(found, scene))
            rows.append(
                {
                    "share": share,
                    "method": name,
                    "mean_error": float(np.mean(errors)),
                    "worst_error": float(np.max(errors)),
                    "least_ms": 1e3 * min(seconds),
                }
            )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| moves on its own | method | mean error | worst | processor time |", "|---:|---|---:|---:|---:|"]
    for row in rows:
        words = f"{row['mean_error']:.4f} px | {row['worst_error']:.3f} px | {row['least_ms']:.2f} ms"
        lines.append(f"| {row['share']:.0%} | {row['method']} | {words} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=50, help="for each share")
    parser.add_argument("--quick", action="store_true", help="two small scenes: only to see that it works")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    record = machine.facts(torch.device("cpu"), 1)
    size = (64, 85) if options.quick else (256, 340)
    record["size"] = {"height": size[0], "width": size[1]}
    record["scenes"] = 2 if options.quick else options.scenes
    record["accuracy"] = accuracy(record["scenes"], size)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "camera_motion.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{markdown(record['accuracy'])}\n\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
