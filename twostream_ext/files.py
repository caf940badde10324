# SPDX-License-Identifier: BSD-3-Clause
"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from io import FileIO
from itertools import takewhile
from pathlib import Path

from twostream_ext.errors import SettingsError, TwoStreamError

_TEMPORARY = re.compile(r"\..+\.(?P<keeper>[0-9a-f]{8})-[0-9a-f]{8}\.tmp(\.\w+)?")
_OLD_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}-\d+-\d+\.tmp")  # of 0.1.0, which took no locks
_NO_KEEPER = "00000000"
_CANNOT_FLUSH_NAMES = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)  # what network and user-space file systems say
_ABANDONED = 3600.0  # seconds: no file takes that long from its first byte to its last

_in_work: set[FileIO] = set()
"""Temporary files that this process is writing, open and locked."""


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, ending: str = "", keep_same: bool = False, flush: bool = True
) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`; on success it is flushed and renamed to `path`.

    Then it outlives a loss of power, and one at any moment before leaves what was there. Write into the temporary
    file: it carries a lock that tells `remove_leftovers` that it is in work. (Another that is put in its place has
    none, and must not be in a directory tree that may be cleaned meanwhile.) If the body raises (no space left, say),
    the temporary file is removed and `path` is as it was. Several threads and processes may write the same `path` at
    once; the last one's file stays.

    ending: what the temporary name shall end in, ".mp4" say, for a library that chooses the format by it.
    keep_same: leave a file that has the same bytes already, as of another process that made it at the same time: it may
        be open, by readers who would take another in its place for a change.
    flush: False leaves that to `flush_files`, for many small files at once. Until then the file is whole however a
        process ends, but may not be if the power is lost.
    """
    target = Path(path)
    with _temporary(target, ending) as temporary:
        yield temporary
        if flush:
            _flush(temporary)
        if not (keep_same and _place(temporary, target)):
            temporary.replace(target)
        if flush:
            _flush_names(target.parent)


def flush_files(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Bring files that were written without it, and their names, to the disk: then they outlive a loss of power."""
    files = list(map(Path, paths))
    for file in files:
        _flush(file)
    for folder in dict.fromkeys(file.parent for file in files):
        _flush_names(folder)


def create_file(path: str | os.PathLike[str], text: str) -> bool:
    """Write a text file whole, unless there is one already; return whether it was written.

    Of several threads and processes that do so at once, one alone writes. (Where the file system has no hard links, two
    that come in the same moment may both.)
    """
    target = Path(path)
    if target.exists():
        return False
    with _temporary(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
        _flush(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            temporary.replace(target)
        _flush_names(target.parent)
        return True


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a directory, and those above it, where they are missing; new ones outlive a loss of power.

    What is written into a directory is lost with it, however well it was flushed itself.
    """
    folder = Path(path)
    missing = list(takewhile(lambda each: not each.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        _flush_names(each.parent)


def remove_leftovers(root: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left in a directory tree; those in work stay.

    The kernel frees a lock when its process ends, however it ends: a file of this machine whose lock can be taken is
    nobody's. Of other machines, and where the file system has no locks, files are removed an hour after the last byte.
    """
    for folder, _, files in os.walk(root):
        for name in files:
            if name.startswith("."):  # few do: the others need no path
                _remove_leftover(Path(folder, name))


def remove_leftovers_of(path: str | os.PathLike[str]) -> None:
    """`remove_leftovers` for the temporary files of one file, in a folder that need not be ours."""
    target = Path(path)
    for each in target.parent.glob(f".{escape(target.name)}.*"):
        _remove_leftover(each)


def refuse_same_file(out: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """SettingsError, naming both, if the file to be written is one of those to be read, under whatever names.

    Of an input that is a directory, all files in it are inputs. What is to be written is refused, too, if it is a
    directory. A file that is not there, or that may not be looked at, is no other's: whoever opens it says what is
    wrong with it.
    """
    with suppress(OSError):
        if Path(out).is_dir():
            raise SettingsError(f"{out}: is a directory, expected a file")
    for path in inputs:
        try:
            same = Path(out).samefile(path)
            inside = Path(out).exists() and Path(path).resolve() in Path(out).resolve().parents
        except OSError:
            continue
        if same or inside:
            which = f"a file of the input {path}" if inside else f"the input {path} itself"
            raise SettingsError(f"{out}: is {which} and would be overwritten; write to another file")


def is_same(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file or directory, or would if there were one."""
    with suppress(OSError):
        return Path(path).samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path, which need not exist, leads to a directory or to somewhere in it."""
    real = Path(os.path.realpath(path))
    return any(is_same(each, folder) for each in (real, *real.parents))


def check_directory(path: str | os.PathLike[str], wrong: type[TwoStreamError]) -> None:
    """`wrong`, naming it, unless it is a directory, or a link to one."""
    if not _is_directory(path, wrong, "directory"):
        raise wrong(f"{path}: is a file, expected a directory")


def check_file(path: str | os.PathLike[str], wrong: type[TwoStreamError]) -> None:
    """`wrong`, naming it, unless there is something that is no directory."""
    if _is_directory(path, wrong, "file"):
        raise wrong(f"{path}: is a directory, expected a file")


def _is_directory(path: str | os.PathLike[str], wrong: type[TwoStreamError], expected: str) -> bool:
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise wrong(f"{path}: no such {expected}") from error
    except (OSError, ValueError) as error:
        raise wrong(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def name_errors(path: str | os.PathLike[str], kind: type[TwoStreamError]) -> Iterator[None]:
    """Raise `kind`, naming the file, where the system refuses to read or write it: its own error may name none."""
    try:
        yield
    except OSError as error:
        raise kind(f"{error.filename or path}: {error.strerror}") from error


@contextmanager
def _temporary(target: Path, ending: str = "") -> Iterator[Path]:
    """A new file beside `target`, locked until the end, when it is removed if it is still there."""
    for folder in target.parents:
        if folder.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, expected a directory", str(folder))
    make_folder(target.parent)
    temporary, file = _begin(target, ending)
    _in_work.add(file)
    try:
        yield temporary
    except OSError as error:
        if error.filename is None:  # as of what was opened earlier
            error.filename = str(target)
        raise
    finally:
        if file in _in_work:  # not in a forked child, which has let go of it: there it is the parent's
            temporary.unlink(missing_ok=True)
            _in_work.remove(file)
            file.close()


def _place(temporary: Path, target: Path) -> bool:
    """Give a file its name; False if another has it, unless that has the same bytes, and where there are no links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        with suppress(OSError):  # it is there and cannot be read
            return filecmp.cmp(temporary, target, shallow=False)
        return False
    except OSError:
        return False
    return True


def _begin(target: Path, ending: str) -> tuple[Path, FileIO]:
    """Create and lock a temporary file whose name nobody else has, now or later."""
    keeper = _keeper_of_locks(target.parent)
    while True:
        temporary = target.with_name(f".{target.name}.{keeper}-{secrets.token_hex(4)}.tmp{ending}")
        file = FileIO(temporary, "x+")
        is_locked = _lock(file)
        # Before the lock was there, the file looked like a leftover: another process may be about to remove it.
        if is_locked and temporary.exists():
            return temporary, file
        if is_locked is None and keeper == _NO_KEEPER:
            return temporary, file
        if is_locked is None:  # the name shall not promise a lock
            keeper = _NO_KEEPER
        temporary.unlink(missing_ok=True)
        file.close()


def _lock(file: FileIO) -> bool | None:
    """Lock a file until it is closed; False if another holds the lock, None if the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_leftover(path: Path) -> None:
    """Remove a file whose name is that of a temporary one that nobody is writing."""
    if found := _TEMPORARY.fullmatch(path.name):
        _remove_unlocked(path, found["keeper"])
    elif _OLD_TEMPORARY.fullmatch(path.name):
        _remove_abandoned(path)


def _remove_unlocked(path: Path, keeper: str) -> None:
    """Remove a temporary file unless it is locked, or may be without our seeing it and is young."""
    try:
        file = FileIO(path, "r+")  # NFS locks only what is open for writing
    except OSError:  # gone, or another user's
        return
    with file:
        is_locked = _lock(file)
        if is_locked and keeper == _keeper_of_locks(path.parent):
            path.unlink(missing_ok=True)
        elif is_locked is not False:
            _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return
    if age > _ABANDONED:
        path.unlink(missing_ok=True)


def _keeper_of_locks(folder: Path) -> str:
    """Eight digits for who knows the locks of a folder's files: one kernel, since its start, and one mount.

    A host's name would not do, as containers share it. Network file systems may be mounted so that each machine, or
    each container, has locks of its own.
    """
    boot = _boot()
    return f"{zlib.crc32(f'{boot} {folder.stat().st_dev}'.encode()):08x}" if boot else _NO_KEEPER


@cache
def _boot() -> str:
    """Another for every start of every machine; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return ""


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    """Bring the names in a directory to the disk, if it may be read and its file system knows how to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH_NAMES:
            raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(descriptor)


def _let_go() -> None:
    """In a forked child: leave what the parent is writing to the parent, whose locks shall end with it."""
    for file in _in_work:
        file.close()
    _in_work.clear()


os.register_at_fork(after_in_child=_let_go)
