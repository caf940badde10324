# SPDX-License-Identifier: BSD-3-Clause
"""The file of one video in a store: coded pictures of which a few can be read, and small arrays.

It is a safetensors file, so any reader of that format opens it, but written and read here: in
pieces, because a sample needs twenty pictures out of hundreds, and with a checksum. Pictures are
read by position, from the page cache to where they are wanted with one copy, instead of through a
mapping. That is no slower than copying out of a mapping (benchmarks/bench_flow_store.py), holds no
descriptor of the thousands of files open, and turns a file that is cut short while it is read into
an error instead of a bus error that kills the process.

A series of pictures S is stored as the tensors `S.bytes` (uint8, all pictures one after the other)
and `S.offsets` (int64, one more than pictures). The metadata are `kind`, `format`, `description`
(JSON) and `checksum`, the CRC-32 in hexadecimal of the whole file with zeros in the checksum's
place.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from twostream_ext.errors import FlowStoreError
from twostream_ext.files import atomic_write
from twostream_ext.noted import is_noted_as

_FORMAT = "1"
_NO_CHECKSUM = "0" * 8
_OFFSETS, _BYTES = ".offsets", ".bytes"  # ends of the names of a series' tensors
_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_CHUNK = 1 << 20  # bytes
_HEAD = 1 << 15  # bytes at the start of a file, of most all but the pictures
_LARGEST_HEADER = 1 << 24  # bytes; a sound one has some hundreds
_LARGEST_ARRAYS = 1 << 28  # bytes; those of an hour of video are 3 MB

_thread = threading.local()


class Pictures(Protocol):
    """A series of coded pictures, read more than once: a list, say, or a `Spool`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...


class Identity(NamedTuple):
    """Tells one version of a file from another."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds


class Container(NamedTuple):
    path: Path
    identity: Identity  # when it was opened
    description: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]  # all but the pictures' bytes
    positions: dict[str, int]  # in the file, of the first byte of each series of pictures
    sizes: dict[str, tuple[int, int]]  # of the smallest and the largest picture of each series, in bytes
    checksum: str  # as noted: of the whole file


class _Entry(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the data
    end: int


class _DamageError(Exception):
    """What is wrong with a file."""


def write_container(
    path: str | os.PathLike[str],
    kind: str,
    description: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    pictures: Mapping[str, Pictures],
) -> None:
    """Write the file whole or not at all; one that has the same bytes already is left as it is.

    kind: says what is in it, to be given again for reading. arrays: float32. pictures: by series.
    OSError if it cannot be written (no space left, say).
    """
    tensors = {series + _OFFSETS: np.cumsum([0, *map(len, coded)], dtype="<i8") for series, coded in pictures.items()}
    tensors |= {name: np.ascontiguousarray(array, dtype="<f4") for name, array in arrays.items()}

    def pieces() -> Iterator[bytes]:
        """All that follows the header; the pictures may be more than fit in memory."""
        yield from (tensor.tobytes() for tensor in tensors.values())
        for coded in pictures.values():
            yield from coded

    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    for series in pictures:
        shapes[series + _BYTES] = (np.dtype("u1"), (int(tensors[series + _OFFSETS][-1]),))
    metadata = {"kind": kind, "format": _FORMAT, "description": json.dumps(description)}
    header = _header(shapes, metadata | {"checksum": _NO_CHECKSUM})
    checksum = _checksum(chain([header], pieces()))
    with atomic_write(path, keep_same=True) as temporary, temporary.open("wb") as file:
        file.write(_header(shapes, metadata | {"checksum": checksum}))
        file.writelines(pieces())


def open_container(path: str | os.PathLike[str], kind: str, *, trusted: set[Identity] | None = None) -> Container:
    """Read all of the file but its pictures.

    trusted: files that were found whole. Others are read through once to compare the checksum, and
    added; without the set nothing is compared.

    FlowStoreError, naming the file, if it is missing, damaged or of another kind.
    """
    path = path if isinstance(path, Path) else Path(path)  # Path(a path) would take as long as the reading below
    with _opened(path) as (file, identity):
        try:
            return _read_container(path, file, identity, kind, trusted)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise _DamageError("the header is damaged") from error


def read_pictures(container: Container, series: str, first: int, count: int) -> list[npt.NDArray[np.uint8]]:
    """The bytes of some consecutive pictures, read in one go.

    FlowStoreError, naming the file, if it cannot be read or was replaced since it was opened.
    """
    offsets = container.arrays[series + _OFFSETS][first : first + count + 1].tolist()
    begin = offsets[0]
    with _reopened(container) as file:
        data = np.frombuffer(_read(file, container.positions[series] + begin, offsets[-1] - begin), np.uint8)
    return [data[a - begin : b - begin] for a, b in pairwise(offsets)]


def borrow_pictures(container: Container, series: str, first: int, count: int) -> list[npt.NDArray[np.uint8]]:
    """`read_pictures`, into memory that the next call of this thread uses again.

    It stays in the processor's caches, where new memory of that size would not be.
    """
    offsets = container.arrays[series + _OFFSETS][first : first + count + 1].tolist()
    begin = offsets[0]
    size = offsets[-1] - begin
    memory = getattr(_thread, "memory", None)
    if memory is None or len(memory) < size:
        memory = _thread.memory = np.empty(size, np.uint8)
    with _reopened(container) as file:
        _read_into(file, container.positions[series] + begin, memory[:size].data)
    return [memory[a - begin : b - begin] for a, b in pairwise(offsets)]


def read_pictures_into(container: Container, series: str, first: int, targets: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Read consecutive pictures into arrays; each takes as many pictures as it has bytes for.

    FlowStoreError as for `read_pictures`.
    """
    position = container.positions[series] + int(container.arrays[series + _OFFSETS][first])
    with _reopened(container) as file:
        for target in targets:
            _read_into(file, position, target.data.cast("B"))
            position += target.nbytes


