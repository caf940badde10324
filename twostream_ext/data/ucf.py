# SPDX-License-Identifier: BSD-3-Clause
"""Split lists in UCF-101's format: `classInd.txt`, `trainlist01.txt`, `testlist01.txt`, ..."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from twostream_ext.data.split import Entry, Split, make_split, parts_of, read_lines
from twostream_ext.errors import ListError
from twostream_ext.files import atomic_write, check_directory

CLASSES_FILE = "classInd.txt"
_LIST = re.compile(r"(?:train|test)list(?P<split>[0-9]+)\.txt")


def is_ucf(names: Iterable[str]) -> bool:
    """Whether the names of files are those of such lists."""
    return any(_LIST.fullmatch(name) for name in names)


def ucf_splits(names: Iterable[str]) -> set[int]:
    """The numbers of the splits of which the names of files have a list."""
    return {int(found["split"]) for found in map(_LIST.fullmatch, names) if found}


def read_ucf_lists(
    videos_dir: str | os.PathLike[str], lists_dir: str | os.PathLike[str], split: int = 1, *, skip_missing: bool = False
) -> Split:
    """Read the class list, and the training and the test list of a split.

    A line of `classInd.txt` is `<id> <Class>`, with ids 1, 2, ... in order; the classes keep that
    order (UCF-101's is not Python's: Hammering comes before HammerThrow). A line of
    `trainlist01.txt` or `testlist01.txt` is `<Class>/<file>`, the file in `videos_dir`, and in
    UCF-101's training lists its class id, which must then be that of the folder. The class is that
    of the folder and not of the file's name (HandstandPushups/v_HandStandPushups_g01_c01.avi). Line
    ends may be CRLF, empty lines are skipped.

    skip_missing: leave out listed videos that are not there; the split says which.

    ListError, naming list and line, for a list that is missing or empty, a line that is not as
    above, a video that is not there or listed twice, a class or id that is not in classInd.txt.
    """
    videos, lists = Path(videos_dir), Path(lists_dir)
    check_directory(videos, ListError)
    check_directory(lists, ListError)
    classes = read_classes(lists / CLASSES_FILE)
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (
        (_parse_video(place, line, labels) for place, line in read_lines(path))
        for path in (lists / f"{part}list{split:02d}.txt" for part in ("train", "test"))
    )
    return make_split(videos, classes, train, test, skip_missing=skip_missing)


def write_ucf_lists(folder: str | os.PathLike[str], split: Split) -> None:
    """Write lists that `read_ucf_lists` reads as this split, of number 1; `classInd.txt`, the last, when all is there.

    ListError, naming it, for a class or a video that no line can hold.
    """
    classes = [f"{number} {name}" for number, name in enumerate(split.classes, 1)]
    train = [f"{video.path} {video.label + 1}" for video in split.train]
    # A name that ends in a number of its own would be taken for one with a class id.
    test = [f"{video.path} {video.label + 1}" if _split_number(video.path)[1] else video.path for video in split.test]
    for name, lines in (("trainlist01.txt", train), ("testlist01.txt", test), (CLASSES_FILE, classes)):
        for line in lines:
            if "\n" in line or line != line.strip():
                raise ListError(f"{line!r} cannot be listed: names with line ends, or with blanks at an end, cannot be")
        with atomic_write(Path(folder) / name) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_classes(path: Path) -> list[str]:
    classes: dict[str, None] = {}
    for place, line in read_lines(path):
        parts = line.split(maxsplit=1)
        if len(parts) != 2:
            raise ListError(f"{place}: expected '<id> <Class>', got {line!r}")
        number, name = parts
        if number != str(len(classes) + 1):
            raise ListError(f"{place}: class id is {number!r}, expected {len(classes) + 1}")
        if name in classes:
            raise ListError(f"{place}: class {name!r} is listed twice")
        classes[name] = None
    return list(classes)


def _parse_video(place: str, line: str, labels: dict[str, int]) -> Entry:
    file, number = _split_number(line)
    parts = parts_of(place, file, "'<Class>/<file>'")
    if len(parts) < 2:
        raise ListError(f"{place}: expected '<Class>/<file>', got {line!r}")
    folder = parts[-2]
    if folder not in labels:
        raise ListError(f"{place}: class {folder!r} is not in {CLASSES_FILE}")
    if number is not None and number.lstrip("0") != str(labels[folder] + 1):
        raise ListError(f"{place}: class id is {number}, but {folder!r} has {labels[folder] + 1}")
    return Entry(place, "/".join(parts), labels[folder])


def _split_number(line: str) -> tuple[str, str | None]:
    """The file, which may have spaces, and the class id if there is one."""
    parts = line.rsplit(maxsplit=1)
    if len(parts) == 2 and parts[1].isascii() and parts[1].isdecimal():
        return parts[0], parts[1]
    return line, None
