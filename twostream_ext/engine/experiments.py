# SPDX-License-Identifier: BSD-3-Clause
"""The paper's tables on any videos: each net that a table needs is trained once, kept, and used by every row it is in.

What stays in the directory of the experiments: `data/<data set>/` (flow and frames), `nets/<stream>-<key>/` (a net, how
it was made, its scores), `summary.json` (the last table). The key of a net is a digest of all that decides it: how it
is trained, the seed, and the videos by content. So a table that was broken off goes on where it stopped, and tables
share their nets.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from twostream_ext.data import (
    DataSet,
    DataSource,
    VideoSet,
    find_doubts,
    find_generated,
    generate_videos,
    join_video_sets,
    open_data,
)
from twostream_ext.engine.checkpoint import load_model, save_model, start_from
from twostream_ext.engine.origin import unlike, videos_origin
from twostream_ext.engine.paper_tables import TABLES, Row, Table, Training
from twostream_ext.engine.pipeline import MODEL_FILE, check_clips, flow_device
from twostream_ext.engine.recipes import Recipe, StreamRecipe, new_net
from twostream_ext.engine.scores import Scores, load_scores, scores_origin, write_scores
from twostream_ext.engine.summary import write_summary
from twostream_ext.engine.train import CHECKPOINT_FILE, train
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.extraction import extract
from twostream_ext.files import check_file, remove_leftovers
from twostream_ext.models import (
    ONLY_DATASET,
    UCF101_LIKE_HMDB51,
    SVMFusion,
    add_classes,
    freeze_backbone,
    fuse_average,
    wilson_interval,
)
from twostream_ext.settings_files import claim

Say = Callable[[str], None]
_Booleans = npt.NDArray[np.bool_]


GENERATED_RECIPE = Recipe(
    smallest_side=64,
    input_size=57,
    width=0.125,
    length=10,
    streams={
        "spatial": StreamRecipe(900, 32, 1e-2, dropout=0.5),
        "temporal": StreamRecipe(600, 32, 1e-2, dropout=0.5),
    },
    frames=5,
    flow_method="dis",
    jpeg_quality=95,
)
"""For the generated videos of `generate_sources`."""

_FRAME_SIZE = (64, 80)  # height and width of those, in pixels


class _Generated(NamedTuple):
    """A generated set of a table, see `data.GENERATED`."""

    scenes: str
    train_per_class: int
    test_per_class: int
    splits: int = 1


_IMAGES = _Generated("many_looks", 36, 4)
_TWO_SETS = {
    "first": _Generated("many_mixed", 40, 8, 3),
    "second": _Generated("few_mixed", 24, 8, 3),
    "images": _IMAGES,
}
_GENERATED = {
    "table1a": {"first": _Generated("few_looks", 8, 16), "images": _IMAGES},
    "table1b": {"first": _Generated("shaken", 24, 16)},
    "table2": {"first": _Generated("few_motions", 2, 20), "second": _Generated("many_motions", 36, 4)},
    "table3": _TWO_SETS,
    "table4": _TWO_SETS,
}


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


def reproduce(
    name: str,
    out: str | os.PathLike[str],
    sources: Sources,
    *,
    recipe: Recipe,
    seeds: Sequence[int] = (0, 1, 2),
    device: torch.device | str = "cpu",
    workers: int = 2,
    say: Say = print,
) -> dict[str, Any]:
    """Run a table of the paper; return what `summary.json` in `out` holds.

    Each row is trained with each seed (and on each split, where the table is a mean of splits). Its `top1` is the mean,
    its `interval` what `interval_95` says of it, its `mean_class` the mean of the classes' accuracies. A row that
    cannot be run is not in "rows" but in "not_run", with the reason. Called again, with the same table or another, it
    trains only what is not there yet.

    name: of `TABLES`. recipe: the numbers of all trainings; what a row says itself (its input, its dropout, how it is
    fine-tuned) comes before. seeds: of first weights and all draws of training.

    SettingsError, CheckpointError, ListError, ...: one line that says what is wrong.
    """
    if name not in TABLES:
        raise SettingsError(f"table is {name!r}, expected one of {', '.join(TABLES)}")
    if not seeds:
        raise SettingsError("seeds: expected at least one")
    table = TABLES[name]
    work = _Work(Path(out), sources, recipe, torch.device(device), workers)
    if isinstance(sources.images, Path):  # before hours of work: it can be started from
        start_from(new_net(recipe, "spatial", 2, seed=0), sources.images)
    remove_leftovers(out)
    lacks = {row: lack for row in table.rows if (lack := _lack(row, sources))}
    can_be_run = [row for row in table.rows if row not in lacks]
    notes = _prepare(work, table, can_be_run, say)
    rows = []
    for number, row in enumerate(table.rows, 1):
        say(f"{name}, row {number} of {len(table.rows)}: {row.text} ...")
        if row in lacks:
            say(f"  not run: {lacks[row]}")
            continue
        rows.append(_result(row, table, seeds, work))
        say(f"  {100 * rows[-1]['top1']:.1f} (paper {100 * row.paper:.1f})")
    summary = {
        "table": name,
        "rows": rows,
        "not_run": [
            {"setting": _setting(row, sources), "reason": lack, "paper": row.paper} for row, lack in lacks.items()
        ],
        "splits": table.splits,
        "recipe": recipe.as_json(),
        "data": {source.name: str(source.videos) for source in _needed(sources, table, can_be_run)},
        "notes": notes,
    }
    write_summary(out, summary)
    return summary


def generate_sources(
    table: str, out: str | os.PathLike[str], *, seed: int = 0, images: Path | None = None, say: Say = print
) -> Sources:
    """Make the videos that show what a table is about, in `videos` of `out`; what is there already is kept.

    images: a net that spatial nets are to be fine-tuned from; None: a generated set of other appearances serves.
    """
    if table not in _GENERATED:
        raise SettingsError(f"table is {table!r}, expected one of {', '.join(_GENERATED)}")
    if images is not None:
        check_file(images, CheckpointError)
    made = {}
    for role, each in _GENERATED[table].items():
        if role == "images" and images is not None:
            continue
        folder = Path(out) / "videos" / each.scenes
        say(f"generated clips in {folder}: {find_generated(each.scenes).text}")
        generate_videos(
            folder,
            scenes=each.scenes,
            seed=seed,
            train_per_class=each.train_per_class,
            test_per_class=each.test_per_class,
            splits=each.splits,
            size=_FRAME_SIZE,
        )
        made[role] = DataSource(folder, folder, name=each.scenes)
    return Sources(made["first"], made.get("second"), made.get("images", images))


def interval_95(correct: Sequence[_Booleans]) -> tuple[float, float]:
    """A 95 % interval of an accuracy that is the mean over splits, seeds and test videos.

    Other seeds and other test videos would give another number. The spread of both is estimated: that of the seeds from
    the accuracies of each split's seeds, that of the videos from how often each was right among the seeds; both add up.
    The interval is Wilson's, for as many independent videos as have that spread: so it stays within 0 .. 1, and has a
    width where every video is right.

    correct: for each split bool [seeds, videos], whether a net was right.
    """
    accuracy = float(np.mean([each.mean() for each in correct]))
    variance = 0.0
    for each in correct:
        seeds = len(each)
        of_seeds = each.mean(1).var(ddof=1) / seeds if seeds > 1 else 0.0
        of_videos = each.mean(0).var() / each.shape[1]
        variance += float(of_seeds + of_videos) / len(correct) ** 2
    videos = sum(each.shape[1] for each in correct)
    answers = sum(each.size for each in correct)
    count = min(answers, accuracy * (1 - accuracy) / variance) if variance > 0 else videos
    count = max(1.0, count)
    return wilson_interval(accuracy * count, count)


def _result(row: Row, table: Table, seeds: Sequence[int], work: _Work) -> dict[str, Any]:
    splits = range(1, table.splits + 1)
    correct = [np.stack([_correct(work, row, split, seed) for seed in seeds]) for split in splits]
    each = np.mean([of_split.mean(1) for of_split in correct], axis=0)
    mean_class = np.mean(
        [_mean_class(answers, _labels(work, row, split)) for answers, split in zip(correct, splits, strict=True)]
    )
    return {
        "setting": _setting(row, work.sources),
        "top1": round(float(each.mean()), 4),
        "interval": [round(bound, 4) for bound in interval_95(correct)],
        "seeds": len(seeds),
        "paper": row.paper,
        "each": [round(float(top1), 4) for top1 in each],
        "mean_class": round(float(mean_class), 4),
    }


def _labels(work: _Work, row: Row, split: int) -> npt.NDArray[np.int64]:
    own = work.sources.own(row)
    assert own is not None
    return np.asarray(_open(work, own, split).test.labels.numpy())


def _mean_class(correct: _Booleans, labels: npt.NDArray[np.int64]) -> float:
    """The mean over classes of each one's accuracy: a class of few videos counts as much as one of many."""
    return float(np.mean([correct[:, labels == label].mean() for label in np.unique(labels)]))


