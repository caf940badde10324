# SPDX-License-Identifier: BSD-3-Clause
"""MATLAB 5 files (.mat, -v6 and -v7): numbers, text, structs and cells.

SciPy reads more, but a damaged file can end the process there. Here each length is compared with the bytes that are
there before anything is made of them, and what is compressed may not become more than `_LARGEST` bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

Order = Literal["<", ">"]  # of bytes

_HEADER = 128  # bytes
_LARGEST = 1 << 30  # bytes; the largest such file of MatConvNet's has half a billion
_MOST_TIMES = 64  # as large as they were may compressed bytes become: trained weights are hardly compressed at all
_DEEPEST = 32  # cells in structs in cells
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # as stored
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _TEXT = 1, 2, 4
_COMPLEX = 0x800


class MatlabError(Exception):
    """What is wrong with a file."""


def read_matlab(path: Path) -> dict[str, Any]:
    """The variables of a file by name, as far as they are of kinds that are read; the others are None.

    Numbers are arrays of two dimensions or more, as MATLAB has them; a text is a str; a struct is a dict, that of its
    first element where it is an array; a cell array is a list, in MATLAB's order.

    MatlabError if the file is damaged; OSError if it cannot be read.
    """
    data = memoryview(path.read_bytes())
    mark = bytes(data[126:_HEADER])
    if mark not in (b"IM", b"MI"):
        raise MatlabError("has no mark of its byte order")
    order: Order = "<" if mark == b"IM" else ">"
    variables = {}
    try:
        for part in _elements(data[_HEADER:], order, padded=False):
            kind, content = part if part[0] != _COMPRESSED else _next(_elements(_inflated(part[1]), order))
            if kind == _MATRIX:
                name, value = _matrix(content, order, _DEEPEST)
                variables[name] = value
    except (struct.error, ValueError, IndexError, zlib.error) as error:
        raise MatlabError(f"is damaged ({error})") from error
    return variables


def _inflated(content: memoryview) -> memoryview:
    machine = zlib.decompressobj()
    data = machine.decompress(content, min(_LARGEST, (1 << 20) + _MOST_TIMES * len(content)))
    if not machine.eof:
        raise MatlabError("is truncated, or larger than a net can be")
    return memoryview(data)


def _elements(data: memoryview, order: Order, *, padded: bool = True) -> Iterator[tuple[int, memoryview]]:
    """The parts of some bytes: type and content. What is compressed is not padded to eight bytes."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a small one, with its content in the place of the size
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise MatlabError("is damaged")
        else:
            begin = at + 8
            end = begin + size
            if padded or kind != _COMPRESSED:
                end += -size % 8
        if begin + size > len(data):
            raise MatlabError("is truncated")
        yield kind, data[begin : begin + size]
        at = end


def _matrix(data: memoryview, order: Order, depth: int) -> tuple[str, Any]:
    """The name of an array, and what it holds."""
    if not data:  # an empty cell
        return "", None
    if not depth:
        raise MatlabError("is nested deeper than a net can be")
    parts = _elements(data, order)
    flags = int(_numbers(*_next(parts), order)[0])
    shape = tuple(int(side) for side in _numbers(*_next(parts), order))
    name = bytes(_next(parts)[1]).decode("latin-1")
    if len(shape) < 2 or min(shape) < 0:
        raise MatlabError("is damaged: an array without a shape")
    kind = flags & 0xFF
    if kind == _STRUCT:
        return name, _struct(parts, order, depth)
    if kind == _CELL:
        return name, [_matrix(content, order, depth - 1)[1] for part, content in parts if part == _MATRIX]
    if kind == _TEXT:
        return name, _text(*_next(parts), order)
    if kind in _CLASSES and not flags & _COMPLEX:
        values = _numbers(*_next(parts), order)
        if len(values) != prod(shape):
            raise MatlabError(f"is damaged: an array of shape {list(shape)} has {len(values)} values")
        return name, values.astype(_CLASSES[kind], copy=False).reshape(shape, order="F")
    return name, None


def _struct(parts: Iterator[tuple[int, memoryview]], order: Order, depth: int) -> dict[str, Any]:
    """Of an array of structs the first."""
    length = int(_numbers(*_next(parts), order)[0])
    if length < 1:
        raise MatlabError("is damaged: a struct has names of no length")
    table = bytes(_next(parts)[1])
    names = [table[at : at + length].split(b"\0")[0].decode("latin-1") for at in range(0, len(table), length)]
    values = (_matrix(content, order, depth - 1)[1] for kind, content in parts if kind == _MATRIX)
    return dict(zip(names, values, strict=False))


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    part = next(parts, None)
    if part is None:
        raise MatlabError("is truncated")
    return part


def _numbers(kind: int, content: memoryview, order: Order) -> Any:
    if kind not in _NUMBERS:
        raise MatlabError(f"is damaged: numbers of type {kind}")
    return np.frombuffer(content, np.dtype(_NUMBERS[kind]).newbyteorder(order))


def _text(kind: int, content: memoryview, order: Order) -> str:
    if kind in _TEXTS:
        ends = "" if kind == 16 else {"<": "-le", ">": "-be"}[order]
        return bytes(content).decode(_TEXTS[kind] + ends, errors="replace")
    return "".join(chr(each) for each in _numbers(kind, content, order).astype(np.int64) & 0xFFFF)
