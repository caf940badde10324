# SPDX-License-Identifier: BSD-3-Clause
"""A data set divided into training and test videos, and what the readers of all kinds of lists share."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from twostream_ext.errors import ListError
from twostream_ext.media import VIDEO_EXTENSIONS, is_numbered_images
from twostream_ext.media.directory import clip_name

_SHOWN = 3  # names in a message
_GROUP = re.compile(r"_(g[0-9]+)_")


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
    folder: Path | None = None
    """That of the videos."""


class Entry(NamedTuple):
    """What a line of a list says."""

    place: str  # that errors name: file and line
    path: str  # of the video in the folder of videos
    label: int
    frames: int | None = None


def make_split(
    root: Path, classes: list[str], train: Iterable[Entry], test: Iterable[Entry], *, skip_missing: bool
) -> Split:
    """The videos that are listed, of those that there are.

    A folder, of numbered images, has the name in stores that it has here; a file has there no ending.

    ListError, naming the line, for a video that is listed twice or may not be looked at; naming the first and counting
    all, where some are missing, unless they are to be skipped; and in any case where none is there.
    """
    search = _Search(root)
    with _no_garbage():
        for_training, for_testing = search.find(train), search.find(test)
    found = len(for_training) + len(for_testing)
    if search.missing and not (skip_missing and found):
        raise ListError(_missing_text(root, search.missing, found))
    missing = tuple(entry.path for entry in search.missing)
    return Split(classes, for_training, for_testing, missing, search.frame_counts, root)


def parts_of(place: str, text: str, expected: str) -> list[str]:
    """The names in the path of a video in its folder; ListError, with what was expected, for one that leads out."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or text.startswith("/") or ".." in parts:
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


def group_of(path: str) -> str:
    """What a video shares with others of its group: `g07` of `A/v_A_g07_c01.avi`, as UCF-101 marks people and scene.

    A video whose name marks no group is one of its own, known by its path.
    """
    found = _GROUP.search(PurePosixPath(path).name)
    return found[1] if found else path


def some_of(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = list(names)
    return ", ".join(map(repr, listed[:_SHOWN])) + (", ..." if len(listed) > _SHOWN else "")


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Make many small things that all stay: to look among them for garbage takes a quarter of a million lines' time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Search:
    """Looks for videos by listings of their folders: to ask for each file takes long on a disk in the network."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, dict[str, bool]] = {}
        self.missing: list[Entry] = []
        self.frame_counts: dict[str, int] = {}

    def find(self, entries: Iterable[Entry]) -> list[Video]:
        """The videos of one list that are there; the others are added to `missing`."""
        videos: dict[str, Video] = {}
        for entry in entries:
            path = entry.path
            is_folder = self._is_folder(entry)
            if is_folder is None:
                self.missing.append(entry)
                continue
            name = path if is_folder else clip_name(path)
            if name in videos:
                raise ListError(f"{entry.place}: video {name!r} is listed twice")
            videos[name] = Video(path, name, entry.label)
            if entry.frames is not None:
                self.frame_counts[name] = entry.frames
        return list(videos.values())

    def _is_folder(self, entry: Entry) -> bool | None:
        """Whether a video is a folder of images; None if there is none."""
        folder, _, name = entry.path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = _list_folder(self._root / folder)
        found = self._folders[folder].get(name)
        if found is None:
            look(entry.place, self._root / entry.path)  # which says why, if the folder could not be read
        elif found and name.lower().endswith(VIDEO_EXTENSIONS):  # named as files are
            return True if is_numbered_images(names_in(self._root / entry.path)) else None
        return found


def _list_folder(folder: Path) -> dict[str, bool]:
    """Whether each name in a folder is that of a folder; without links to nothing, and empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {each.name: each.is_dir() for each in entries if each.is_file() or each.is_dir()}
    except (OSError, ValueError):
        return {}


def look(place: str, path: Path) -> bool:
    """Whether there is something; ListError, with the place, if that is not told."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # a folder that may not be read, a name too long
        raise ListError(f"{place}: video {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    return True


def _missing_text(root: Path, missing: Sequence[Entry], found: int) -> str:
    first, count = missing[0], len(missing) + found
    text = f"{first.place}: no video {str(root / first.path)!r}"
    if not found:
        return f"{text}, and none of the {count} listed"
    if len(missing) > 1:
        text += f"; {len(missing)} of {count} listed are missing: {some_of(entry.path for entry in missing)}"
    return f"{text}; skip_missing (--skip-missing) goes on without"
