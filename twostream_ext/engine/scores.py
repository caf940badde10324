# SPDX-License-Identifier: BSD-3-Clause
"""Score files: what one net says about each video, for fusion and tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, float32, int64

from twostream_ext.data import VideoSet
from twostream_ext.engine.evaluate import evaluate
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.models import StreamNet
from twostream_ext.noted import check_noted
from twostream_ext.tensor_files import read_tensors, take_tensor, write_tensors

_KIND = "twostream scores 1"


class Scores(NamedTuple):
    names: list[str]  # videos
    labels: Tensor  # int64 [videos]
    scores: Tensor  # float32 [videos, classes], mean softmax


def save_scores(path: str | os.PathLike[str], names: Sequence[str], labels: Tensor, scores: Tensor) -> None:
    """Write scores [V, C] and labels [V] of the videos `names` to a safetensors file."""
    if scores.ndim != 2 or not len(names) == len(labels) == len(scores):
        raise CheckpointError(
            f"{path}: {len(names)} names, labels {list(labels.shape)} and scores "
            f"{list(scores.shape)} must be of the same videos"
        )
    write_tensors(path, _KIND, {"labels": labels, "scores": scores}, {"names": list(names)})


def load_scores(path: str | os.PathLike[str]) -> Scores:
    """What `save_scores` wrote; CheckpointError if the file is missing, damaged or another."""
    file = read_tensors(path, _KIND)
    names = check_noted(path, file.description, {"names": list[str]}, CheckpointError)["names"]
    labels = take_tensor(path, file, "labels", int64, (len(names),))
    return Scores(names, labels, take_tensor(path, file, "scores", float32, (len(names), None)))


def write_scores(
    path: str | os.PathLike[str],
    net: StreamNet,
    videos: VideoSet,
    *,
    frames: int = 25,
    crops: int = 10,
    dataset: str | None = None,
) -> Scores:
    """Score all videos (see `evaluate`), and save it for fusion."""
    names = [video.name for video in videos.videos]
    scores = Scores(names, videos.labels, evaluate(net, videos, frames=frames, crops=crops, dataset=dataset))
    save_scores(path, *scores)
    return scores


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
    """SettingsError unless both are of as many classes."""
    if scores.scores.shape[1] != other.scores.shape[1]:
        raise SettingsError(
            f"{path}: scores of {scores.scores.shape[1]} classes, {other_path} of {other.scores.shape[1]}"
        )
