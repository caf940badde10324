# SPDX-License-Identifier: BSD-3-Clause
"""The temporal net from scratch on UT-Interaction: every split, several seeds, and what the clips' sizes alone tell.

twostream extract UT-INTERACTION FLOW --method tvl1 --size 128
python benchmarks/ut_interaction.py UT-INTERACTION FLOW --work DIR [--seeds 0 1 2] [--splits 1 2 3]

Another flow (`--method tvl1-fast`, say) goes to a store, a DIR and an `--out` of its own; the record notes the method.
Nets are those of `twostream train temporal --recipe small`; each is kept in DIR, and the command given again goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from twostream_ext.data import UCFLists, VideoSet
from twostream_ext.engine import TrainSettings, evaluate, find_recipe, train
from twostream_ext.files import atomic_write
from twostream_ext.flow import FlowStore
from twostream_ext.models import TemporalNet, top1

RECIPE = find_recipe("small")
NUMBERS = RECIPE.numbers("temporal")


def trained_net(data: UCFLists, seed: int, iterations: int, folder: Path) -> TemporalNet:
    torch.manual_seed(seed)
    net = TemporalNet(
        len(data.classes),
        length=RECIPE.length,
        dropout=NUMBERS.dropout,
        width=RECIPE.width,
        input_size=RECIPE.input_size,
    )
    settings = TrainSettings(
        iterations=iterations,
        batch_size=NUMBERS.batch_size,
        learning_rate=NUMBERS.learning_rate,
        seed=seed,
        checkpoint_every=500,
    )
    train(net, data.train, settings=settings, out_dir=folder, workers=1)
    return net


def top1_of_clip_sizes(data: UCFLists) -> float:
    """Top-1 of a support vector machine that sees nothing but each clip's width, height and number of frames."""

    def sizes(videos: VideoSet) -> np.ndarray[Any, np.dtype[np.float64]]:
        clips = [videos.flow_store().peek(video.name) for video in videos.videos]
        return np.log([(*clip.size, clip.frame_count) for clip in clips])

    machine_of_sizes = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(sizes(data.train), data.train.labels.numpy())
    return float(machine_of_sizes.score(sizes(data.test), data.test.labels.numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description="The temporal net from scratch on UT-Interaction.")
    parser.add_argument("videos", type=Path, help="the data set, with its lists")
    parser.add_argument("flow", type=Path, help="its flow store, smallest side 128")
    parser.add_argument("--work", type=Path, required=True, help="directory for the nets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--splits", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--iterations", type=int, default=NUMBERS.iterations)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "ut_interaction_temporal.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    splits = []
    for split in options.splits:
        data = UCFLists(options.videos, options.videos, split=split, flow=options.flow)
        results = []
        for seed in options.seeds:
            began = time.perf_counter()
            net = trained_net(data, seed, options.iterations, options.work / f"split{split}" / f"seed{seed}")
            scores = evaluate(net, data.test, frames=RECIPE.frames, crops=RECIPE.crops, progress=False)
            results.append(round(top1(scores, data.test.labels), 4))
            print(f"split {split}, seed {seed}: {results[-1]:.4f}, {time.perf_counter() - began:.0f} s", flush=True)
        splits.append(
            {
                "split": split,
                "videos": {"train": len(data.train.videos), "test": len(data.test.videos)},
                "top1": {"mean": round(statistics.mean(results), 4), "each": results},
                "top1 of clip sizes alone": round(top1_of_clip_sizes(data), 4),
            }
        )
    store = FlowStore.open(options.flow)
    record: dict[str, Any] = machine.facts(torch.device("cpu"), options.threads)
    record["workload"] = {
        "net": f"temporal, CNN-M-2048 at {RECIPE.width} of its width, L={RECIPE.length}, crops of {RECIPE.input_size}",
        "training": f"from scratch, {options.iterations} batches of {NUMBERS.batch_size}, rate 1e-2",
        "test": f"{RECIPE.frames} stacks of {RECIPE.crops} crops a video",
        "flow": asdict(store.peek(next(iter(store))).settings),
    }
    record["seeds"] = options.seeds
    record["splits"] = splits
    record["mean top1"] = round(statistics.mean(part["top1"]["mean"] for part in splits), 4)
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    print(f"mean of the splits: {record['mean top1']:.4f}")


if __name__ == "__main__":
    main()
