# SPDX-License-Identifier: BSD-3-Clause
"""A data set divided into training and test videos, and what the readers of all kinds of lists share."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from twostream_ext.errors import ListError
from twostream_ext.media.directory import clip_name

_SHOWN = 3  # names in a message


class Video(NamedTuple):
    path: str  # in the folder of videos: "Class/v_x.avi", or "Class/v_x" where that is a folder of images
    name: str  # in a store: "Class/v_x"
    label: int  # index of the class, from 0


class Split(NamedTuple):
    classes: list[str]  # in the order of their labels
    train: list[Video]
    test: list[Video]
    missing: tuple[str, ...] = ()
    """Paths of videos that the lists have and the folder has not, where it was said to go on without them."""
    frame_counts: Mapping[str, int] = MappingProxyType({})
    """Numbers of frames by the videos' names, where the lists have them."""


class Entry(NamedTuple):
    """What a line of a list says."""

    place: str  # that errors name: file and line
    path: str  # of the video in the folder of videos
    label: int
    frames: int | None = None


def make_split(
    root: Path, classes: list[str], train: Sequence[Entry], test: Sequence[Entry], *, skip_missing: bool
) -> Split:
    """The videos that are listed, of those that there are.

    A folder, of numbered images, has the name in stores that it has here; a file has there no ending.

    ListError, naming the line, for a video that is listed twice or may not be looked at; naming the first and counting
    all, where some are missing, unless they are to be skipped; and in any case where none is there.
    """
    missing: list[Entry] = []
    frame_counts: dict[str, int] = {}
    for_training, for_testing = (_find_videos(root, entries, missing, frame_counts) for entries in (train, test))
    if missing and not (skip_missing and (for_training or for_testing)):
        raise ListError(_missing_text(root, missing, len(train) + len(test)))
    return Split(classes, for_training, for_testing, tuple(entry.path for entry in missing), frame_counts)


def path_parts(place: str, text: str, expected: str) -> list[str]:
    """The folders and the file of a video's path; ListError, with what was expected, for one that leads out of its
    folder."""
    parts = [part for part in text.split("/") if part not in ("", ".")]  # a path object for each takes long
    if text.startswith("/") or ".." in parts or not parts:
        raise ListError(f"{place}: expected {expected}, got {text!r}")
    return parts


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, without blanks at their ends, each after the place that errors name.

    ListError, naming the file, if it cannot be read, is not UTF-8 or has no such line.
    """
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


def names_in(folder: Path) -> list[str]:
    """The names of what is in a folder, sorted; ListError, naming it, if it cannot be read."""
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise ListError(f"{folder}: cannot be read: {error.strerror}") from error


def without_case(name: str) -> tuple[str, str]:
    """Sorts as UCF-101's classInd.txt does: Hammering before HammerThrow, which Python's own order turns round."""
    return name.casefold(), name


def some_of(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = list(names)
    return ", ".join(map(repr, listed[:_SHOWN])) + (", ..." if len(listed) > _SHOWN else "")


def _find_videos(
    root: Path, entries: Iterable[Entry], missing: list[Entry], frame_counts: dict[str, int]
) -> list[Video]:
    """The videos of one list; to `missing` those are added that are not there."""
    videos: dict[str, Video] = {}
    listed: dict[str, dict[str, bool]] = {}  # by folder: to ask for each file takes long on a disk in the network
    for entry in entries:
        folder, _, file = entry.path.rpartition("/")
        if folder not in listed:
            listed[folder] = _list_folder(root / folder)
        is_folder = listed[folder].get(file)
        if is_folder is None:
            found = look(entry.place, root / entry.path)  # says why, where there is more than that it is not there
            is_folder = None if found is None else stat.S_ISDIR(found)
        if is_folder is None:
            missing.append(entry)
            continue
        name = entry.path if is_folder else clip_name(entry.path)
        if name in videos:
            raise ListError(f"{entry.place}: video {name!r} is listed twice")
        videos[name] = Video(entry.path, name, entry.label)
        if entry.frames is not None:
            frame_counts[name] = entry.frames
    return list(videos.values())


def _list_folder(folder: Path) -> dict[str, bool]:
    """The names of what is in a folder, and whether it is one itself; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: is_folder for entry in entries if (is_folder := entry.is_dir()) or entry.is_file()}
    except (OSError, ValueError):
        return {}


def look(place: str, path: Path) -> int | None:
    """What kind of file is there (`st_mode`); None if there is none. ListError, with the place, if that is not told."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a folder that may not be read, a name too long
        raise ListError(f"{place}: video {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _missing_text(root: Path, missing: Sequence[Entry], count: int) -> str:
    first = missing[0]
    text = f"{first.place}: no video {str(root / first.path)!r}"
    if len(missing) == count:
        return f"{text}, and none of the {count} listed"
    if len(missing) > 1:
        text += f"; {len(missing)} of {count} listed are missing: {some_of(entry.path for entry in missing)}"
    return f"{text}; skip_missing (--skip-missing) goes on without"
