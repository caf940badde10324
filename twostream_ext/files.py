# SPDX-License-Identifier: BSD-3-Clause
"""Files that are either whole or not there."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twostream_ext.errors import SettingsError

_LEFTOVER = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-\d+\.tmp")
_ABANDONED = 3600.0  # seconds: no file takes that long from its first byte to its last


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed to `path`.

    If the body raises (no space left, say), the temporary file is removed and `path` is as it was.
    The name carries machine, process and thread, so that no two ever write into one temporary file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{_machine()}-{os.getpid()}-{threading.get_native_id()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(root: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left in a directory tree.

    Those of processes that may still live, on this machine or another, only after an hour.
    """
    for folder, _, files in os.walk(root):
        for name in files:
            if found := _LEFTOVER.fullmatch(name):
                path = Path(folder, name)
                dead = found["machine"] == _machine() and not _is_alive(int(found["process"]))
                if dead or _age(path) > _ABANDONED:
                    path.unlink(missing_ok=True)


def refuse_same_file(out: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """SettingsError, naming both, if the file to be written is one of those to be read, under whatever names.

    A file that is not there, or that may not be looked at, is no other's: whoever opens it says what is wrong with it.
    """
    for path in inputs:
        try:
            same = Path(out).samefile(path)
        except OSError:
            continue
        if same:
            raise SettingsError(f"{out}: is the input {path} itself and would be overwritten; write to another file")


def _machine() -> str:
    """Short, and the same for every process of this machine."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _age(path: Path) -> float:
    """Seconds since a file was written to; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
