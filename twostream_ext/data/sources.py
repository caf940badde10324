# SPDX-License-Identifier: BSD-3-Clause
"""Which data: where the videos of a data set are, their lists and stores, as a file or a command says it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from twostream_ext.data.data_sets import DataSet, trained_whole, without_classes
from twostream_ext.data.folders import split_folders
from twostream_ext.data.hmdb import hmdb_splits, is_hmdb, read_hmdb_lists
from twostream_ext.data.split import Split, names_in
from twostream_ext.data.tsn import is_tsn, read_tsn_lists, tsn_splits
from twostream_ext.data.ucf import CLASSES_FILE, is_ucf, read_ucf_lists, ucf_splits
from twostream_ext.errors import ListError, SettingsError, closest
from twostream_ext.files import check_directory
from twostream_ext.noted import is_noted_as

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDERS = "folders"


class _Lists(NamedTuple):
    fits: Callable[[list[str]], bool]
    read: Callable[..., Split]
    splits: Callable[[list[str]], set[int]]


_LISTS = {
    "ucf": _Lists(is_ucf, read_ucf_lists, ucf_splits),
    "hmdb": _Lists(is_hmdb, read_hmdb_lists, hmdb_splits),
    "tsn": _Lists(is_tsn, read_tsn_lists, tsn_splits),
}
FORMATS = (*_LISTS, FOLDERS)
_LOOKED_FOR = (
    "trainlist01.txt and testlist01.txt (UCF-101), <class>_test_split1.txt (HMDB-51), "
    "*_train_*.txt with *_val_*.txt (TSN, MMAction2)"
)


@dataclass(frozen=True)
class DataSource:
    """What a `--data` file says of a data set."""

    videos: Path
    """The folder of the videos."""
    lists: Path | None = None
    """The folder of the lists; None: they lie beside the videos, or there are none."""
    format: str | None = None
    """One of `FORMATS`; None: that which the names of the files in the folder of lists tell."""
    split: int = 1
    """Which of the splits that the lists have; without lists, which draw."""
    flow: Path | None = None
    """The flow store."""
    frames: Path | None = None
    """The frame store."""
    leave_out: tuple[str, ...] = ()
    """Classes to leave out."""
    whole: bool = False
    """Whether all videos, those of the test list too, are for training: as those that table 2 of the paper adds."""
    name: str = ""
    """Of the data set: the file's, without ending; not of the keys in it."""


_KEYS = {each.name: get_type_hints(DataSource)[each.name] for each in fields(DataSource) if each.name != "name"}
_PATHS = ("videos", "lists", "flow", "frames")


def read_source(path: str | os.PathLike[str]) -> DataSource:
    """Read a `--data` file: TOML with the keys of `DataSource`, of which `videos` must be there.

    Relative paths count from the file. SettingsError, naming file and key, for what cannot be read, a key that is not
    known (with the nearest that is) or a value of another type.
    """
    file = Path(path)
    try:
        noted = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: is no TOML: {error}") from error
    for key in noted:
        if key not in _KEYS:
            raise SettingsError(f"{file}: key {key!r} is not known{closest(key, _KEYS)}")
    if "videos" not in noted:
        raise SettingsError(f"{file}: lacks the key 'videos', the folder of the videos")
    values = {key: _value(file, key, value) for key, value in noted.items()}
    return DataSource(**values, name=file.stem)


def _value(file: Path, key: str, value: Any) -> Any:
    kind = str if key in _PATHS else _KEYS[key]
    if not is_noted_as(value, kind):
        expected = {"split": "a whole number", "leave_out": "a list of class names", "whole": "true or false"}
        raise SettingsError(f"{file}: {key} is {value!r:.80}, expected {expected.get(key, 'a text')}")
    if key in _PATHS:
        return file.parent / value
    return tuple(value) if key == "leave_out" else value


class OpenedData(NamedTuple):
    data: DataSet
    format: str
    """As it was given or found; of `FORMATS`."""
    drawn: Split | None
    """The split, if it was drawn now: there were no lists, and none that an earlier draw left."""


def open_data(
    source: DataSource, *, seed: int = 0, drawn_lists: Path | None = None, skip_missing: bool = False
) -> OpenedData:
    """Read a data set, in the format that is given, or else in that which its lists are found to have.

    seed: of the draw that divides videos without lists.
    drawn_lists: where an earlier draw may have left its lists (`keep_drawn`), which are then taken.
    skip_missing: leave out listed videos that are not there, or not in a store.

    ListError, saying what was looked for, if no lists are found or those of several formats; SettingsError for a
    setting that cannot be; for the rest see `UCFLists` and the others.
    """
    if source.split < 1:
        raise SettingsError(f"split is {source.split}, expected a whole number from 1")
    if source.format is not None and source.format not in FORMATS:
        raise SettingsError(f"format is {source.format!r}, expected one of {', '.join(FORMATS)}")
    form = source.format or find_format(source.videos, source.lists)
    if form == FOLDERS and source.lists is not None:
        raise SettingsError(f"format {FOLDERS!r} takes no lists, got {source.lists}")
    drawn = None
    if form == FOLDERS and drawn_lists is not None and (drawn_lists / CLASSES_FILE).exists():
        split = read_ucf_lists(source.videos, drawn_lists, skip_missing=skip_missing)
    elif form == FOLDERS:
        split = drawn = split_folders(source.videos, source.split, seed=seed)
    else:
        lists = source.videos if source.lists is None else source.lists
        split = _LISTS[form].read(source.videos, lists, source.split, skip_missing=skip_missing)
    if source.leave_out:
        split = without_classes(split, source.leave_out)
    if source.whole:
        split = trained_whole(split)
    data = DataSet(split, flow=source.flow, frames=source.frames, skip_missing=skip_missing)
    return OpenedData(data, form, drawn)


def listed_splits(source: DataSource) -> list[int]:
    """The numbers of all splits that the lists of a data set have.

    SettingsError if it has no lists: there is no end to the draws.
    """
    form = source.format or find_format(source.videos, source.lists)
    if form == FOLDERS:
        raise SettingsError(f"{source.videos}: has no lists of which all splits could be taken; say which draws")
    return sorted(_LISTS[form].splits(names_in(source.videos if source.lists is None else source.lists)))


def describe_data(place: object, opened: OpenedData) -> str:
    """What was found at a place, in one line."""
    data = opened.data
    return (
        f"{place}: format {opened.format}, {len(data.classes)} classes, {len(data.train.videos)} training and "
        f"{len(data.test.videos)} test videos"
    )


def read(path: str | os.PathLike[str], *, seed: int = 0, skip_missing: bool = False) -> DataSet:
    """The data set that a `--data` file says: `read_source`, then `open_data`, which have the errors."""
    return open_data(read_source(path), seed=seed, skip_missing=skip_missing).data


def find_format(videos: Path, lists: Path | None) -> str:
    """The format of the lists in a folder by the names of its files; without lists, also beside the videos, "folders".

    ListError, saying what was looked for, if a folder of lists has none, or those of several formats.
    """
    folder = videos if lists is None else lists
    check_directory(folder, ListError)
    names = names_in(folder)
    found = [name for name, form in _LISTS.items() if form.fits(names)]
    if len(found) > 1:
        raise ListError(f"{folder}: holds lists of several formats ({', '.join(found)}); a --data file says which")
    if not found and lists is not None:
        raise ListError(f"{folder}: holds no lists; looked for {_LOOKED_FOR}")
    return found[0] if found else FOLDERS