def _setting(row: Row, sources: Sources) -> dict[str, Any]:
    """A row as `summary.json` has it, which also says what took the place of ImageNet."""
    plain = asdict(row)
    del plain["paper"]
    plain["nets"] = list(plain["nets"])
    if sources.images is not None and any(each.on == "images" for each in _trainings(row)):
        plain["text"] += f" (pre-trained on {sources.images.name})"
    return plain


def _lack(row: Row, sources: Sources) -> str | None:
    """Why a row cannot be run; None if it can."""
    trainings = _trainings(row)
    if sources.own(row) is None or (sources.other(row) is None and any(each.on in _BOTH for each in trainings)):
        return "needs a second data set"
    if sources.images is None and any(each.on == "images" for each in trainings):
        return "needs a net trained on single images (--init FILE)"
    return None


_BOTH = ("other", "added", "multi_task")


def _trainings(row: Row) -> list[Training]:
    """All that a row needs, those that its nets start from too."""
    return [training for net in row.nets for training in _with_starts(net)]


def _with_starts(training: Training) -> Iterator[Training]:
    yield training
    if training.start is not None:
        yield from _with_starts(training.start)


@dataclass(frozen=True)
class _Work:
    """What all nets of a directory of experiments have in common."""

    root: Path
    sources: Sources
    recipe: Recipe
    device: torch.device
    workers: int


