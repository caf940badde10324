# SPDX-License-Identifier: BSD-3-Clause
"""How much of the net's speed is left when its batches come from a flow store on disk.

python benchmarks/training.py [--data DIR] [--store DIR] [--widths 0.25 0.5] [--workers 2] [--threads 2] [--rounds 5]

Trains the temporal net of the recipe "small" from the store, and the same net on one batch repeated in memory, ready
for the net; in turns, so that whatever else the machine does meets both alike. Compares the time of an iteration once
the readers have no more head start. The processor time of an iteration, of the training process and of the readers,
does not depend on others on the machine, and says what is left where the net takes all processors:
memory / (store + readers).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine
import torch

from twostream_ext.data import FlowStacks, UCFLists, generate_videos, read_batches
from twostream_ext.engine import RECIPES, TrainSettings, find_stream, train_batches
from twostream_ext.engine.feed import Batch
from twostream_ext.engine.training_log import LOG_FILE
from twostream_ext.extraction import extract
from twostream_ext.files import atomic_write
from twostream_ext.flow import FlowStore
from twostream_ext.models import TemporalNet
from twostream_ext.ops import FlowBatch

RECIPE = RECIPES["small"]
BATCH = RECIPE.numbers("temporal").batch_size
SKIPPED = 8  # iterations: the readers began before the first, and are some batches ahead
COUNTED = 20


class Clock:
    """Notes wall and processor seconds of this process whenever a batch is made ready."""

    def __init__(self, prepare: Callable[..., Batch]) -> None:
        self._prepare = prepare
        self.moments: list[tuple[float, float]] = []

    def __call__(self, item: Any, *, seed: int, offset: int) -> Batch:
        self.moments.append((time.perf_counter(), time.process_time()))
        return self._prepare(item, seed=seed, offset=offset)

    def seconds(self) -> tuple[float, float]:
        """Of the iterations counted."""
        first, last = self.moments[SKIPPED], self.moments[SKIPPED + COUNTED]
        return last[0] - first[0], last[1] - first[1]


def measured(data: UCFLists, folder: Path, width: float, workers: int, rounds: int) -> dict[str, Any]:
    """Speed from the store and from memory, each round's ratio, and where the processors' time went."""
    settings = TrainSettings(iterations=SKIPPED + COUNTED + 1, batch_size=BATCH, checkpoint_every=1000)
    net = TemporalNet(len(data.classes), length=RECIPE.length, width=width, input_size=RECIPE.input_size, dropout=0.5)
    prepare = partial(find_stream("temporal").training_input, settings=net.settings)

    def from_store(start: int, workers: int = workers) -> Iterator[tuple[FlowBatch, torch.Tensor]]:
        return read_batches(
            data.train.flow_store(),
            data.train.videos,
            FlowStacks(RECIPE.length),
            batch_size=BATCH,
            iterations=settings.iterations,
            start_iteration=start,
            seed=0,
            workers=workers,
        )

    ready = prepare(next(from_store(0, workers=0)), seed=0, offset=0)
    runs: dict[str, Any] = {
        "store": (from_store, prepare),
        "memory": (lambda start: itertools.repeat(ready), lambda item, **_: item),
    }
    wall: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in (*runs, "readers")}
    waiting = []
    for _ in range(rounds):
        for name, (batches, make_ready) in runs.items():
            clock, out = Clock(make_ready), folder / name
            before = _children_seconds()
            train_batches(net, batches, prepare=clock, settings=settings, out_dir=out, resume=False, progress=False)
            for noted, seconds in zip((wall, processor), clock.seconds(), strict=True):
                noted[name].append(seconds / COUNTED)
            if name == "store":
                processor["readers"].append((_children_seconds() - before) / settings.iterations)
                waiting.append(_waiting(out))
    ratios = [memory / store for store, memory in zip(wall["store"], wall["memory"], strict=True)]
    result = {
        "width": width,
        "workers": workers,
        "samples_per_second": {name: round(BATCH / min(taken), 1) for name, taken in wall.items()},
        "store_over_memory": {"median": round(statistics.median(ratios), 3), "each": [round(r, 3) for r in ratios]},
        "waiting": round(statistics.median(waiting), 3),
        "processor_ms_per_iteration": {name: round(1e3 * min(taken), 1) for name, taken in processor.items()},
    }
    print(result, flush=True)
    return result


def _children_seconds() -> float:
    """Processor time of the readers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _waiting(out: Path) -> float:
    with (out / LOG_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))[SKIPPED:]
    return sum(float(row["seconds_waiting"]) for row in rows) / sum(float(row["seconds"]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training from a flow store against training from memory.")
    parser.add_argument("--data", type=Path, help="videos with lists as UCF-101's in the same directory")
    parser.add_argument("--store", type=Path, help="flow store of them; made, and thrown away, if not given")
    parser.add_argument("--widths", type=float, nargs="+", default=[RECIPE.width, 2 * RECIPE.width])
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the net")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "training.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as name:
        folder = Path(name)
        videos = options.data or folder / "videos"
        if options.data is None:
            generate_videos(videos, train_per_class=4, test_per_class=1, size=(128, 170))
        store = options.store or folder / "flow"
        extract(videos, store, method=RECIPE.flow_method, smallest_side=RECIPE.smallest_side)
        data = UCFLists(videos, videos, flow=store)
        record: dict[str, Any] = machine.facts(torch.device("cpu"), torch.get_num_threads())
        record["workload"] = (
            f"temporal net, {RECIPE.input_size}x{RECIPE.input_size}, L={RECIPE.length}, batch {BATCH}; fields of "
            f"smallest side {RECIPE.smallest_side}, {store_codec(store)}, {len(data.train.videos)} videos of "
            f"{options.data.name if options.data else 'generated videos'}"
        )
        record["runs"] = [
            measured(data, folder, width, workers, options.rounds)
            for width in options.widths
            for workers in options.workers
        ]
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def store_codec(store: Path) -> str:
    settings = FlowStore.open(store).settings
    return settings.codec if settings.quality is None else f"{settings.codec} of quality {settings.quality}"


if __name__ == "__main__":
    main()
