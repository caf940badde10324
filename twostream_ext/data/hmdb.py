# SPDX-License-Identifier: BSD-3-Clause
"""Split lists in HMDB-51's format: a file for each class and split, `brush_hair_test_split1.txt`, ..."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from twostream_ext.data.split import Entry, Split, make_split, names_in, parts_of, read_lines, without_case
from twostream_ext.data.ucf import CLASSES_FILE, read_classes
from twostream_ext.errors import ListError
from twostream_ext.files import check_directory

_LIST = re.compile(r"(?P<name>.+)_test_split(?P<split>[0-9]+)\.txt", re.DOTALL)
_PARTS = {"0": None, "1": "train", "2": "test"}


def is_hmdb(names: Iterable[str]) -> bool:
    """Whether the names of files are those of such lists."""
    return any(_LIST.fullmatch(name) for name in names)


def hmdb_splits(names: Iterable[str]) -> set[int]:
    """The numbers of the splits of which the names of files have a list."""
    return {int(found["split"]) for found in map(_LIST.fullmatch, names) if found}


def read_hmdb_lists(
    videos_dir: str | os.PathLike[str], lists_dir: str | os.PathLike[str], split: int = 1, *, skip_missing: bool = False
) -> Split:
    """Read the lists of all classes of a split.

    A line of `<class>_test_split<N>.txt` is `<clip>.avi <flag>`, the clip `<class>/<clip>.avi` in `videos_dir` and the
    flag 1 for training, 2 for testing, 0 for neither. The data set has no list of its classes: they come in the order
    of their names, upper and lower case alike, or in that of a `classInd.txt` (as UCF-101's) beside the lists. That of
    the names of the lists, which some use, is another one: kick_ball_test_split1.txt comes before kick_test_split1.txt.

    skip_missing: leave out listed videos that are not there; the split says which.

    ListError, naming list and line, for a line that is not as above, a clip that is not there or listed twice; and for
    a class that has lists of other splits alone.
    """
    videos, lists = Path(videos_dir), Path(lists_dir)
    check_directory(videos, ListError)
    check_directory(lists, ListError)
    classes = _classes(lists, split)
    parts: dict[str | None, list[Entry]] = {part: [] for part in _PARTS.values()}
    for label, name in enumerate(classes):
        for place, line in read_lines(lists / f"{name}_test_split{split}.txt"):
            part, entry = _parse(place, line, name, label)
            parts[part].append(entry)
    return make_split(videos, classes, parts["train"], parts["test"], skip_missing=skip_missing)


def _classes(lists: Path, split: int) -> list[str]:
    names = names_in(lists)
    found = [each for each in map(_LIST.fullmatch, names) if each]
    all_classes = {each["name"] for each in found}
    listed = {each["name"] for each in found if each["split"] == str(split)}
    if not listed:
        raise ListError(f"{lists}: no list <class>_test_split{split}.txt")
    if all_classes - listed:
        raise ListError(f"{lists}: no list {min(all_classes - listed)}_test_split{split}.txt, but of other splits")
    if CLASSES_FILE not in names:
        return sorted(listed, key=without_case)
    classes = read_classes(lists / CLASSES_FILE)
    if set(classes) != listed:
        name = min(set(classes) ^ listed)
        where = "has a list and is not in" if name in listed else "has no list and is in"
        raise ListError(f"{lists}: class {name!r} {where} {CLASSES_FILE}")
    return classes


def _parse(place: str, line: str, name: str, label: int) -> tuple[str | None, Entry]:
    expected = "'<clip>.avi <flag>', the flag 0, 1 or 2"
    words = line.rsplit(maxsplit=1)
    parts = parts_of(place, words[0], expected)
    if len(words) < 2 or words[1] not in _PARTS or len(parts) > 1:
        raise ListError(f"{place}: expected {expected}, got {line!r}")
    return _PARTS[words[1]], Entry(place, f"{name}/{parts[0]}", label)
