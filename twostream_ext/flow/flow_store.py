# SPDX-License-Identifier: BSD-3-Clause
"""The flow of many videos, whichever tool wrote it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from twostream_ext.errors import SettingsError
from twostream_ext.flow.clip import FlowClip, FlowSettings, FlowSource
from twostream_ext.flow.store import OwnFlow
from twostream_ext.flow.trees import FlowTree, find_tree


class FlowStore:
    """Flow of many videos by name, `<class>/<video>` without extension, in sorted order.

    Opening it lists the directory and reads no clip.
    """

    def __init__(self, source: FlowSource) -> None:
        """`FlowStore.open` finds the source of a directory; `OwnFlow` and `FlowTree` are those there are."""
        self._source = source

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, bound: float | None = None, zero_code: int | None = None
    ) -> FlowStore:
        """The store in a directory: one of ours, or a tree of JPEGs that another tool wrote.

        Such trees are read where they lie and never written to; `flow/trees.py` lists the layouts that are known. They
        do not tell how their codes were made:

        Args:
            path: the directory.
            bound: of a tree, the displacement in pixels that became code 255; by default 20, which all recipes give
                their tools (denseflow's own default is 32), or what gpu_flow noted beside its pictures.
            zero_code: of a tree, the code of a pixel that stands still; by default what the tools that write its layout
                make of it: 128 where they round, 127 where they truncate.

        Raises:
            FlowStoreError: the directory is missing or holds no flow, or that of several layouts.
            SettingsError: a bound or zero code that cannot be, or of a store of ours, which keeps its own ranges.
        """
        tree = find_tree(Path(path))
        if tree is not None:
            return cls(FlowTree(Path(path), tree, bound=bound, zero_code=zero_code))
        if bound is not None or zero_code is not None:
            raise SettingsError(f"{path}: keeps the range of each field; bound and zero_code are for trees")
        return cls(OwnFlow(path))

    @property
    def path(self) -> Path:
        """The directory."""
        return self._source.path

    @property
    def settings(self) -> FlowSettings:
        """What the flow was made with; of a tree, those of its first clip."""
        return self._source.settings

    def __getitem__(self, name: str) -> FlowClip:
        """FlowStoreError if there is no such clip or it is damaged."""
        return self._source[name]

    def peek(self, name: str) -> FlowClip:
        """The clip, without comparing its checksum: reads the header alone."""
        return self._source.peek(name)

    def __contains__(self, name: object) -> bool:
        return name in self._source

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return f"FlowStore({str(self.path)!r}, {len(self)} videos)"
