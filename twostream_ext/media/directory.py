# SPDX-License-Identifier: BSD-3-Clause
"""A directory of containers that mirrors a tree of videos, and the settings they were made with."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from twostream_ext.errors import FlowStoreError
from twostream_ext.media.container import Container, Identity, is_unchanged, open_container
from twostream_ext.settings_files import claim, compare_settings

SUFFIX = ".safetensors"
SETTINGS_FILE = "store.json"

_MOST_RECENT = 512  # clips whose ranges and offsets stay in memory, some 15 kB each; no file stays open

Clip = TypeVar("Clip")


class Store(ABC, Generic[Clip]):
    """The clips of a directory by name, "<class>/<video>" without extension, in sorted order.

    Opening it lists the directory and reads no clip. A clip is compared with its checksum the first
    time it is taken in a process, which reads its whole file once.
    """

    kind: ClassVar[str]  # of its containers

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path`: the directory. FlowStoreError if it is missing or holds no clip."""
        self.path = Path(path)
        if not self.path.is_dir():
            raise FlowStoreError(f"{self.path}: no such directory")
        self._names = dict.fromkeys(_list_names(self.path))
        if not self._names:
            raise FlowStoreError(f"{self.path}: holds no {self.kind} files (*{SUFFIX})")
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

    def _open(self, name: str, trusted: set[Identity] | None) -> Container:
        recent = self._recent.get(name)
        if recent is not None and is_unchanged(recent):
            return recent
        if name not in self._names:
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


def claim_directory(root: Path, kind: str, settings: Any) -> None:
    """Note a settings dataclass in a store's directory, or check that it is that noted; see `settings_files.claim`.

    SettingsError, naming the directory and the setting, if they differ; FlowStoreError if what is noted is damaged.
    """
    noted = {"kind": kind, **settings_dict(settings)}
    claim(root / SETTINGS_FILE, noted, FlowStoreError, unnoted=_unnoted(settings))


def compare_clip(path: Path, noted: Mapping[str, Any], settings: Any) -> None:
    """SettingsError, naming the file and the setting, unless a clip's description is of these settings."""
    compare_settings(path, {**_unnoted(settings), **noted}, settings_dict(settings))


def settings_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return plain


def _unnoted(settings: Any) -> dict[str, Any]:
    """Settings that earlier versions knew nothing of, as they were then: all that have a default."""
    return {
        field.name: field.default for field in dataclasses.fields(settings) if field.default is not dataclasses.MISSING
    }


def list_folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """All folders of a tree, as paths inside it ("." the first), each with the names of all in it that is no folder.

    Links are followed, but none to a folder that the link itself is in. FlowStoreError, naming a folder that cannot be
    read.
    """
    pending: list[tuple[str, Path, frozenset[tuple[int, int]]]] = [(".", root, frozenset())]
    while pending:
        name, folder, above = pending.pop()
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue
            with os.scandir(folder) as entries:
                inside, files = _separate(entries)
        except OSError as error:
            raise FlowStoreError(f"{folder}: cannot be read: {error.strerror}") from error
        yield name, files
        pending += [
            (each if name == "." else f"{name}/{each}", folder / each, above | {identity})
            for each in sorted(inside, reverse=True)
        ]


def _separate(entries: Iterable[os.DirEntry[str]]) -> tuple[list[str], list[str]]:
    """The names of folders and of all else."""
    names: tuple[list[str], list[str]] = ([], [])
    for entry in entries:
        try:
            folder = entry.is_dir()
        except OSError:  # a link that leads to itself; whoever opens it will say so
            folder = False
        names[not folder].append(entry.name)
    return names


def _list_names(root: Path) -> list[str]:
    names = []
    for folder, files in list_folders(root):
        for file in files:
            if file.endswith(SUFFIX) and not file.startswith("."):
                stem = file.removesuffix(SUFFIX)
                names.append(stem if folder == "." else f"{folder}/{stem}")
    return sorted(names)
