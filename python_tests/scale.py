# SPDX-License-Identifier: BSD-3-Clause
"""Many videos: what memory and time the commands take for 1,250 to 10,000 of them, and a million names.

python scale.py FOLDER [--videos 1250 2500 5000 10000] [--names 1000000] [--out FILE]

FOLDER gets small videos, a few dozen different ones under as many names as wanted, and two files without content for
each of the million names: 2.1 million files in all, which are removed at the end. `extract`, `train` (with a net so
small that reading is most of it; as many samples as there are videos) and `evaluate` run in a process of their own for
each number of videos; lists, a store and a folder of videos are read with all names. Prints, and writes as JSON,

- seconds of processor time (of all processes of a command, so that others on the machine do not count), and
- the most memory that one of its processes had at any time,

and what follows: bytes that each further video takes, and how many times longer a video takes among many than among
few. Exits with 1 if that is more than `MOST_BYTES` or `MOST_TIMES`, or a million names take longer than `MOST_SECONDS`.
`benchmarks/scale_chart.py` draws the record.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from videos import encode_video, moving_frames

from twostream_ext import cli, engine
from twostream_ext.data import read_ucf_lists
from twostream_ext.extraction import extract
from twostream_ext.flow import FLOW_KIND, FlowSettings, FlowStore
from twostream_ext.media.directory import claim_directory

MOST_BYTES = 2000.0  # of a video: names in list and store, its file's identity, scores; one of its frames has 12,528
MOST_TIMES = 1.3  # longer for a video
MOST_SECONDS = {"lists": 10.0, "store": 5.0}  # for a million names
MILLION = 1_000_000

CLASSES = 50
DIFFERENT = 36
SIZE = (58, 72)
INPUT_SIZE = 57
BATCH_SIZE = 8  # a reader's heap then has all its holes before there are a thousand videos


class Cost(NamedTuple):
    seconds: float  # of processor time
    peak_bytes: int


def measure(work: Callable[[], object], words: Path) -> Cost:
    """Do it in a forked child, whose words go to a file; SystemExit with them if it fails."""
    child = os.fork()
    if child == 0:
        status = 1
        with words.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file
            try:
                work()
                status = 0
            except BaseException:
                traceback.print_exc(file=file)
        os._exit(status)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(words.read_text(errors="replace"))
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def command(*arguments: object) -> None:
    """Run a command of ours; SystemExit if it fails."""
    if status := cli.main([str(each) for each in arguments]):
        raise SystemExit(status)


def measure_videos(folder: Path, count: int) -> dict[str, Cost]:
    """The cost of each command with so many videos."""
    make_videos(folder, count)
    words, flow, run = folder / "words.txt", folder / "flow", folder / "run"
    model, scores = run / "model.safetensors", folder / "scores.safetensors"
    data = ["--videos", folder / "videos", "--lists", folder, "--flow", flow, "--device", "cpu"]
    tiny = ["--recipe", "small", "--iterations", max(1, count // BATCH_SIZE), "--batch-size", BATCH_SIZE]
    few = ["--part", "train", "--frames-per-video", 1, "--crops", 1]
    steps = {
        "extract": ["extract", folder / "videos", flow, "--method", "dis", "--size", "own", "--workers", 1],
        "train": ["train", "temporal", *data, "--out", run, *tiny, "--workers", 1],
        "evaluate": ["evaluate", *data, "--model", model, "--out", scores, *few],
    }
    costs = {}
    for name, arguments in steps.items():
        costs[name] = measure(lambda given=arguments: command(*given), words)  # type: ignore[misc]
        print(f"{count} videos, {name}: {costs[name].seconds:.1f} s, {costs[name].peak_bytes / 1e6:.1f} MB", flush=True)
    return costs


def make_videos(folder: Path, count: int) -> None:
    """So many names of a few dozen different videos, and lists in which all are for training."""
    sources = []
    for number in range(DIFFERENT):
        frames = moving_frames(3 + number % 4, size=SIZE, step=(number % 5 - 2, number % 3), seed=number)
        source = folder / "sources" / f"{number}.avi"
        sources.append(encode_video(source, frames, "mjpeg", pixels="yuvj420p"))
    write_lists(folder, list(video_names(count, CLASSES)), CLASSES)
    for number, name in enumerate(video_names(count, CLASSES)):
        path = folder / "videos" / f"{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(sources[number % DIFFERENT])


def video_names(count: int, classes: int) -> Iterator[str]:
    """Names as those of UCF-101, of all classes in turn."""
    for number in range(count):
        name = f"Class{number % classes:03d}"
        yield f"{name}/v_{name}_g{number // 100:05d}_c{number % 100:02d}"


def write_lists(folder: Path, names: Sequence[str], classes: int) -> None:
    (folder / "classInd.txt").write_text("".join(f"{n + 1} Class{n:03d}\n" for n in range(classes)))
    lines = (f"{name}.avi {number % classes + 1}\n" for number, name in enumerate(names))
    (folder / "trainlist01.txt").write_text("".join(lines))
    (folder / "testlist01.txt").write_text(f"{names[0]}.avi\n")


def measure_names(folder: Path, count: int) -> dict[str, Cost]:
    """The cost of reading lists, opening a store, and looking for the videos of a folder, with so many names."""
    make_names(folder, count)
    videos, store, words = folder / "videos", folder / "store", folder / "words.txt"
    works: dict[str, Callable[[], object]] = {
        "lists": lambda: read_ucf_lists(videos, folder),
        "store": lambda: FlowStore.open(store),
        # One video of all is extracted.
        "videos": lambda: extract(videos, folder / "flow", method="dis", smallest_side=None, shard=(1, count)),
    }
    costs = {}
    for name, work in works.items():
        costs[name] = measure(work, words)
        print(f"{count} names, {name}: {costs[name].seconds:.1f} s, {costs[name].peak_bytes / 1e6:.1f} MB", flush=True)
    return costs


def make_names(folder: Path, count: int) -> None:
    """A list, a store and a folder of so many videos, all files but one without content."""
    classes = 101
    names = list(video_names(count, classes))
    for number in range(classes):
        for kind in ("videos", "store"):
            (folder / kind / f"Class{number:03d}").mkdir(parents=True, exist_ok=True)
    write_lists(folder, names, classes)
    settings = FlowSettings("dis", smallest_side=None, codec="jpeg", quality=90, directions=("forward",))
    claim_directory(folder / "store", FLOW_KIND, settings)
    first = min(names)
    encode_video(folder / "videos" / f"{first}.avi", moving_frames(3, size=SIZE), "mjpeg", pixels="yuvj420p")
    for name in names:
        os.mknod(folder / "store" / f"{name}.safetensors")
        if name != first:
            os.mknod(folder / "videos" / f"{name}.avi")


def growth(counts: Sequence[int], costs: Sequence[Cost]) -> dict[str, float]:
    """Bytes of each further video, and the time of a video among the most in times of that among the fewest."""
    seconds = [cost.seconds / count for count, cost in zip(counts, costs, strict=True)]
    bytes_per_video = float(np.polyfit(counts, [cost.peak_bytes for cost in costs], 1)[0])
    return {"bytes_per_video": round(bytes_per_video, 1), "times_longer": round(seconds[-1] / seconds[0], 3)}


def _tiny(recipe: engine.Recipe) -> engine.Recipe:
    return replace(recipe, input_size=INPUT_SIZE, width=0.05, length=2)


def _import_all() -> None:
    """What the commands import when they are first run: once here, and not in each child."""
    import torch._dynamo
    import torch.utils.tensorboard

    assert torch.utils.tensorboard


def _facts() -> dict[str, Any]:
    """Date, commit, machine and versions, as all results have them."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    import machine

    facts: dict[str, Any] = machine.facts(torch.device("cpu"), 1)
    return facts


