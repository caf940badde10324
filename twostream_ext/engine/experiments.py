# SPDX-License-Identifier: BSD-3-Clause
"""The paper's tables on any videos: each net that a table needs is trained once, kept, and used by every row it is in.

What stays in the directory of the experiments: `data/<data set>/` (flow and frames), `nets/<stream>-<key>/` (a net, how
it was made, its scores), `summary.json` (the last table). The key of a net is a digest of all that decides it: how it
is trained, the seed, and the videos by content. So a table that was broken off goes on where it stopped, and tables
share their nets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from twostream_ext.engine.checkpoint import start_from
from twostream_ext.engine.kept_nets import row_scores
from twostream_ext.engine.paper_tables import TABLES, Row, Table
from twostream_ext.engine.recipes import Recipe, new_net
from twostream_ext.engine.summary import write_summary
from twostream_ext.engine.table_data import Sources, Work, needed_data, open_split, prepare
from twostream_ext.errors import SettingsError
from twostream_ext.files import remove_leftovers
from twostream_ext.models import SVMFusion, fuse_average, wilson_interval

_Booleans = npt.NDArray[np.bool_]


def reproduce(
    name: str,
    out: str | os.PathLike[str],
    sources: Sources,
    *,
    recipe: Recipe,
    seeds: Sequence[int] = (0, 1, 2),
    device: torch.device | str = "cpu",
    workers: int = 2,
    say: Callable[[str], None] = print,
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
    work = Work(Path(out), sources, recipe, torch.device(device), workers)
    if isinstance(sources.images, Path):  # before hours of work: it can be started from
        start_from(new_net(recipe, "spatial", 2, seed=0), sources.images)
    remove_leftovers(out)
    lacks = {row: lack for row in table.rows if (lack := _lack(row, sources))}
    can_be_run = [row for row in table.rows if row not in lacks]
    notes = prepare(work, table, can_be_run, say)
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
        "data": {source.name: str(source.videos) for source in needed_data(sources, table, can_be_run)},
        "notes": notes,
    }
    write_summary(out, summary)
    return summary


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


def _result(row: Row, table: Table, seeds: Sequence[int], work: Work) -> dict[str, Any]:
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


def _labels(work: Work, row: Row, split: int) -> npt.NDArray[np.int64]:
    own = work.sources.own(row)
    assert own is not None
    return np.asarray(open_split(work, own, split).test.labels.numpy())


def _mean_class(correct: _Booleans, labels: npt.NDArray[np.int64]) -> float:
    """The mean over classes of each one's accuracy: a class of few videos counts as much as one of many."""
    return float(np.mean([correct[:, labels == label].mean() for label in np.unique(labels)]))


def _setting(row: Row, sources: Sources) -> dict[str, Any]:
    """A row as `summary.json` has it, which also says what took the place of ImageNet."""
    plain = asdict(row)
    del plain["paper"]
    plain["nets"] = list(plain["nets"])
    if sources.images is not None and any(each.on == "images" for each in row.trainings()):
        plain["text"] += f" (pre-trained on {sources.images.name})"
    return plain


def _lack(row: Row, sources: Sources) -> str | None:
    """Why a row cannot be run; None if it can."""
    trainings = row.trainings()
    if sources.own(row) is None or (sources.other(row) is None and any(each.needs_other for each in trainings)):
        return "needs a second data set"
    if sources.images is None and any(each.on == "images" for each in trainings):
        return "needs a net trained on single images (--init FILE)"
    return None


def _correct(work: Work, row: Row, split: int, seed: int) -> _Booleans:
    """Which test videos a row gets right, bool [videos]."""
    tested = [row_scores(work, row, net, split, seed, "test") for net in row.nets]
    scores, labels = [each.scores for each in tested], tested[0].labels
    if row.fusion == "svm":
        learnt = [row_scores(work, row, net, split, seed, "train") for net in row.nets]
        predicted = SVMFusion().fit([each.scores for each in learnt], learnt[0].labels).predict(scores)
    else:
        predicted = fuse_average(scores).argmax(1)  # of one, that one
    return np.asarray((predicted == labels).numpy())
