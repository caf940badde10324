# SPDX-License-Identifier: BSD-3-Clause
"""From a folder of videos to a two-stream result, in steps that are done once and kept.

What a run leaves in its directory: `run.json` (its settings), `flow/` and `frames/` (stores), `spatial/` and
`temporal/` (checkpoint, log, `model.safetensors`), `scores/`, `fusion/svm.safetensors`, `summary.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twostream_ext import flow
from twostream_ext.data import FrameStore, Split, Video, flow_batches, frame_batches, read_ucf_lists
from twostream_ext.engine.checkpoint import load_model, save_model
from twostream_ext.engine.evaluate import evaluate
from twostream_ext.engine.inputs import flow_input, frame_input
from twostream_ext.engine.recipes import Recipe, StreamRecipe
from twostream_ext.engine.scores import load_scores, save_scores
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.engine.train import train
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.files import atomic_write
from twostream_ext.flow import FlowStore
from twostream_ext.flow.directory import compare_settings
from twostream_ext.models import SpatialNet, StreamNet, SVMFusion, TemporalNet, fuse_average, top1

STREAMS = ("spatial", "temporal")
PARTS = ("train", "test")

RUN_FILE = "run.json"
SUMMARY_FILE = "summary.json"
MODEL_FILE = "model.safetensors"
SVM_FILE = "fusion/svm.safetensors"

Say = Callable[[str], None]


class Stores(NamedTuple):
    """What the nets read; the spatial one frames, the temporal one flow."""

    spatial: FrameStore
    temporal: FlowStore


def run_pipeline(
    videos: str | os.PathLike[str],
    lists: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: Recipe,
    split: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 2,
    say: Say = print,
) -> dict[str, Any]:
    """Extract flow, train both nets, score all videos, fuse; return what `summary.json` holds.

    Each step leaves its result in `out`, and a step whose result is there is not done again: a run that was broken off
    goes on where it was (in training, at the last checkpoint), and a run that is whole returns at once.

    Args:
        videos: directory with `<Class>/<video>` files.
        lists: directory with `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`, as UCF-101's.
        out: directory of the run.
        recipe: the numbers; see `RECIPES`.
        split: N of the lists.
        seed: decides every random draw; a run with the same settings gives the same result on the same machine.
        workers: processes that read training batches ahead.
        say: gets a line when a step begins or ends.

    Raises:
        TwoStreamError: one line that says what is wrong with the videos, the lists, the settings or the disk.
    """
    root = Path(out)
    lists_split = read_ucf_lists(Path(videos), Path(lists), split)
    if len(lists_split.classes) < 2:
        raise SettingsError(f"{lists}: a classifier needs at least 2 classes, got {lists_split.classes}")
    _claim(root, videos, lists, split, seed, recipe)
    if (root / SUMMARY_FILE).exists():
        return read_summary(root)
    with _step("flow and frames", say):
        stores = _extract(Path(videos), root, lists_split, recipe)
    _check_clips(stores, lists_split, recipe)
    scores = {}
    for stream in STREAMS:
        with _step(f"{stream} net, training", say):
            net = _train(root, stream, stores, lists_split, recipe, seed, torch.device(device), workers)
        with _step(f"{stream} net, scores of all videos", say):
            scores[stream] = _score(root, stream, net, stores, lists_split, recipe)
    summary = _summarise(root, lists_split, scores, split, seed, recipe)
    with atomic_write(root / SUMMARY_FILE) as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def read_run(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a run; CheckpointError if `out` holds none."""
    return _read_json(Path(out), RUN_FILE, "no run")