def _holds(videos: dict[str, dict[str, float]], names: dict[str, Cost], count: int) -> bool:
    flat = all(each["bytes_per_video"] <= MOST_BYTES for each in videos.values())
    linear = all(each["times_longer"] <= MOST_TIMES for each in videos.values())
    return flat and linear and all(names[name].seconds <= most * count / MILLION for name, most in MOST_SECONDS.items())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, nargs="+", default=[1250, 2500, 5000, 10000], help="how many, rising")
    parser.add_argument("--names", type=int, default=MILLION)
    parser.add_argument("--out", type=Path, help="write the record to this .json")
    options = parser.parse_args(arguments)
    _import_all()
    torch.set_num_threads(1)
    engine.RECIPES["small"] = _tiny(engine.RECIPES["small"])
    facts = _facts()
    folder = options.folder.absolute() / "scale"
    try:
        costs = [measure_videos(folder / str(count), count) for count in options.videos]
        names = measure_names(folder / "names", options.names)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    steps = {step: [each[step] for each in costs] for step in costs[0]}
    grown = {step: growth(options.videos, of_step) for step, of_step in steps.items()}
    for step, each in grown.items():
        print(f"{step}: {each['bytes_per_video']:.0f} bytes a video, {each['times_longer']:.2f} times longer")
    record = {
        **facts,
        "time": "seconds of processor time, of all processes of a command, on a machine that others used as well",
        "videos": options.videos,
        "commands": {step: [each._asdict() for each in of_step] for step, of_step in steps.items()},
        "growth": grown,
        "names": {"count": options.names, **{name: cost._asdict() for name, cost in names.items()}},
    }
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if _holds(grown, names, options.names) else 1


if __name__ == "__main__":
    sys.exit(main())