def size_of(noted: Sequence[int]) -> tuple[int, int]:
    """A size as JSON gives it back; ValueError if it is none."""
    if not is_noted_as(noted, list[int]) or len(noted) != 2 or not all(0 < side < 1 << 31 for side in noted):
        raise ValueError(f"a size: {noted!r:.80} is none")
    height, width = noted
    return height, width


def open_file(path: str | os.PathLike[str]) -> int:
    """A descriptor to read a file. Opening a pipe does not wait until somebody writes into it."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def is_unchanged(container: Container) -> bool:
    """Whether the file is still the one that was opened."""
    try:
        return _identity(container.path.stat()) == container.identity
    except OSError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, Identity]]:
    """A descriptor of a file, and which version of it that is. FlowStoreError, naming it, for all that goes wrong."""
    file = -1
    try:
        file = open_file(path)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _DamageError("is not a regular file")
        yield file, _identity(status)
    except _DamageError as damage:
        raise FlowStoreError(f"{path}: {damage}") from damage
    except OSError as error:
        raise FlowStoreError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        if file >= 0:
            os.close(file)


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@contextmanager
def _reopened(container: Container) -> Iterator[int]:
    with _opened(container.path) as (file, identity):
        if identity != container.identity:
            raise _DamageError("was changed while it was in use")
        yield file


def _read(file: int, position: int, size: int) -> bytes:
    """Bytes of a file, all of them."""
    data = os.pread(file, size, position)
    if len(data) == size:
        return data
    rest = bytearray(size)  # a read may stop early, at 2 GB or when a signal comes
    rest[: len(data)] = data
    _read_into(file, position + len(data), memoryview(rest)[len(data) :])
    return bytes(rest)


def _read_behind(file: int, head: bytes, position: int, size: int) -> bytes:
    """`_read`, of a file whose head was read already."""
    return head[position : position + size] if position + size <= len(head) else _read(file, position, size)


def _read_into(file: int, position: int, target: memoryview) -> None:
    while target:
        count = os.preadv(file, [target], position)
        if not count:
            raise _DamageError("is truncated")
        target = target[count:]
        position += count


def _read_container(path: Path, file: int, identity: Identity, kind: str, trusted: set[Identity] | None) -> Container:
    head = os.pread(file, min(identity.size, _HEAD), 0)
    header = _read_header(file, head, identity.size)
    metadata, entries = _parse_header(header, identity.size)
    if trusted is not None and identity not in trusted:
        _compare_checksum(file, header, metadata)
        trusted.add(identity)
    _check_kind(metadata, kind)
    arrays = _read_arrays(file, head, len(header), entries)
    positions, sizes = {}, {}
    for name, entry in entries.items():
        if name.endswith(_BYTES):
            series = name.removesuffix(_BYTES)
            positions[series] = len(header) + entry.begin
            sizes[series] = _picture_sizes(series, arrays[series + _OFFSETS], entry.end - entry.begin)
    description = json.loads(metadata["description"])
    return Container(path, identity, description, arrays, positions, sizes, metadata["checksum"])


def _header(shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded so that the data are aligned."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + prod(shape) * dtype.itemsize
        table[name] = {
            "dtype": _DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _checksum(pieces: Iterable[bytes]) -> str:
    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
    return f"{value:08x}"


def _read_header(file: int, head: bytes, size: int) -> bytes:
    """With the eight bytes that tell its length."""
    rest = int.from_bytes(head[:8], "little")
    if len(head) < 8 or rest > size - 8:
        raise _DamageError(f"is truncated or not a file of a store ({size} bytes)")
    if rest > _LARGEST_HEADER:
        raise _DamageError(f"claims a header of {rest} bytes")
    return _read_behind(file, head, 0, 8 + rest)


def _parse_header(header: bytes, size: int) -> tuple[dict[str, str], dict[str, _Entry]]:
    """The metadata, and the tensors in the order in which they lie in the file."""
    table = json.loads(header[8:])
    metadata = table.pop("__metadata__")
    entries = {}
    end = 0
    for name, entry in table.items():
        begin, last_end = entry["data_offsets"][0], end
        _, end = entry["data_offsets"]
        parsed = _Entry(_DTYPES[entry["dtype"]], tuple(entry["shape"]), last_end, end)
        if type(end) is not int or begin != last_end or end - begin != prod(parsed.shape) * parsed.dtype.itemsize:
            raise _DamageError("the header is damaged")
        entries[name] = parsed
    if len(header) + end != size:
        raise _DamageError(f"is truncated or has grown: {size} bytes, expected {len(header) + end}")
    return metadata, entries


def _compare_checksum(file: int, header: bytes, metadata: Mapping[str, str]) -> None:
    """Read through all that follows the header."""
    noted = f'"checksum":"{metadata["checksum"]}"'.encode()
    blank = f'"checksum":"{_NO_CHECKSUM}"'.encode()
    found = _checksum(chain([header.replace(noted, blank)], _chunks(file, len(header))))
    if found != metadata["checksum"]:
        raise _DamageError(f"is damaged: its checksum is {found}, expected {metadata['checksum']}")


def _check_kind(metadata: Mapping[str, str], kind: str) -> None:
    if metadata["kind"] != kind:
        raise _DamageError(f"holds {metadata['kind']!r}, expected {kind!r}")
    if metadata["format"] != _FORMAT:
        raise _DamageError(f"has format {metadata['format']}, this version reads {_FORMAT}")


def _chunks(file: int, position: int) -> Iterator[bytes]:
    while chunk := os.pread(file, _CHUNK, position):
        yield chunk
        position += len(chunk)


def _read_arrays(file: int, head: bytes, start: int, entries: Mapping[str, _Entry]) -> dict[str, npt.NDArray[Any]]:
    """All but the pictures' bytes."""
    chosen = {name: entry for name, entry in entries.items() if not name.endswith(_BYTES)}
    if sum(entry.end - entry.begin for entry in chosen.values()) > _LARGEST_ARRAYS:
        raise _DamageError("claims more numbers than a video can have")
    arrays = {}
    for name, entry in chosen.items():
        data = _read_behind(file, head, start + entry.begin, entry.end - entry.begin)
        arrays[name] = np.frombuffer(data, entry.dtype).reshape(entry.shape)
    return arrays


def _picture_sizes(series: str, offsets: npt.NDArray[Any], size: int) -> tuple[int, int]:
    """Of the smallest and the largest picture, in bytes."""
    if offsets.ndim == 1 and offsets.dtype == _DTYPES["I64"] and offsets[0] == 0 and offsets[-1] == size:
        sizes = np.diff(offsets)
        least, most = int(sizes.min()), int(sizes.max())
        if 0 < least <= most <= size:
            return least, most
    raise _DamageError(f"the offsets of the {series} pictures are damaged")
