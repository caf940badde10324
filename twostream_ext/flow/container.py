# SPDX-License-Identifier: BSD-3-Clause
"""The file of one video in a store: coded pictures of which a few can be read, and small arrays.

It is a safetensors file, so any reader of that format opens it, but written and read here: in
pieces, because a sample needs twenty pictures out of hundreds, and with a checksum. Pictures are
read by position instead of through a mapping, which is as fast, holds no descriptor of the
thousands of files open, and turns a read that fails into an error instead of a bus error that kills
the process.

A series of pictures S is stored as the tensors `S.bytes` (uint8, all pictures one after the other)
and `S.offsets` (int64, one more than pictures). The metadata are `kind`, `format`, `description`
(JSON) and `checksum`, the CRC-32 in hexadecimal of the whole file with zeros in the checksum's
place.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from twostream_ext.errors import FlowStoreError
from twostream_ext.files import atomic_write

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
    """Write the file whole or not at all.

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
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(_header(shapes, metadata | {"checksum": checksum}))
        file.writelines(pieces())


def open_container(path: str | os.PathLike[str], kind: str, *, trusted: set[Identity] | None = None) -> Container:
    """Read all of the file but its pictures.

    trusted: files that were found whole. Others are read through once to compare the checksum, and
    added; without the set nothing is compared.

    FlowStoreError, naming the file, if it is missing, damaged or of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read_container(path, file, kind, trusted)
    except _DamageError as damage:
        raise FlowStoreError(f"{path}: {damage}") from damage
    except OSError as error:
        raise FlowStoreError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FlowStoreError(f"{path}: the header is damaged") from error


def read_pictures(container: Container, series: str, first: int, count: int) -> list[npt.NDArray[np.uint8]]:
    """The bytes of some consecutive pictures, read in one go.

    FlowStoreError, naming the file, if it cannot be read or was replaced since it was opened.
    """
    offsets = container.arrays[series + _OFFSETS][first : first + count + 1]
    begin = int(offsets[0])
    size = int(offsets[-1]) - begin
    try:
        with container.path.open("rb") as file:
            if _identity(file) != container.identity:
                raise FlowStoreError(f"{container.path}: was changed while it was in use")
            file.seek(container.positions[series] + begin)
            data = np.frombuffer(file.read(size), np.uint8)
    except OSError as error:
        raise FlowStoreError(f"{container.path}: cannot be read: {error.strerror}") from error
    if len(data) != size:
        raise FlowStoreError(f"{container.path}: is truncated")
    return [data[a - begin : b - begin] for a, b in pairwise(offsets.tolist())]


def _read_container(path: Path, file: BinaryIO, kind: str, trusted: set[Identity] | None) -> Container:
    identity = _identity(file)
    header = _read_header(file, identity.size)
    metadata, entries = _parse_header(header, identity.size)
    if trusted is not None and identity not in trusted:
        _compare_checksum(file, header, metadata)
        trusted.add(identity)
    _check_kind(metadata, kind)
    arrays, positions = {}, {}
    for name, entry in entries.items():
        if name.endswith(_BYTES):
            positions[name.removesuffix(_BYTES)] = len(header) + entry.begin
        else:
            arrays[name] = _read_array(file, len(header), entry)
    for series in positions:
        size = entries[series + _BYTES].end - entries[series + _BYTES].begin
        _check_offsets(series, arrays[series + _OFFSETS], size)
    return Container(path, identity, json.loads(metadata["description"]), arrays, positions)


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


def _identity(file: BinaryIO) -> Identity:
    status = os.fstat(file.fileno())
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _read_header(file: BinaryIO, size: int) -> bytes:
    length = file.read(8)
    rest = int.from_bytes(length, "little")
    if len(length) < 8 or rest > size - 8:
        raise _DamageError(f"is truncated or not a file of a store ({size} bytes)")
    return length + file.read(rest)


def _parse_header(header: bytes, size: int) -> tuple[dict[str, str], dict[str, _Entry]]:
    """The metadata, and the tensors in the order in which they lie in the file."""
    table = json.loads(header[8:])
    metadata = table.pop("__metadata__")
    entries = {}
    end = 0
    for name, entry in table.items():
        begin, last_end = entry["data_offsets"][0], end
        parsed = _Entry(_DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
        end = parsed.end
        if begin != last_end or end - begin != prod(parsed.shape) * parsed.dtype.itemsize:
            raise _DamageError("the header is damaged")
        entries[name] = parsed
    if len(header) + end != size:
        raise _DamageError(f"is truncated or has grown: {size} bytes, expected {len(header) + end}")
    return metadata, entries


def _compare_checksum(file: BinaryIO, header: bytes, metadata: Mapping[str, str]) -> None:
    """Read from behind the header to the end."""
    noted = f'"checksum":"{metadata["checksum"]}"'.encode()
    blank = f'"checksum":"{_NO_CHECKSUM}"'.encode()
    found = _checksum([header.replace(noted, blank), *iter(lambda: file.read(_CHUNK), b"")])
    if found != metadata["checksum"]:
        raise _DamageError(f"is damaged: its checksum is {found}, expected {metadata['checksum']}")


def _check_kind(metadata: Mapping[str, str], kind: str) -> None:
    if metadata["kind"] != kind:
        raise _DamageError(f"holds {metadata['kind']!r}, expected {kind!r}")
    if metadata["format"] != _FORMAT:
        raise _DamageError(f"has format {metadata['format']}, this version reads {_FORMAT}")


def _read_array(file: BinaryIO, start: int, entry: _Entry) -> npt.NDArray[Any]:
    file.seek(start + entry.begin)
    return np.frombuffer(file.read(entry.end - entry.begin), entry.dtype).reshape(entry.shape)


def _check_offsets(series: str, offsets: npt.NDArray[Any], size: int) -> None:
    whole = offsets.ndim == 1 and offsets[0] == 0 and offsets[-1] == size
    if not whole or (np.diff(offsets) <= 0).any():
        raise _DamageError(f"the offsets of the {series} pictures are damaged")
