# SPDX-License-Identifier: BSD-3-Clause
"""A directory of containers that mirrors a tree of videos, and the settings they were made with."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from twostream_ext.errors import FlowStoreError, TwoStreamError
from twostream_ext.files import check_directory
from twostream_ext.media.container import Container, Identity, is_unchanged, open_container
from twostream_ext.settings_files import claim, compare_settings, read_settings

SUFFIX = ".safetensors"
SETTINGS_FILE = "store.json"

_MOST_RECENT = 512  # clips whose ranges and offsets stay in memory, some 15 kB each; no file stays open

Clip = TypeVar("Clip")


class Store(ABC, Generic[Clip]):
    """The clips of a directory by name, `<class>/<video>` without extension, in sorted order.

    Opening it lists the directory and reads no clip. A clip is compared with its checksum the first
    time it is taken in a process, which reads its whole file once.
    """

    kind: ClassVar[str]  # of its containers

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path`: the directory. FlowStoreError if it is missing or holds no clip."""
        self.path = Path(path)
        check_directory(self.path, FlowStoreError)
        if (self.path / SETTINGS_FILE).exists():
            kind = read_settings(self.path / SETTINGS_FILE, FlowStoreError).get("kind", self.kind)
            if kind != self.kind:
                raise FlowStoreError(f"{self.path}: is a store of {kind}, expected one of {self.kind}")
        self._names = dict.fromkeys(_list_names(self.path))
        if not self._names:
            raise FlowStoreError(f"{self.path}: holds no {self.kind} files (*{SUFFIX}; links out of it are left out)")
        self._trusted: set[Identity] = set()
        self._recent: dict[str, Container] = {}  # of those in `_trusted`

    @abstractmethod
    def _clip(self, name: str, container: Container) -> Clip: ...

    def __getitem__(self, name: str) -> Clip:
        """FlowStoreError if there is no such clip or it is damaged."""
        return self._clip(name, self._open(name, self._trusted))

    def peek(self, name: str) -> Clip:
        """The clip, without comparing its checksum: reads the header alone."""
        return self._clip(name, self._open(name, None))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} videos)"

    def _has_alias(self, name: str) -> bool:
        """Whether a clip can be found under another path than that which is listed, by a link to its folder."""
        path = clip_path(self.path, name)
        if ".." in Path(name).parts or not path.is_file():
            return False
        check_inside(path, self.path)
        return True

    def _open(self, name: str, trusted: set[Identity] | None) -> Container:
        recent = self._recent.get(name)
        if recent is not None and is_unchanged(recent):
            return recent
        if name not in self._names and not self._has_alias(name):
            raise FlowStoreError(f"{self.path}: holds no video {name!r}")
        container = open_container(clip_path(self.path, name), self.kind, trusted=trusted)
        if trusted is not None:
            if len(self._recent) >= _MOST_RECENT:
                self._recent.clear()
            self._recent[name] = container
        return container


def clip_path(root: Path, name: str) -> Path:
    """The file of a clip; names may contain dots."""
    return root / f"{name}{SUFFIX}"


def clip_name(video: str) -> str:
    """Give the name of the clip of a video's file: "A/b.v2" of "A/b.v2.avi", "A/.b" of "A/.b"."""
    name, _, ending = video.rpartition(".")
    has_ending = ending and "/" not in ending and name and not name.endswith("/")
    return name if has_ending else video


def claim_directory(root: Path, kind: str, settings: Any) -> None:
    """Note a settings dataclass in a store's directory, or check that it is that noted; see `settings_files.claim`.

    SettingsError, naming the directory and the setting, if they differ; FlowStoreError if what is noted is damaged.
    """
    noted = {"kind": kind, **settings_dict(settings)}
    claim(root / SETTINGS_FILE, noted, FlowStoreError, unnoted=unnoted(settings))


def compare_clip(path: Path, noted: Mapping[str, Any], settings: Any) -> None:
    """SettingsError, naming the file and the setting, unless a clip's description is of these settings."""
    compare_settings(path, {**unnoted(settings), **noted}, settings_dict(settings))


def settings_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return plain


def unnoted(settings: Any) -> dict[str, Any]:
    """Settings that earlier versions knew nothing of, as they were then: all that have a default."""
    return {
        field.name: field.default for field in dataclasses.fields(settings) if field.default is not dataclasses.MISSING
    }


class _Inside(NamedTuple):
    """The names of what is in a folder."""

    folders: list[str]
    links: list[str]  # to folders
    others: list[str]


def check_inside(path: Path, root: Path) -> None:
    """FlowStoreError, naming it, for a path below a store that leads out of it by a link.

    A store may come from anyone, and what its links lead to is not of it. (Its root may be a link itself.)
    """
    if not _leads_into(path, root):
        raise FlowStoreError(f"{path}: leads out of {root} by a link, which is not followed; copy what it leads to")


def _leads_into(path: str | Path, root: Path) -> bool:
    real, inside = os.path.realpath(path), os.path.realpath(root)
    return real == inside or real.startswith(inside.rstrip(os.sep) + os.sep)


def list_folders(
    root: Path, wrong: type[TwoStreamError] = FlowStoreError, *, within: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """All folders of a tree, as paths inside it ("." the first), each with the names of all in it that is no folder.

    Each folder is given once, however many links lead to it: under its own path if it lies in the tree, else under that
    of the first link to it, those with the shortest path coming first and then in the order of their names. So links
    into the tree itself, of which a few could spell more paths than there is time for, change nothing.

    within: leave out links, to files too, that lead out of the tree, as those of a store may not.

    `wrong`, naming it, for a folder that cannot be read.
    """
    folders = [(".", root)]
    links: list[tuple[int, str, Path]] = []  # a heap
    seen: set[tuple[int, int]] = set()
    while folders or links:
        # Links wait until all folders found so far are done: their own paths come before those of links.
        name, folder = folders.pop() if folders else heappop(links)[1:]
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                inside = _separate(entries if not within else _without_links_out(entries, root))
        except OSError as error:
            raise wrong(f"{folder}: cannot be read: {error.strerror}") from error
        yield name, inside.others
        prefix = "" if name == "." else f"{name}/"
        folders += [(prefix + each, folder / each) for each in sorted(inside.folders, reverse=True)]
        for each in inside.links:
            heappush(links, (prefix.count("/"), prefix + each, folder / each))


def _without_links_out(entries: Iterable[os.DirEntry[str]], root: Path) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in entries if not entry.is_symlink() or _leads_into(entry.path, root))


def _separate(entries: Iterable[os.DirEntry[str]]) -> _Inside:
    inside = _Inside([], [], [])
    for entry in entries:
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link that leads to itself; whoever opens it will say so
            is_folder = False
        names = inside.others if not is_folder else inside.links if entry.is_symlink() else inside.folders
        names.append(entry.name)
    return inside


def _list_names(root: Path) -> list[str]:
    names = []
    for folder, files in list_folders(root, within=True):
        for file in files:
            if file.endswith(SUFFIX) and not file.startswith("._"):  # which macOS leaves beside every file
                stem = file.removesuffix(SUFFIX)
                names.append(stem if folder == "." else f"{folder}/{stem}")
    return sorted(names)