class _Data(NamedTuple):
    """What one net learns from."""

    videos: VideoSet
    classes: dict[str, list[str]]  # of each softmax


def _prepare(work: _Work, table: Table, rows: Sequence[Row], say: Say) -> list[str]:
    """Extract flow, both ways, and frames of the data sets that the rows need, and check that they will do.

    Returns what is doubtful about the data; it is said, too.
    """
    notes = []
    longest = max((net.length for row in rows for net in row.nets if net.stream == "temporal"), default=0)
    for source, splits in _needed(work.sources, table, rows).items():
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
            data = _open(work, source, split)
            for doubt in find_doubts(source.lists or source.videos, data):
                notes.append(f"{source.name}, split {split}: {doubt}")
                say(f"note: {notes[-1]}")
            check_clips(data, replace(work.recipe, length=longest))
    return notes


def _needed(sources: Sources, table: Table, rows: Sequence[Row]) -> dict[DataSource, Sequence[int]]:
    """The data sets that rows need, each with the splits whose videos it is asked for."""
    needed: dict[DataSource, Sequence[int]] = {}
    for row in rows:
        trainings = _trainings(row)
        own, other, images = sources.own(row), sources.other(row), sources.images
        if own is not None:
            needed[own] = range(1, table.splits + 1)
        if other is not None and any(each.on in _BOTH for each in trainings):
            needed.setdefault(other, range(1, 2))
        if isinstance(images, DataSource) and any(each.on == "images" for each in trainings):
            needed.setdefault(images, range(1, 2))
    return needed


def _open(work: _Work, source: DataSource, split: int) -> DataSet:
    folder = work.root / "data" / source.name
    return open_data(replace(source, split=split, flow=folder / "flow", frames=folder / "frames")).data


def _all_videos(work: _Work, source: DataSource) -> tuple[VideoSet, list[str]]:
    """The whole data set, whose split does not matter: training and test videos; and its classes."""
    data = _open(work, source, 1)
    return data.train._replace(videos=[*data.train.videos, *data.test.videos]), data.classes


def _learnt(work: _Work, row: Row, training: Training, split: int) -> _Data:
    """What a net of a row learns from."""
    sources = work.sources
    own, other = sources.own(row), sources.other(row)
    if training.on == "images":
        assert isinstance(sources.images, DataSource)
        videos, classes = _all_videos(work, sources.images)
        return _Data(videos, {ONLY_DATASET: classes})
    if training.on == "other":
        assert other is not None
        videos, classes = _all_videos(work, other)
        return _Data(videos, {ONLY_DATASET: classes})
    assert own is not None
    data = _open(work, own, split)
    if training.on == "own":
        return _Data(data.train, {ONLY_DATASET: data.classes})
    assert other is not None
    videos, classes = _all_videos(work, other)
    return _joined(data, videos, classes, in_one_softmax=training.on == "added")


def _joined(data: DataSet, others: VideoSet, classes: list[str], *, in_one_softmax: bool) -> _Data:
    if not in_one_softmax:
        counts = {"own": len(data.classes), "other": len(classes)}
        return _Data(
            join_video_sets({"own": data.train, "other": others}, counts), {"own": data.classes, "other": classes}
        )
    repeated = [name for name in classes if name in data.classes or UCF101_LIKE_HMDB51.get(name) in data.classes]
    added = add_classes(data.classes, classes, leave_out=repeated)
    labels = {old: new - len(data.classes) for old, new in enumerate(added.labels) if new is not None}
    kept = [video._replace(label=labels[video.label]) for video in others.videos if video.label in labels]
    counts = {"own": len(data.classes), "other": len(labels)}
    joined = join_video_sets({"own": data.train, "other": others._replace(videos=kept)}, counts)
    return _Data(joined, {ONLY_DATASET: added.names})


