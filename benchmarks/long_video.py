# SPDX-License-Identifier: BSD-3-Clause
"""`twostream predict` of a long video through the sliding window and through a pipe: answers, memory, frames/s.

    python benchmarks/long_video.py [--minutes 60] [--rate 10] [--window 4] [--stride 2] [--flow dis]

generates the video (96x72, 10 frames per second) and a run with small nets, lets the command answer it as a file and as
raw frames on its standard input, each in a process of its own whose resident memory is sampled, compares the files of
answers byte for byte, and records `benchmarks/results/long_video.json`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import machine
import torch

from twostream_ext.files import atomic_write

RESULT = machine.ROOT / "benchmarks" / "results" / "long_video.json"
sys.path.insert(0, str(machine.ROOT / "python_tests"))

from long_videos import SIZE, Measured, make_model, make_video, predict_file, predict_pipe  # noqa: E402
from made_runs import RECIPE  # noqa: E402

_TENTHS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=10, help="frames per second of the video")
    parser.add_argument("--window", default="4", help="seconds")
    parser.add_argument("--stride", default="2", help="seconds")
    parser.add_argument("--flow", default="dis", help="method")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    record: dict[str, Any] = machine.facts(torch.device("cpu"), torch.get_num_threads())
    record["load_average_before"] = [round(each, 2) for each in os.getloadavg()]
    recipe = replace(RECIPE, flow_method=options.flow)
    frames = round(60 * options.rate * options.minutes)
    record["workload"] = (
        f"{options.minutes:g} minutes, {frames} frames of {SIZE[1]}x{SIZE[0]} (H.264), {options.rate} a second; "
        f"windows of {options.window} s every {options.stride} s; {options.flow} flow; nets of {recipe.input_size}x"
        f"{recipe.input_size} and width {recipe.width:g}, {recipe.frames} frames x {recipe.crops} crops of a window; "
        "the pipe in yuv420p"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "run", recipe)
        make_video(folder / "video.mp4", frames, fps=options.rate)
        windows = ["--window", options.window, "--stride", options.stride]
        answers = {way: folder / f"{way}.csv" for way in ("file", "pipe")}
        piped = partial(predict_pipe, fps=options.rate)
        for way, predict in (("file", predict_file), ("pipe", piped)):
            measured = predict(folder / "video.mp4", folder / "run", answers[way], windows, every=1.0)
            record[way] = described(measured)
            print(way, record[way], flush=True)
        texts = {way: path.read_bytes() for way, path in answers.items()}
        with answers["file"].open(newline="") as file:
            rows = list(csv.DictReader(file))
    record["windows"] = len(rows)
    record["different"] = {name: len({row[name] for row in rows}) for name in ("class", "spatial", "temporal")}
    record["same_answers"] = texts["file"] == texts["pipe"]
    record["load_average_after"] = [round(each, 2) for each in os.getloadavg()]
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def described(measured: Measured) -> dict[str, Any]:
    """Speed, and the median memory of each tenth of the time."""
    samples = measured.megabytes
    edges = [len(samples) * place // _TENTHS for place in range(_TENTHS + 1)]
    tenths = [samples[first:last] for first, last in itertools.pairwise(edges) if last > first]
    return {
        "frames": measured.frames,
        "frames_per_second": measured.frames_per_second,
        "seconds": round(measured.seconds, 1),
        "processor_ms_per_frame": round(1e3 * measured.processor_seconds / measured.frames, 3),
        "resident_megabytes_of_each_tenth": [round(statistics.median(each), 1) for each in tenths],
        "most_resident_megabytes": round(max(samples), 1),
        "samples": len(samples),
    }


if __name__ == "__main__":
    main()
