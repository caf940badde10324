# SPDX-License-Identifier: BSD-3-Clause
"""Split lists as TSN, tsn-pytorch and MMAction2 have them: `ucf101_train_split_1_rawframes.txt`, ..."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePath
from typing import NamedTuple

from twostream_ext.data.split import Entry, Split, look, make_split, names_in, parts_of, read_lines, some_of
from twostream_ext.data.ucf import CLASSES_FILE, read_classes
from twostream_ext.errors import ListError
from twostream_ext.files import check_directory

_LIST = re.compile(r"(?P<before>(?:.*_)?)(?P<part>train|val|test)(?P<after>(?:_.*)?)\.txt", re.DOTALL)
_SPLIT = re.compile(r"_split_?0*(?P<number>[0-9]{1,9})(?![0-9])")
_LABEL_MAP = re.compile(r"(?:.*_)?label_map.*\.txt", re.DOTALL)
_EXPECTED = "'<video> <label>' or '<folder> <frames> <label>'"


class _Pair(NamedTuple):
    """The names of a training list and of the test list that belongs to it."""

    train: str
    test: str
    split: int | None  # None where the names do not say


class _Line(NamedTuple):
    place: str
    path: str  # as it is written
    numbers: tuple[int, ...]  # the label, or frames and label


def is_tsn(names: Iterable[str]) -> bool:
    """Whether the names of files are those of such lists."""
    return bool(_pairs(names))


def tsn_splits(names: Iterable[str]) -> set[int]:
    """The numbers of the splits of which the names of files have both lists; where they say none, it is one."""
    return {1 if pair.split is None else pair.split for pair in _pairs(names)}


def read_tsn_lists(
    videos_dir: str | os.PathLike[str], lists_dir: str | os.PathLike[str], split: int = 1, *, skip_missing: bool = False
) -> Split:
    """Read the training and the test list of a split.

    The lists are a file with `train` in its name and one with `val` or `test` in its place, and `split_<N>` behind it
    where there are several (`ucf101_train_split_1_videos.txt`, `ucf101_rgb_train_split_1.txt`,
    `kinetics400_train_list_rawframes.txt`). Of several such pairs in a folder that is taken whose first video is there.

    A line is `<video> <label>`, or `<folder> <frames> <label>` for a folder of numbered images, in `videos_dir`. A path
    from the root, as TSN's tool writes them, is looked for by its last two names, or its last one. Numbers of frames
    are kept in the split; some tools count frames and others flow, which is one less.

    The classes have the names that a `classInd.txt` (as UCF-101's) or `label_map*.txt` (a name a line) beside the lists
    has; without one, those of the folders that the videos are in, if these are as many, or else their numbers. Labels
    count from 0, or from 1 where the names of the classes or of their folders tell so.

    skip_missing: leave out listed videos that are not there; the split says which.

    ListError, naming list and line, for a line that is not as above, a label that no class has or that contradicts the
    folder, a video that is not there or listed twice; naming the folder, if no pair of lists or more than one fits.
    """
    videos, lists = Path(videos_dir), Path(lists_dir)
    check_directory(videos, ListError)
    check_directory(lists, ListError)
    train, test = _choose(videos, lists, split)
    classes, labels = _classes(lists, [*train, *test])
    parts = (
        [Entry(line.place, _path(videos, line), labels[line.numbers[-1]], _frames(line)) for line in lines]
        for lines in (train, test)
    )
    return make_split(videos, classes, *parts, skip_missing=skip_missing)


# ---- which lists -----------------------------------------------------------------------------------------------------


def _pairs(names: Iterable[str]) -> list[_Pair]:
    by_kind: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        if found := _LIST.fullmatch(name):
            by_kind.setdefault((found["before"], found["after"]), {})[found["part"]] = name
    pairs = []
    for (_, after), lists in sorted(by_kind.items()):
        test = lists.get("val") or lists.get("test")  # Kinetics has both, and labels for the first alone
        if "train" in lists and test:
            number = _SPLIT.search(after)
            pairs.append(_Pair(lists["train"], test, int(number["number"]) if number else None))
    return pairs


def _choose(videos: Path, lists: Path, split: int) -> tuple[list[_Line], list[_Line]]:
    """The lines of the two lists of a split."""
    pairs = [pair for pair in _pairs(names_in(lists)) if pair.split == split or (pair.split is None and split == 1)]
    if not pairs:
        raise ListError(
            f"{lists}: no lists of split {split} (*_train_split_{split}*.txt with *_val_split_{split}*.txt)"
        )
    read = {pair: _read_list(lists / pair.train) for pair in pairs}
    # Lists of frames and of flow name the same folders.
    fitting = {
        tuple(line.path for line in lines): pair
        for pair, lines in read.items()
        if len(pairs) == 1 or look(lines[0].place, videos / _path(videos, lines[0]))
    }
    names = some_of(pair.train for pair in (fitting.values() or pairs))
    if len(fitting) > 1:
        raise ListError(f"{lists}: {names} fit, which are of different videos; keep one of them in a folder")
    if not fitting:
        raise ListError(f"{lists}: of {names}, none has its first video in {videos}")
    (pair,) = fitting.values()
    return read[pair], _read_list(lists / pair.test)


# ---- lines -----------------------------------------------------------------------------------------------------------


def _read_list(path: Path) -> list[_Line]:
    """The lines of a list; they hold frames if all end in two numbers, so that the name of a video may end in one."""
    lines = list(read_lines(path))
    has_frames = all(len(words := line.rsplit(maxsplit=2)) > 2 and _is_number(words[1]) for _, line in lines)
    return [_parse(place, line, 2 if has_frames else 1) for place, line in lines]


def _parse(place: str, line: str, numbers: int) -> _Line:
    words = line.rsplit(maxsplit=numbers)
    if len(words) <= numbers or not all(map(_is_number, words[1:])):
        raise ListError(f"{place}: expected {_EXPECTED}, got {line!r}")
    return _Line(place, words[0], tuple(map(int, words[1:])))


def _is_number(word: str) -> bool:
    return len(word) < 10 and word.isascii() and word.isdecimal()


def _frames(line: _Line) -> int | None:
    return line.numbers[0] if len(line.numbers) > 1 else None


def _path(videos: Path, line: _Line) -> str:
    """The path of a listed video in the folder of videos."""
    path = PurePath(line.path)
    if path.is_absolute():
        if path.is_relative_to(videos.absolute()):
            path = path.relative_to(videos.absolute())
        else:
            nearer, nearest = PurePath(*path.parts[-2:]), PurePath(path.name)
            found = [each for each in (nearer, nearest) if look(line.place, videos / each)]
            path = found[0] if found else nearer
    return "/".join(parts_of(line.place, str(path), _EXPECTED))


# ---- classes ---------------------------------------------------------------------------------------------------------


def _classes(lists: Path, lines: Sequence[_Line]) -> tuple[list[str], dict[int, int]]:
    """Names of the classes, and the label that each label of the lists stands for."""
    names = _named_classes(lists)
    if names is not None:
        first = _first_label(names, lines)
        return names, {line.numbers[-1]: line.numbers[-1] - first for line in lines}
    folders: dict[int, set[str]] = {}
    for line in lines:
        folders.setdefault(line.numbers[-1], set()).add(_folder(line))
    listed = sorted(folders)
    own = list(chain.from_iterable(folders[label] for label in listed))
    named = len(own) == len(set(own)) == len(listed) and all(own)
    return own if named else list(map(str, listed)), {label: index for index, label in enumerate(listed)}


def _named_classes(lists: Path) -> list[str] | None:
    names = names_in(lists)
    if CLASSES_FILE in names:
        return read_classes(lists / CLASSES_FILE)
    maps = [name for name in names if _LABEL_MAP.fullmatch(name)]
    if len(maps) > 1:
        raise ListError(f"{lists}: {some_of(maps)} may name the classes; keep one of them")
    if not maps:
        return None
    classes: dict[str, None] = {}
    for place, line in read_lines(lists / maps[0]):
        if line in classes:
            raise ListError(f"{place}: class {line!r} is listed twice")
        classes[line] = None
    return list(classes)


def _first_label(names: Sequence[str], lines: Sequence[_Line]) -> int:
    """What labels count from: 0, or 1 where that alone fits the names of the classes and of the folders."""
    faults = []
    for first in (0, 1):
        fault = next(filter(None, (_fault(names, line, first) for line in lines)), None)
        if fault is None:
            return first
        faults.append(fault)
    raise ListError(faults[0])


def _fault(names: Sequence[str], line: _Line, first: int) -> str | None:
    label = line.numbers[-1] - first
    if not 0 <= label < len(names):
        return f"{line.place}: label is {line.numbers[-1]}, expected 0 to {len(names) - 1}"
    folder = _folder(line)
    if folder in names and names[label] != folder:
        return f"{line.place}: label {line.numbers[-1]} is class {names[label]!r}, but the folder is {folder!r}"
    return None


def _folder(line: _Line) -> str:
    return PurePath(line.path).parent.name