def _net_file(work: _Work, row: Row, training: Training, split: int, seed: int) -> Path:
    """The file of a net, trained if it is not there."""
    if training.on == "images" and isinstance(work.sources.images, Path):
        return work.sources.images
    data = _learnt(work, row, training, split)
    start = None if training.start is None else _net_file(work, row, training.start, split, seed)
    recipe = _recipe_of(work.recipe, training, start)
    made_from = videos_origin(training.stream, data.videos)
    facts = {
        "training": {**asdict(training), "start": None if start is None else _file_digest(start)},
        "recipe": _deciding(recipe, training.stream),
        "seed": seed,
        "classes": data.classes,
        "made_from": made_from,
    }
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = work.root / "nets" / f"{training.stream}-{key}"
    path = folder / MODEL_FILE
    if path.exists():
        return path
    claim(folder / "net.json", facts, CheckpointError)
    counts = {name: len(names) for name, names in data.classes.items()}
    net = new_net(recipe, training.stream, counts, seed=seed)
    if start is not None:
        start_from(net, start)
    if training.last_layer:
        freeze_backbone(net)
    numbers = recipe.numbers(training.stream)
    settings = numbers.settings(
        seed=seed,
        checkpoint_every=max(1, min(500, numbers.iterations // 10)),
    )
    train(net, data.videos, settings=settings, out_dir=folder, device=work.device, workers=work.workers)
    save_model(path, net, data.classes, made_from=made_from)
    (folder / CHECKPOINT_FILE).unlink()
    return path


def _recipe_of(recipe: Recipe, training: Training, start: Path | None) -> Recipe:
    """The recipe with what a row says itself in place of its own."""
    numbers = recipe.numbers(training.stream)
    if start is not None:
        numbers = numbers.fine_tuned(start, last_layer=training.last_layer)
    if training.dropout is not None:
        numbers = replace(numbers, dropout=training.dropout)
    return replace(
        recipe.with_numbers(training.stream, numbers),
        input=training.input,
        length=training.length,
        bidirectional=training.bidirectional,
        subtract=training.subtract,
    )


def _deciding(recipe: Recipe, stream: str) -> dict[str, Any]:
    """What of a recipe decides a net of one stream: neither the other stream's numbers nor those of test and fusion.

    The net that it starts from is noted by content, and not by where it lies.
    """
    numbers = replace(recipe.numbers(stream), init=None)
    plain = replace(recipe, streams={stream: numbers}).as_json()
    return {name: value for name, value in plain.items() if name not in ("frames", "crops", "hold_out")}


def _file_digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _scores(work: _Work, row: Row, net: Training, split: int, seed: int, part: str) -> Scores:
    """Scores of a net on the videos of its row's own data set and for the classes of that."""
    own = work.sources.own(row)
    assert own is not None
    data = _open(work, own, split)
    videos = data.train if part == "train" else data.test
    file = _net_file(work, row, net, split, seed)
    trained = load_model(file, work.device)
    path = file.parent / f"{part}.safetensors"
    frames, crops = work.recipe.frames, work.recipe.crops
    kept = load_scores(path) if path.exists() else None
    if (
        kept is None
        or unlike(kept.made_from, scores_origin(trained.net, videos, frames=frames, crops=crops)) is not None
    ):
        dataset = next(iter(trained.classes))
        kept = write_scores(
            path, trained.net, videos, frames=frames, crops=crops, dataset=dataset, classes=trained.classes[dataset]
        )
    return kept._replace(scores=kept.scores[:, : len(data.classes)])


def _correct(work: _Work, row: Row, split: int, seed: int) -> _Booleans:
    """Which test videos a row gets right, bool [videos]."""
    tested = [_scores(work, row, net, split, seed, "test") for net in row.nets]
    scores, labels = [each.scores for each in tested], tested[0].labels
    if row.fusion == "svm":
        learnt = [_scores(work, row, net, split, seed, "train") for net in row.nets]
        predicted = SVMFusion().fit([each.scores for each in learnt], learnt[0].labels).predict(scores)
    else:
        predicted = fuse_average(scores).argmax(1)  # of one, that one
    return np.asarray((predicted == labels).numpy())
