# SPDX-License-Identifier: BSD-3-Clause
"""Short trainings on a made flow store, noting each sample that a net was given; the tests also run this file.

python training_runs.py FOLDER                 as a process of a group
python training_runs.py FOLDER kills SEED      killed over and over
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream_ext.data import Video, VideoSet, join_video_sets
from twostream_ext.engine import CHECKPOINT_FILE, TrainSettings, distributed, train, train_batches
from twostream_ext.engine.checkpoint import save_checkpoint
from twostream_ext.engine.streams import TemporalStream
from twostream_ext.engine.training_log import TrainingLog
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowStore, write_flow_clip
from twostream_ext.models import SpatialNet, TemporalNet, freeze_backbone
from twostream_ext.ops import QuantizedFlow

LENGTH = 2
SIDE = 57
SETTINGS = TrainSettings(iterations=5, batch_size=16, learning_rate=0.02, checkpoint_every=2, seed=0)
VIDEOS = [Video(f"{name}.avi", name, label) for label in range(3) for name in (f"c{label}/a", f"c{label}/b")]


def make_store(root: Path, *, backward: bool = False) -> Path:
    """Fields of two sizes whose codes, and so whose numbers, tell video and place; other ones backward."""
    noise = np.random.default_rng(0)
    for index, video in enumerate(VIDEOS):
        fields = make_fields(noise, index, video.label)
        others = make_fields(noise, index, video.label) if backward else None
        write_flow_clip(root / f"{video.name}.safetensors", forward=fields, backward=others, codec="raw")
    return root


def make_fields(noise: np.random.Generator, index: int, label: int) -> list[QuantizedFlow]:
    size = (60, 64 + 3 * (index % 2))
    fields = []
    for number in range(7):
        codes = noise.integers(0, 256, (*size, 2), dtype=np.uint8)
        codes[..., label % 2] //= 2 + label
        lo = np.array([-2.0 - 0.1 * number, -1.0 - index], np.float32)
        step = np.array([0.02, 0.02], np.float32)
        fields.append(QuantizedFlow(codes, lo, step, lo + step * codes.mean((0, 1), dtype=np.float32)))  # type: ignore[arg-type]
    return fields


def make_lists(root: Path) -> None:
    """The lists of `VIDEOS`, and empty files in their place."""
    lines = []
    for video in VIDEOS:
        (root / video.path).parent.mkdir(exist_ok=True)
        (root / video.path).touch()
        lines.append(f"{video.path} {video.label + 1}\n")
    (root / "classInd.txt").write_text("".join(f"{n + 1} c{n}\n" for n in range(3)))
    (root / "trainlist01.txt").write_text("".join(lines))
    (root / "testlist01.txt").write_text(lines[0])


def make_folder(root: Path) -> Path:
    """The store in root/flow, and the lists: what the commands read, see `sources`."""
    make_store(root / "flow")
    make_lists(root)
    return root


def sources(folder: Path) -> list[str]:
    """The options of a command that reads videos, lists and flow of one folder."""
    return ["--videos", str(folder), "--lists", str(folder), "--flow", str(folder / "flow")]


def video_set(store: Path) -> VideoSet:
    return VideoSet(VIDEOS, flow=FlowStore.open(store))


def two_sets(store: Path) -> VideoSet:
    """A small data set of one class beside one of three: many shares of a batch have no video of it."""
    small = VideoSet(VIDEOS[:1], flow=FlowStore.open(store))
    return join_video_sets({"small": small, "large": video_set(store)}, {"small": 1, "large": 3})


def new_net(classes: int | dict[str, int] = 3, dropout: float = 0.0) -> TemporalNet:
    torch.manual_seed(5)
    return TemporalNet(classes, length=LENGTH, width=0.05, input_size=SIDE, dropout=dropout)


def noted_run(net: TemporalNet, videos: VideoSet, out: Path, **options: Any) -> list[list[float]]:
    """Train; give of each sample its number, label, coding and the sum of what the net saw of it."""
    inner = TemporalStream.training_input
    noted: list[list[float]] = []

    def noting(stream: TemporalStream, item: Any, *, offset: int, **more: Any) -> Any:
        inputs, labels = inner(stream, item, offset=offset, **more)
        lo, sums = item[0].lo, inputs.double().sum((1, 2, 3))
        noted.extend([offset + n, int(labels[n]), *lo[n, 0].tolist(), sums[n].item()] for n in range(len(labels)))
        return inputs, labels

    TemporalStream.training_input = noting  # type: ignore[method-assign]
    try:
        train(net, videos, settings=SETTINGS, out_dir=out, workers=0, progress=False, **options)
    finally:
        TemporalStream.training_input = inner  # type: ignore[method-assign]
    return noted


def main(folder: Path) -> None:
    """In every process: one data set, two with a head each, and two in pieces; weights and samples into files."""
    store = folder / "store"
    with distributed.process_group(torch.device("cpu")):
        runs = {
            "one": (new_net(), video_set(store), 1),
            "two": (new_net({"small": 1, "large": 3}), two_sets(store), 1),
            "pieces": (new_net({"small": 1, "large": 3}), two_sets(store), 4),
        }
        for name, (net, videos, accumulate) in runs.items():
            out = folder / f"{name}{distributed.ranks()}"
            noted = noted_run(net, videos, out, accumulate=accumulate)
            (folder / f"{name}{distributed.ranks()}.{distributed.rank()}.json").write_text(json.dumps(noted))
            torch.save(net.state_dict(), folder / f"{name}{distributed.ranks()}.{distributed.rank()}.pt")
        if distributed.ranks() > 1:
            (folder / f"disagreements.{distributed.rank()}.json").write_text(json.dumps(disagreements(folder)))
            torch.save(go_on_with_mean_image(folder).state_dict(), folder / f"mean.{distributed.rank()}.pt")


@contextmanager
def sigterm_after(iterations: int) -> Iterator[None]:
    """Send this process SIGTERM when training has done so many."""
    inner = TrainingLog.tick
    left = iter(range(iterations - 1, -1, -1))

    def tick(self: TrainingLog, seconds: float) -> None:
        inner(self, seconds)
        if next(left, None) == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    TrainingLog.tick = tick  # type: ignore[method-assign]
    try:
        yield
    finally:
        TrainingLog.tick = inner  # type: ignore[method-assign]


def disagreements(folder: Path) -> list[str]:
    """What is said where the processes were given different learning rates, layers to train, and lists."""
    second = distributed.rank() == 1
    same, last_layer, videos = new_net(), new_net(), video_set(folder / "store")
    if second:
        freeze_backbone(last_layer)
    settings = replace(SETTINGS, learning_rate=0.02 if second else 0.01)
    said = []
    for net, listed, given in (
        (same, videos, settings),
        (last_layer, videos, SETTINGS),
        (same, videos._replace(videos=VIDEOS[:5]) if second else videos, SETTINGS),
    ):
        try:
            train(net, listed, settings=given, out_dir=folder / "none", workers=0)
        except SettingsError as error:
            said.append(str(error))
    return said


def go_on_with_mean_image(folder: Path) -> SpatialNet:
    """Go on from a checkpoint of a net with a mean image, as pretrained ones have; only the first process sees it."""
    out = folder / f"mean{distributed.rank()}"
    if distributed.rank() == 0:
        begun = SpatialNet(3, width=0.05, input_size=SIDE, dropout=0.0)
        begun.backbone.mean_image = torch.full((3, SIDE, SIDE), 0.5)
        save_checkpoint(out / CHECKPOINT_FILE, begun, torch.optim.SGD(begun.parameters()), SETTINGS, 3)

    def batches(start: int) -> Iterator[int]:
        return iter(range(start, SETTINGS.iterations))

    def prepare(iteration: int, *, seed: int, offset: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed + offset)
        share = SETTINGS.batch_size // distributed.ranks()
        return torch.randn(share, 3, SIDE, SIDE, generator=generator), torch.arange(share) % 3

    net = SpatialNet(3, width=0.05, input_size=SIDE, dropout=0.0)
    train_batches(net, batches, prepare=prepare, settings=SETTINGS, out_dir=out, progress=False)
    return net


def train_in_child(folder: Path, out: Path) -> int:
    """Begin or go on with a run that takes some seconds, in a process of its own."""
    child = os.fork()
    if child == 0:
        settings = replace(SETTINGS, iterations=150, checkpoint_every=7)
        train(new_net(dropout=0.5), video_set(folder / "store"), settings=settings, out_dir=out, workers=1)
        os._exit(0)
    return child


def kill_ten_times(folder: Path, seed: int) -> None:
    """Runs `whole`, and `killed0`, `killed1`, ...: a new one whenever one ended before ten were killed."""
    import torch._dynamo  # the slow parts of training, so that a child need not import them
    import torch.utils.tensorboard  # noqa: F401

    began = time.perf_counter()
    assert os.waitpid(train_in_child(folder, folder / "whole"), 0)[1] == 0
    whole = time.perf_counter() - began
    moments = random.Random(seed)
    run, kills = 0, []
    while len(kills) < 10:
        child = train_in_child(folder, folder / f"killed{run}")
        delay = moments.uniform(0, 0.4 * whole)
        time.sleep(delay)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            run += 1
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        log = folder / f"killed{run}" / "log.csv"
        kills.append([delay, log.read_text().count("\n") - 1 if log.exists() else 0])
    assert os.waitpid(train_in_child(folder, folder / f"killed{run}"), 0)[1] == 0
    (folder / "kills.json").write_text(json.dumps(kills))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2:3] == ["kills"]:
        kill_ten_times(Path(sys.argv[1]), int(sys.argv[3]))
    else:
        main(Path(sys.argv[1]))
