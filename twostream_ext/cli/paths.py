# SPDX-License-Identifier: BSD-3-Clause
"""Options that name files and folders: each says what is done with it, so that no output is an input of any command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from twostream_ext.errors import SettingsError, TwoStreamError
from twostream_ext.files import is_inside, is_same, refuse_same_file


class ReadsFile(NamedTuple):
    """Of the file, every byte is the user's."""


class ReadsPaths(NamedTuple):
    """The file, and what the paths in it lead to."""

    paths: Callable[[Path], list[Named]]


class ReadsFolder(NamedTuple):
    """Of the folder, and of the folders in it, all files but those with some endings are read."""

    unread: tuple[str, ...] = ()
    is_store: bool = False
    """Whatever lies in it is taken for a part of it: nothing else may be written there."""


class WritesFile(NamedTuple):
    """The file is written anew."""


class WritesFolder(NamedTuple):
    """Files are put into the folder, beside what is there."""

    files: Callable[[], tuple[str, ...]] = tuple
    """Those of them whose names are known, and which could be given as an input."""


class WritesStore(NamedTuple):
    """The folder becomes a store of this command, or goes on being one."""


Use = ReadsFile | ReadsPaths | ReadsFolder | WritesFile | WritesFolder | WritesStore


class Named(NamedTuple):
    """A path that was given, and what is done with it."""

    path: Path
    use: Use


def add_path(parser: argparse._ActionsContainer, *names: str, use: Use, **options: Any) -> None:
    """`add_argument` of a path, or of several."""
    parser.add_argument(*names, type=Path, **options).use = use  # type: ignore[attr-defined]


def find_use(option: argparse.Action) -> Use | None:
    """What is done with the paths of an option; None if it was not added by `add_path`."""
    return getattr(option, "use", None)


def check_paths(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """SettingsError, naming both, if a path to be written is one that is read, or another that is written.

    It is, if both lead to one file or folder, whatever links there are in between. So is a file in a folder that is
    read, and all that would be written into a store.
    """
    named = list(_named(parser, given))
    inputs = [each for each in named if isinstance(each.use, ReadsFile | ReadsFolder)]
    outputs = [each for each in named if not isinstance(each.use, ReadsFile | ReadsFolder)]
    for place, output in enumerate(outputs):
        if isinstance(output.use, WritesFile):
            refuse_same_file(output.path)
        for each in inputs:
            _refuse_input(output, each)
        for other in outputs[:place]:
            if is_same(output.path, other.path) or _are_nested_stores(output, other):
                raise SettingsError(f"{output.path}: lies with the output {other.path}; write to another place")


def _named(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Iterator[Named]:
    for option in {option.dest: option for option in parser._actions}.values():  # which may have other spellings
        use, value = find_use(option), getattr(given, option.dest, None)
        if use is not None and value is not None:
            for path in value if isinstance(value, list) else [value]:
                if isinstance(use, ReadsPaths):
                    yield Named(path, ReadsFile())
                    yield from use.paths(path)
                else:
                    yield Named(path, use)


def _refuse_input(output: Named, read: Named) -> None:
    """SettingsError, naming both, if something of what is read would be lost, or mixed with what is not of it."""
    out, path = output.path, read.path
    if isinstance(read.use, ReadsFile):
        if isinstance(output.use, WritesStore) and is_same(out, path):
            raise SettingsError(f"{out}: is the input {path} itself; write to another place")
        for file in _files(output):
            refuse_same_file(file, path)
        return
    assert isinstance(read.use, ReadsFolder)
    if isinstance(output.use, WritesFile) and out.suffix.lower() not in read.use.unread:
        refuse_same_file(out, path)
        if out.is_file() and _leads_to(path, out):
            raise SettingsError(f"{out}: is a file of the input {path} and would be overwritten; write to another file")
    if read.use.is_store and is_inside(out, path):
        raise SettingsError(f"{out}: lies in the input {path}, and would be taken for a part of it; write elsewhere")


def _files(output: Named) -> list[Path]:
    if isinstance(output.use, WritesFolder):
        return [output.path / name for name in output.use.files()]
    return [output.path] if isinstance(output.use, WritesFile) else []


def _are_nested_stores(one: Named, other: Named) -> bool:
    both = isinstance(one.use, WritesStore) and isinstance(other.use, WritesStore)
    return both and (is_inside(one.path, other.path) or is_inside(other.path, one.path))


def _leads_to(folder: Path, file: Path) -> bool:
    """Whether a link somewhere in the folder leads to a file."""
    from twostream_ext.media.directory import list_folders

    has_hard_links = file.stat().st_nlink > 1
    with suppress(TwoStreamError, OSError):  # a folder that cannot be read: whoever opens it says so
        for name, files in list_folders(folder):
            for path in (folder / name / each for each in files):
                if (has_hard_links or path.is_symlink()) and is_same(path, file):
                    return True
    return False
