# SPDX-License-Identifier: BSD-3-Clause
"""Score files: what one net says about each video, for fusion and tables."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, float32, int64

from twostream_ext.data import VideoSet
from twostream_ext.engine import distributed
from twostream_ext.engine.evaluate import each_score
from twostream_ext.engine.origin import NOTHING, Origin, net_digest, unlike, videos_origin
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.models import StreamNet
from twostream_ext.noted import check_noted
from twostream_ext.tensor_files import read_tensors, take_tensor, write_tensors

_KIND = "twostream scores 1"
_KEEP_EVERY = 20.0  # seconds


class Scores(NamedTuple):
    names: list[str]  # videos
    labels: Tensor  # int64 [videos]
    scores: Tensor  # float32 [videos, classes], mean softmax
    classes: list[str] | None = None
    """Their names; None where they are not noted, as in files of 0.1.0."""
    made_from: Origin = NOTHING
    """What they were made from, by content, as far as it is noted; see `scores_origin`."""


def save_scores(
    path: str | os.PathLike[str],
    names: Sequence[str],
    labels: Tensor,
    scores: Tensor,
    classes: Sequence[str] | None = None,
    made_from: Origin = NOTHING,
) -> None:
    """Write scores [V, C] and labels [V] of the videos `names` to a safetensors file; see `Scores` for the rest."""
    if scores.ndim != 2 or not len(names) == len(labels) == len(scores):
        raise CheckpointError(
            f"{path}: {len(names)} names, labels {list(labels.shape)} and scores "
            f"{list(scores.shape)} must be of the same videos"
        )
    if classes is not None and len(classes) != scores.shape[1]:
        raise CheckpointError(f"{path}: {len(classes)} names of classes, and scores of {scores.shape[1]}")
    description: dict[str, Any] = {"names": list(names), "made_from": dict(made_from)}
    if classes is not None:
        description["classes"] = list(classes)
    write_tensors(path, _KIND, {"labels": labels, "scores": scores}, description)


def load_scores(path: str | os.PathLike[str]) -> Scores:
    """What `save_scores` wrote; CheckpointError if the file is missing, damaged or another."""
    file = read_tensors(path, _KIND)
    noted = {"classes": None, "made_from": {}, **file.description}  # 0.1.0 did not note them
    kinds = {"names": list[str], "classes": list[str] | None, "made_from": dict[str, Any]}
    check_noted(path, noted, kinds, CheckpointError)
    names, classes = noted["names"], noted["classes"]
    labels = take_tensor(path, file, "labels", int64, (len(names),))
    scores = take_tensor(path, file, "scores", float32, (len(names), None if classes is None else len(classes)))
    return Scores(names, labels, scores, classes, noted["made_from"])


def write_scores(
    path: str | os.PathLike[str],
    net: StreamNet,
    videos: VideoSet,
    *,
    frames: int = 25,
    crops: int = 10,
    dataset: str | None = None,
    classes: Sequence[str] | None = None,
) -> Scores:
    """Score all videos (see `evaluate`), and save it for fusion, with what it was made from. classes: their names.

    Meanwhile what is scored is kept in `<path>.part`, from which the same call goes on if it is broken off. In a
    process group (`torchrun`) all processes must call it: they share the videos, the first writes, all return the same.
    """
    names = [video.name for video in videos.videos]
    made_from = scores_origin(net, videos, frames=frames, crops=crops)
    distributed.check_same(made_from)
    part = Path(f"{path}.part")
    values = _score_on(part, net, videos, {**made_from, "dataset": dataset}, frames, crops, dataset)
    scores = Scores(names, videos.labels, values, None if classes is None else list(classes), made_from)
    if distributed.rank() == 0:
        save_scores(path, *scores)
        part.unlink(missing_ok=True)
    return scores


def _score_on(
    part: Path, net: StreamNet, videos: VideoSet, origin: Origin, frames: int, crops: int, dataset: str | None
) -> Tensor:
    """Scores [V, C] of all videos: those kept in a file, and the others, by turns in each process of the group."""
    rank, ranks = distributed.rank(), distributed.ranks()
    scores = list(distributed.gather(_kept(part, origin) if rank == 0 else None)[0])
    share = slice(len(scores) + rank, None, ranks)
    own = each_score(net, videos, frames=frames, crops=crops, dataset=dataset, progress=rank == 0, share=share)
    kept_at = time.monotonic()
    while len(scores) < len(videos.videos):
        scores += [each for each in distributed.gather(next(own, None)) if each is not None]
        if rank == 0 and time.monotonic() - kept_at > _KEEP_EVERY:
            names = [video.name for video in videos.videos[: len(scores)]]
            save_scores(part, names, videos.labels[: len(scores)], torch.stack(scores), made_from=origin)
            kept_at = time.monotonic()
    return torch.stack(scores)


def _kept(part: Path, origin: Origin) -> Sequence[Tensor]:
    """The scores of the first videos that a call before has kept of the same origin."""
    if not part.exists():
        return []
    kept = load_scores(part)
    return [] if unlike(kept.made_from, origin) is not None else list(kept.scores)


def scores_origin(net: StreamNet, videos: VideoSet, *, frames: int, crops: int) -> dict[str, Any]:
    """What scores are made from: the videos in their order, what the store holds of them, the net, and the numbers."""
    return {
        **videos_origin(net.settings.stream, videos),
        "net": net_digest(net),
        "frames": frames,
        "crops": crops,
    }


def load_same_videos(paths: Sequence[str | os.PathLike[str]]) -> list[Scores]:
    """The scores of several nets; SettingsError, naming the file, unless all are of the same videos and classes."""
    loaded = [load_scores(path) for path in paths]
    first = loaded[0]
    for path, scores in zip(paths, loaded, strict=True):
        check_classes(path, scores, paths[0], first)
        if len(scores.names) != len(first.names):
            raise SettingsError(f"{path}: scores of {len(scores.names)} videos, {paths[0]} of {len(first.names)}")
        for row in zip(scores.names, first.names, scores.labels.tolist(), first.labels.tolist(), strict=True):
            name, expected, label, expected_label = row
            if name != expected:
                raise SettingsError(f"{path}: has video {name!r} where {paths[0]} has {expected!r}")
            if label != expected_label:
                raise SettingsError(f"{path}: {name!r} has class {label}, in {paths[0]} {expected_label}")
    return loaded


def check_classes(
    path: str | os.PathLike[str], scores: Scores, other_path: str | os.PathLike[str], other: Scores
) -> None:
    """SettingsError unless both are of as many classes, and of the same where both have noted their names."""
    if scores.scores.shape[1] != other.scores.shape[1]:
        raise SettingsError(
            f"{path}: scores of {scores.scores.shape[1]} classes, {other_path} of {other.scores.shape[1]}"
        )
    for own, theirs in zip(scores.classes or (), other.classes or (), strict=False):
        if own != theirs:
            raise SettingsError(f"{path}: has class {own!r} where {other_path} has {theirs!r}")


def check_same_net(
    path: str | os.PathLike[str], scores: Scores, other_path: str | os.PathLike[str], other: Scores
) -> None:
    """SettingsError unless both are of one net, as far as both have noted it."""
    own, theirs = scores.made_from.get("net"), other.made_from.get("net")
    if own is not None and theirs is not None and own != theirs:
        raise SettingsError(f"{path}: is of another net than {other_path}; the SVM needs scores of the same nets")
