# SPDX-License-Identifier: BSD-3-Clause
"""A run on several splits of the same videos, as papers report it: that of each split, and their mean.

What stays in its directory: `run.json`, `flow/` and `frames/` (one store each for all), `split1/`, `split2/`, ... (each
the directory of a run, with links to these stores) and `summary.json`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twostream_ext.data import DataSet
from twostream_ext.engine.pipeline import STORES, Say, claim_run, look_at_data, run_pipeline, source_of
from twostream_ext.engine.recipes import Recipe
from twostream_ext.engine.summary import write_summary
from twostream_ext.errors import SettingsError
from twostream_ext.files import make_folder, remove_leftovers

SEVERAL = "several"
"""The split that the settings of such a run name, those of its directory as a whole."""


def split_folder(out: str | os.PathLike[str], number: int | str) -> Path:
    """The directory of the run on one split."""
    return Path(out) / f"split{number}"


def run_splits(
    videos: str | os.PathLike[str],
    lists: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    splits: Sequence[int],
    recipe: Recipe,
    form: str | None = None,
    flow: str | os.PathLike[str] | None = None,
    frames: str | os.PathLike[str] | None = None,
    leave_out: Sequence[str] = (),
    skip_missing: bool = False,
    seed: int = 0,
    say: Say = print,
    **others: Any,
) -> dict[str, Any]:
    """`run_pipeline` on each split, with one flow and one frame store for all; return what `summary.json` holds.

    It goes on where it was as that does, and other splits may be added later. Of every method `top1` and `mean_class`
    are the means of the splits, and their intervals what `mean_of_splits` says; "splits" has the results of each.

    splits: N of the lists, or of the draws, each once. others: as for `run_pipeline`, as are the rest.

    SettingsError if there is no split, or if two have other classes; else as for `run_pipeline`.
    """
    if not splits or len(set(splits)) < len(splits):
        raise SettingsError(f"splits are {list(splits)}, expected one or more, each once")
    root = Path(out)
    source = source_of(videos, lists, form, splits[0], flow, frames, leave_out)
    listed = {}
    for number in splits:  # before hours of work on those before it
        given = replace(source, split=number)
        listed[number] = look_at_data(split_folder(root, number), given, recipe, seed, skip_missing)[0].data
    classes = _common_classes(listed)
    claim_run(root, source, SEVERAL, seed, recipe)
    remove_leftovers(root)
    made = [name for name in STORES if getattr(source, name) is None]
    results = {}
    for number in splits:
        _share_stores(split_folder(root, number), made)
        results[number] = run_pipeline(
            videos,
            lists,
            split_folder(root, number),
            recipe=recipe,
            split=number,
            form=form,
            flow=flow,
            frames=frames,
            leave_out=leave_out,
            skip_missing=skip_missing,
            seed=seed,
            say=_of_split(say, number),
            **others,
        )
    tested = [video.name for data in listed.values() for video in data.test.videos]
    summary = {
        **mean_of_splits(list(results.values()), disjoint=len(set(tested)) == len(tested)),
        "splits": {str(number): _part_of(result) for number, result in results.items()},
        "classes": classes,
        "seed": seed,
        "recipe": recipe.as_json(),
        "notes": [f"split {number}: {note}" for number, result in results.items() for note in result.get("notes", ())],
    }
    write_summary(root, summary)
    return summary


def mean_of_splits(results: Sequence[Mapping[str, Any]], *, disjoint: bool) -> dict[str, dict[str, Any]]:
    """The means of each method's `top1` and `mean_class` over splits, each with its interval, to four digits.

    An interval adds up how far each split's may be off. Where no video is tested in two splits (disjoint), these are
    independent errors (the method of variance estimates recovery, as for the mean over classes); where some are, as in
    HMDB-51's splits and in draws, they are added as if they were one error, which they are at most.

    results: of each split, as `summary.json` has them.
    """
    found: dict[str, dict[str, Any]] = {"top1": {}, "interval": {}, "mean_class": {}, "mean_class_interval": {}}
    for measure, ends in (("top1", "interval"), ("mean_class", "mean_class_interval")):
        for method in results[0][measure]:
            values = [result[measure][method] for result in results]
            below, above = (
                [abs(result[ends][method][side] - value) for result, value in zip(results, values, strict=True)]
                for side in (0, 1)
            )
            add = math.hypot if disjoint else _sum
            mean = math.fsum(values) / len(values)
            found[measure][method] = round(mean, 4)
            found[ends][method] = [
                round(mean - add(*below) / len(values), 4),
                round(mean + add(*above) / len(values), 4),
            ]
    return found


def _sum(*numbers: float) -> float:
    return math.fsum(numbers)


def _of_split(say: Say, number: int) -> Say:
    return lambda line: say(f"split {number}: {line}")


def _part_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a split's summary stands in that of all."""
    names = ("top1", "interval", "mean_class", "mean_class_interval", "fusion", "videos")
    return {name: result[name] for name in names if name in result}


def _common_classes(listed: Mapping[int, DataSet]) -> list[str]:
    (first, data), *others = listed.items()
    for number, other in others:
        if other.classes != data.classes:
            raise SettingsError(f"splits {first} and {number} have other classes: there is no mean of their results")
    return data.classes


def _share_stores(folder: Path, names: Sequence[str]) -> None:
    """Links in the directory of a split to the stores of all, which may be made only now."""
    make_folder(folder)
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..", name), target_is_directory=True)
