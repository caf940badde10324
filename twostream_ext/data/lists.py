# SPDX-License-Identifier: BSD-3-Clause
"""Split lists in UCF-101's format: `classInd.txt`, `trainlist01.txt`, `testlist01.txt`, ..."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from twostream_ext.errors import ListError
from twostream_ext.files import check_directory
from twostream_ext.media import directory


class Video(NamedTuple):
    path: str  # in the folder of videos: "Class/v_x.avi"
    name: str  # in a store: "Class/v_x"
    label: int  # index of the class, from 0


class Split(NamedTuple):
    classes: list[str]  # in the order of classInd.txt
    train: list[Video]
    test: list[Video]


def read_ucf_lists(videos_dir: str | os.PathLike[str], lists_dir: str | os.PathLike[str], split: int = 1) -> Split:
    """Read the class list, and the training and the test list of a split.

    A line of `classInd.txt` is "<id> <Class>", with ids 1, 2, ... in order; the classes keep that
    order (UCF-101's is not Python's: Hammering comes before HammerThrow). A line of
    `trainlist01.txt` or `testlist01.txt` is "<Class>/<file>", the file in `videos_dir`, and in
    UCF-101's training lists its class id, which must then be that of the folder. The class is that
    of the folder and not of the file's name (HandstandPushups/v_HandStandPushups_g01_c01.avi). Line
    ends may be CRLF, empty lines are skipped.

    ListError, naming list and line, for a list that is missing or empty, a line that is not as
    above, a video that is not there or listed twice, a class or id that is not in classInd.txt.
    """
    videos, lists = Path(videos_dir), Path(lists_dir)
    check_directory(videos, ListError)
    check_directory(lists, ListError)
    classes = _read_classes(lists / "classInd.txt")
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (_read_videos(lists / f"{part}list{split:02d}.txt", videos, labels) for part in ("train", "test"))
    return Split(classes, train, test)


def _read_classes(path: Path) -> list[str]:
    classes: dict[str, None] = {}
    for place, line in _lines(path):
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


def _read_videos(path: Path, videos: Path, labels: dict[str, int]) -> list[Video]:
    listed: dict[str, Video] = {}
    files: dict[str, set[str]] = {}  # by folder: to ask for each file takes long on a disk in the network
    for place, line in _lines(path):
        video = _parse_video(place, line, labels)
        folder, _, file = video.path.rpartition("/")
        if folder not in files:
            files[folder] = _list_files(videos / folder)
        if file not in files[folder]:
            _check_video(place, videos / video.path)
        if video.name in listed:
            raise ListError(f"{place}: video {video.name!r} is listed twice")
        listed[video.name] = video
    return list(listed.values())


def _list_files(folder: Path) -> set[str]:
    """The names of the files in a folder; none if it cannot be read: who asks for one of them says why."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()


def _check_video(place: str, path: Path) -> None:
    """ListError, saying why, unless there is such a file."""
    try:
        found = path.is_file()
    except (OSError, ValueError) as error:  # a folder that may not be read, a name too long
        raise ListError(f"{place}: video {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise ListError(f"{place}: no video {str(path)!r}")


def _parse_video(place: str, line: str, labels: dict[str, int]) -> Video:
    file, number = _split_number(line)
    parts = [part for part in file.split("/") if part not in ("", ".")]
    if len(parts) < 2 or file.startswith("/") or ".." in parts:
        raise ListError(f"{place}: expected '<Class>/<file>', got {line!r}")
    folder = parts[-2]
    if folder not in labels:
        raise ListError(f"{place}: class {folder!r} is not in classInd.txt")
    if number is not None and number.lstrip("0") != str(labels[folder] + 1):
        raise ListError(f"{place}: class id is {number}, but {folder!r} has {labels[folder] + 1}")
    path = "/".join(parts)
    return Video(path, directory.clip_name(path), labels[folder])


def _split_number(line: str) -> tuple[str, str | None]:
    """The file, which may have spaces, and the class id if there is one."""
    parts = line.rsplit(maxsplit=1)
    if len(parts) == 2 and parts[1].isascii() and parts[1].isdecimal():
        return parts[0], parts[1]
    return line, None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, each after the place that errors name; ListError if there are none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ListError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ListError(f"{path}: is not UTF-8 text") from error
    if not text.strip():
        raise ListError(f"{path}: is empty")
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.strip():
            yield f"{path}, line {number}", stripped