def read_summary(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the result of a finished run; CheckpointError if `out` holds none."""
    return _read_json(Path(out), SUMMARY_FILE, "no finished run")


def _read_json(root: Path, name: str, lack: str) -> dict[str, Any]:
    path = root / name
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{root}: holds {lack} (there is no {name} in it)") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return content


def _claim(
    root: Path,
    videos: str | os.PathLike[str],
    lists: str | os.PathLike[str],
    split: int,
    seed: int,
    recipe: Recipe,
) -> None:
    """Note the run's settings in its directory, or check that they are those noted."""
    settings = {
        "videos": str(Path(videos).resolve()),
        "lists": str(Path(lists).resolve()),
        "split": split,
        "seed": seed,
        **asdict(recipe),
    }
    path = root / RUN_FILE
    if path.exists():
        compare_settings(root, read_run(root), settings)
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n")


def _extract(videos: Path, root: Path, split: Split, recipe: Recipe) -> Stores:
    flow.extract(
        videos,
        root / "flow",
        method=recipe.flow_method,
        smallest_side=recipe.smallest_side,
        quality=recipe.jpeg_quality,
        names=[video.path for video in (*split.train, *split.test)],
        frames_out=root / "frames",
    )
    return Stores(FrameStore.open(root / "frames"), FlowStore.open(root / "flow"))


def _check_clips(stores: Stores, split: Split, recipe: Recipe) -> None:
    """Before hours of training: every video has enough frames for a stack, and is large enough for a window."""
    for video in (*split.train, *split.test):
        clip = stores.temporal.peek(video.name)
        if clip.frame_count <= recipe.length:
            raise SettingsError(
                f"{video.path}: has {clip.frame_count} frames, a stack of {recipe.length} flow fields needs "
                f"{recipe.length + 1}; take it off the lists"
            )
        if min(clip.size) < recipe.input_size:
            raise SettingsError(
                f"{video.path}: its frames are {clip.size[1]}x{clip.size[0]} pixels, a window needs "
                f"{recipe.input_size}x{recipe.input_size}; take it off the lists"
            )


def _train(
    root: Path,
    stream: str,
    stores: Stores,
    split: Split,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    workers: int,
) -> StreamNet:
    path = root / stream / MODEL_FILE
    if not path.exists():
        numbers: StreamRecipe = getattr(recipe, stream)
        settings = TrainSettings(
            iterations=numbers.iterations,
            batch_size=numbers.batch_size,
            learning_rate=numbers.learning_rate,
            seed=seed,
            checkpoint_every=max(1, min(500, numbers.iterations // 10)),
        )
        net = _new_net(stream, len(split.classes), recipe, seed)
        common: dict[str, Any] = {
            "batch_size": settings.batch_size,
            "iterations": settings.iterations,
            "seed": seed,
            "workers": workers,
        }

        def spatial_batches(start: int) -> Iterator[Any]:
            return frame_batches(stores.spatial, split.train, start_iteration=start, **common)

        def temporal_batches(start: int) -> Iterator[Any]:
            return flow_batches(stores.temporal, split.train, length=recipe.length, start_iteration=start, **common)

        spatial = stream == "spatial"
        train(
            net,
            spatial_batches if spatial else temporal_batches,
            prepare=partial(frame_input if spatial else flow_input, size=recipe.input_size, device=device),
            settings=settings,
            out_dir=root / stream,
            device=device,
        )
        save_model(path, net, split.classes)
    return load_model(path, device).net


def _new_net(stream: str, classes: int, recipe: Recipe, seed: int) -> StreamNet:
    numbers: StreamRecipe = getattr(recipe, stream)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if stream == "spatial":
            return SpatialNet(classes, dropout=numbers.dropout, width=recipe.width, input_size=recipe.input_size)
        return TemporalNet(
            classes,
            length=recipe.length,
            dropout=numbers.dropout,
            width=recipe.width,
            input_size=recipe.input_size,
        )


def _score(root: Path, stream: str, net: StreamNet, stores: Stores, split: Split, recipe: Recipe) -> dict[str, Tensor]:
    """Score the training videos too: the SVM learns from them."""
    scores = {}
    for part, videos in zip(PARTS, (split.train, split.test), strict=True):
        path = root / "scores" / f"{stream}_{part}.safetensors"
        if not path.exists():
            store = getattr(stores, stream)
            values = evaluate(net, store, videos, frames=recipe.frames, crops=recipe.crops)
            save_scores(path, [video.name for video in videos], _labels(videos), values)
        scores[part] = load_scores(path).scores
    return scores


def _labels(videos: Sequence[Video]) -> Tensor:
    return torch.tensor([video.label for video in videos])


def _summarise(
    root: Path,
    split: Split,
    scores: dict[str, dict[str, Tensor]],
    number: int,
    seed: int,
    recipe: Recipe,
) -> dict[str, Any]:
    training, test = ([scores[stream][part] for stream in STREAMS] for part in PARTS)
    labels = _labels(split.test)
    svm_file = root / SVM_FILE
    if not svm_file.exists():
        SVMFusion().fit(training, _labels(split.train)).save(svm_file)
    svm = SVMFusion.load(svm_file)
    results = {
        "spatial": test[0],
        "temporal": test[1],
        "average": fuse_average(test),
        "svm": svm.predict(test),
    }
    return {
        "top1": {name: round(top1(result, labels), 4) for name, result in results.items()},
        "videos": {"train": len(split.train), "test": len(split.test)},
        "classes": split.classes,
        "split": number,
        "seed": seed,
        "recipe": asdict(recipe),
    }


@contextmanager
def _step(name: str, say: Say) -> Iterator[None]:
    """Say how long a step took, unless its result was there already."""
    started = time.perf_counter()
    say(f"{name} ...")
    yield
    say(f"{name}: {time.perf_counter() - started:.1f} s")
