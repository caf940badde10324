# SPDX-License-Identifier: BSD-3-Clause
"""The data sets of the paper's tables: those that rows need, made ready, and what each net learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from twostream_ext.data import DataSet, DataSource, VideoSet, find_doubts, join_video_sets, open_data
from twostream_ext.engine.paper_tables import Row, Table, Training
from twostream_ext.engine.pipeline import check_clips, flow_device
from twostream_ext.engine.recipes import Recipe
from twostream_ext.errors import CheckpointError
from twostream_ext.extraction import extract
from twostream_ext.models import ONLY_DATASET, UCF101_LIKE_HMDB51, add_classes
from twostream_ext.settings_files import claim


@dataclass(frozen=True)
class Sources:
    """What there is to train on; the names of the data sets are those of their folders among the results."""

    first: DataSource
    second: DataSource | None = None
    images: DataSource | Path | None = None
    """What spatial nets are pre-trained on: a net in a file, or a data set whose frames are taken as single images."""

    def own(self, row: Row) -> DataSource | None:
        """The data set that a row tests."""
        return self.first if row.own == "first" else self.second

    def other(self, row: Row) -> DataSource | None:
        """The data set that helps."""
        return self.second if row.own == "first" else self.first


@dataclass(frozen=True)
class Work:
    """What all nets of a directory of experiments have in common."""

    root: Path  # of all that stays
    sources: Sources
    recipe: Recipe
    device: torch.device
    workers: int


class Learnt(NamedTuple):
    """What one net learns from."""

    videos: VideoSet
    classes: dict[str, list[str]]  # of each softmax


def prepare(work: Work, table: Table, rows: Sequence[Row], say: Callable[[str], None]) -> list[str]:
    """Extract flow, both ways, and frames of the data sets that the rows need, and check that they will do.

    Returns what is doubtful about the data; it is said, too.
    """
    notes = []
    longest = max((net.length for row in rows for net in row.nets if net.stream == "temporal"), default=0)
    for source, splits in needed_data(work.sources, table, rows).items():
        folder = work.root / "data" / source.name
        places = (("videos", source.videos), ("lists", source.lists))
        claim(
            folder / "source.json",
            {name: None if path is None else str(path.resolve()) for name, path in places},
            CheckpointError,
        )
        listed = [open_data(replace(source, split=split)).data for split in splits]
        names = {video.path: None for each in listed for part in (each.train, each.test) for video in part.videos}
        extract(
            source.videos,
            folder / "flow",
            method=work.recipe.flow_method,
            device=flow_device(work.recipe.flow_method, work.device),
            smallest_side=work.recipe.smallest_side,
            quality=work.recipe.jpeg_quality,
            backward=True,
            names=list(names),
            frames_out=folder / "frames",
        )
        for split in splits:
            data = open_split(work, source, split)
            for doubt in find_doubts(source.lists or source.videos, data):
                notes.append(f"{source.name}, split {split}: {doubt}")
                say(f"note: {notes[-1]}")
            check_clips(data, replace(work.recipe, length=longest))
    return notes


def needed_data(sources: Sources, table: Table, rows: Sequence[Row]) -> dict[DataSource, Sequence[int]]:
    """The data sets that rows need, each with the splits whose videos it is asked for."""
    needed: dict[DataSource, Sequence[int]] = {}
    for row in rows:
        trainings = row.trainings()
        own, other, images = sources.own(row), sources.other(row), sources.images
        if own is not None:
            needed[own] = range(1, table.splits + 1)
        if other is not None and any(each.needs_other for each in trainings):
            needed.setdefault(other, range(1, 2))
        if isinstance(images, DataSource) and any(each.on == "images" for each in trainings):
            needed.setdefault(images, range(1, 2))
    return needed


def open_split(work: Work, source: DataSource, split: int) -> DataSet:
    """A data set with the flow and frames that `prepare` has left."""
    folder = work.root / "data" / source.name
    return open_data(replace(source, split=split, flow=folder / "flow", frames=folder / "frames")).data


def _all_videos(work: Work, source: DataSource) -> tuple[VideoSet, list[str]]:
    """The whole data set, whose split does not matter: training and test videos; and its classes."""
    data = open_split(work, source, 1)
    return data.train._replace(videos=[*data.train.videos, *data.test.videos]), data.classes


def learnt(work: Work, row: Row, training: Training, split: int) -> Learnt:
    """What a net of a row learns from."""
    sources = work.sources
    own, other = sources.own(row), sources.other(row)
    if training.on == "images":
        assert isinstance(sources.images, DataSource)
        videos, classes = _all_videos(work, sources.images)
        return Learnt(videos, {ONLY_DATASET: classes})
    if training.on == "other":
        assert other is not None
        videos, classes = _all_videos(work, other)
        return Learnt(videos, {ONLY_DATASET: classes})
    assert own is not None
    data = open_split(work, own, split)
    if training.on == "own":
        return Learnt(data.train, {ONLY_DATASET: data.classes})
    assert other is not None
    videos, classes = _all_videos(work, other)
    return _joined(data, videos, classes, in_one_softmax=training.on == "added")


def _joined(data: DataSet, others: VideoSet, classes: list[str], *, in_one_softmax: bool) -> Learnt:
    if not in_one_softmax:
        counts = {"own": len(data.classes), "other": len(classes)}
        return Learnt(
            join_video_sets({"own": data.train, "other": others}, counts), {"own": data.classes, "other": classes}
        )
    repeated = [name for name in classes if name in data.classes or UCF101_LIKE_HMDB51.get(name) in data.classes]
    added = add_classes(data.classes, classes, leave_out=repeated)
    labels = {old: new - len(data.classes) for old, new in enumerate(added.labels) if new is not None}
    kept = [video._replace(label=labels[video.label]) for video in others.videos if video.label in labels]
    counts = {"own": len(data.classes), "other": len(labels)}
    joined = join_video_sets({"own": data.train, "other": others._replace(videos=kept)}, counts)
    return Learnt(joined, {ONLY_DATASET: added.names})
