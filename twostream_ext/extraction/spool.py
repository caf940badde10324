# SPDX-License-Identifier: BSD-3-Clause
"""Coded pictures of a video that is still in work, kept off the memory when there are many."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from twostream_ext.files import make_folder

_IN_MEMORY = 16 << 20  # bytes; what goes beyond lies in a file


class Spool:
    """A series of pictures: appended, then read in order, as often as wanted.

    The file has no name: nothing of it is left when the process is killed.
    """

    def __init__(self, folder: Path) -> None:
        """folder: where the file is made, if it comes to one; OSError then, if that is full."""
        make_folder(folder)
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed by __exit__
        self._sizes = array("Q")

    def append(self, picture: bytes) -> None:
        self._file.write(picture)
        self._sizes.append(len(picture))

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        for size in self._sizes:
            yield self._file.read(size)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
