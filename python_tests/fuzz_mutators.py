# SPDX-License-Identifier: BSD-3-Clause
"""Changes to sound files, for fuzzing: lengths and checksums fit again, or every mutant would end at the door.

Each mutator takes the source of its draws and a file's bytes, and gives the bytes of another file.
"""

from __future__ import annotations

import copy
import json
import random
import re
import zlib
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

from released_files import varint

Mutator = Callable[[random.Random, bytes], bytes]

_NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30)
_REALS = (0.0, -0.0, 0.5, 1.5, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "x",
    "jpeg",
    "raw",
    "forward",
    "backward",
    "cnn_m_2048",
    "a\nb",
    "\x1b[2J",
    "\ud800",
    "../x",
    "/",
    "0",
    ".",
)
_SIZES = {"U8": 1, "I8": 1, "BOOL": 1, "F16": 2, "BF16": 2, "I16": 2, "F32": 4, "I32": 4, "F64": 8, "I64": 8, "C64": 8}
_CHECKSUM = re.compile(rb'("checksum": ?")[0-9a-f]{8}"')


def mutate_bytes(draw: random.Random, data: bytes) -> bytes:
    """Of any file: bits, bytes and numbers changed, pieces dropped, doubled, swapped, cut off."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        draw.choice(_BYTE_CHANGES)(draw, out)
    return bytes(out)


def _flip(draw: random.Random, out: bytearray) -> None:
    if out:
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)


def _overwrite_number(draw: random.Random, out: bytearray) -> None:
    width = draw.choice((1, 2, 4, 8))
    if len(out) >= width:
        at = draw.randrange(len(out) - width + 1)
        value = draw.choice(_NUMBERS) % (1 << 8 * width)
        out[at : at + width] = value.to_bytes(width, draw.choice(("little", "big")))


def _insert(draw: random.Random, out: bytearray) -> None:
    at = draw.randrange(len(out) + 1)
    out[at:at] = draw.randbytes(draw.choice((1, 2, 4, 16)))


def _drop(draw: random.Random, out: bytearray) -> None:
    at = draw.randrange(len(out) + 1)
    del out[at : at + draw.choice((1, 2, 4, 16, 256))]


def _double(draw: random.Random, out: bytearray) -> None:
    at, to = draw.randrange(len(out) + 1), draw.randrange(len(out) + 1)
    out[to:to] = out[at : at + draw.choice((1, 4, 16, 64))]


def _cut(draw: random.Random, out: bytearray) -> None:
    del out[draw.randrange(len(out) + 1) :]


def _claim_a_picture(draw: random.Random, out: bytearray) -> None:
    """A JPEG in the bytes, if there is one, says that it is of another size."""
    at = out.find(b"\xff\xc0", draw.randrange(len(out) + 1))
    if 0 <= at <= len(out) - 9:
        sides = (draw.choice((0, 1, 8, 9, 1000, 30000, 65535)) for _ in range(2))
        out[at + 5 : at + 9] = b"".join(side.to_bytes(2, "big") for side in sides)


_BYTE_CHANGES = (_claim_a_picture, _flip, _flip, _overwrite_number, _overwrite_number, _insert, _drop, _double, _cut)


# ---- JSON ----------------------------------------------------------------------------------------------------------


def mutate_json(draw: random.Random, data: bytes) -> bytes:
    """Of a file of settings: a value, a name or a whole part becomes another."""
    if draw.random() < 0.2:
        return mutate_bytes(draw, data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(draw, data)
    return json.dumps(mutate_value(draw, value)).encode()


def mutate_value(draw: random.Random, value: Any) -> Any:
    """One part of a value out of JSON, or all of it, becomes another."""
    root = [copy.deepcopy(value)]
    places = list(_places(root))
    container, key = draw.choice(places)
    change = draw.random()
    if change < 0.15 and container is not root:
        del container[key]
    elif change < 0.25 and isinstance(container, dict):
        container[draw.choice(_TEXTS)] = container.pop(key)
    elif change < 0.35:
        other, other_key = draw.choice(places)
        container[key] = copy.deepcopy(other[other_key])
    elif change < 0.45 and isinstance(container[key], list):
        container[key] = draw.choice((container[key] * 2, container[key][1:], [*container[key], None]))
    else:
        container[key] = _new_value(draw, container[key])
    return root[0] if root else None


def _places(container: Any) -> Any:
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in items:
        yield container, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _new_value(draw: random.Random, old: Any) -> Any:
    if draw.random() < 0.4 and isinstance(old, int | float) and not isinstance(old, bool):
        return draw.choice((*_NUMBERS, *_REALS, old + 1, old - 1, -old, float(old), str(old)))
    if draw.random() < 0.3 and isinstance(old, str):
        return draw.choice((*_TEXTS, old + "\n", old[1:], [old], {old: old}))
    nested: Any = 0
    for _ in range(draw.choice((1, 3, 100))):
        nested = [nested]
    return draw.choice((None, True, False, [], {}, nested, *_NUMBERS, *_REALS, *_TEXTS))


# ---- safetensors ---------------------------------------------------------------------------------------------------


def mutate_tensor_file(draw: random.Random, data: bytes) -> bytes:
    """Of a safetensors file: its description, its table, its tensors or its bytes; length and checksum fit again."""
    kind = draw.random()
    if kind < 0.1:
        return mutate_bytes(draw, data)
    border = 8 + int.from_bytes(data[:8], "little")
    header, body = data[8:border], data[border:]
    if kind < 0.2:
        return _tensor_file(mutate_bytes(draw, header), body)
    if kind < 0.35:
        return _tensor_file(header, mutate_bytes(draw, body))
    try:
        table = json.loads(header)
        if kind < 0.75:
            metadata = table["__metadata__"]
            metadata["description"] = json.dumps(mutate_value(draw, json.loads(metadata["description"])))
        elif kind < 0.9:
            body = _mutate_tensors(draw, table, body)
        else:
            table = mutate_value(draw, table)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return mutate_bytes(draw, data)
    return _tensor_file(json.dumps(table, separators=(",", ":")).encode(), body)


def _mutate_tensors(draw: random.Random, table: dict[str, Any], body: bytes) -> bytes:
    """A tensor gets another type, shape or name, or goes; the offsets fit again. Gives the new body."""
    metadata = table.pop("__metadata__", {})
    tensors = {
        name: (entry["dtype"], list(entry["shape"]), body[entry["data_offsets"][0] : entry["data_offsets"][1]])
        for name, entry in table.items()
    }
    name = draw.choice(sorted(tensors))
    dtype, shape, values = tensors.pop(name)
    change = draw.randrange(5)
    if change == 0:
        dtype = draw.choice(sorted(_SIZES))
    elif change == 1 and shape:
        shape[draw.randrange(len(shape))] = draw.choice((0, 1, 2, 3, 5, 1000))
    elif change == 2:
        shape = draw.choice((shape[::-1], shape[1:], [1, *shape], [*shape, 1], [], [prod(shape)], shape * 2))
    elif change == 3:
        name = draw.choice((*sorted(tensors), *_TEXTS[:-6], name + "x", name))
    else:
        values = mutate_bytes(draw, values)
    if change != 3 or draw.random() < 0.5:
        tensors[name] = (dtype, shape, values)
    table.clear()
    table["__metadata__"] = metadata
    pieces, end = [], 0
    for each, (kind, sides, content) in tensors.items():
        size = max(0, min(prod(sides) * _SIZES[kind], 1 << 20))
        pieces.append(content[:size].ljust(size, b"\x01"))
        table[each] = {"dtype": kind, "shape": sides, "data_offsets": [end, end + size]}
        end += size
    return b"".join(pieces)


def _tensor_file(header: bytes, body: bytes) -> bytes:
    """The file, padded as its writer pads it, and with the checksum that it then has, if it notes one."""
    header += b" " * (-len(header) % 8)
    data = len(header).to_bytes(8, "little") + header + body
    found = _CHECKSUM.search(header)
    if found is None:
        return data
    begin, end = 8 + found.end(1), 8 + found.end() - 1
    value = zlib.crc32(data[:begin] + b"0" * 8 + data[end:])
    return data[:begin] + b"%08x" % value + data[end:]


# ---- protobuf ------------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    number: int
    wire: int
    value: Any  # an int, bytes, or a list of fields


def mutate_protobuf(draw: random.Random, data: bytes) -> bytes:
    """Of a message: a field deep inside it changes, comes twice or goes; the lengths around it fit again."""
    if draw.random() < 0.25:
        return mutate_bytes(draw, data)
    message = _parse_message(data)
    if not message:
        return mutate_bytes(draw, data)
    return _message_bytes(_mutate_message(draw, message))


def _mutate_message(draw: random.Random, message: list[_Field]) -> list[_Field]:
    out = list(message)
    at = draw.randrange(len(out))
    field = out[at]
    change = draw.random()
    if isinstance(field.value, list) and field.value and change < 0.8:
        out[at] = field._replace(value=_mutate_message(draw, field.value))
    elif change < 0.86:
        out.pop(at)
    elif change < 0.9:
        out.insert(draw.randrange(len(out) + 1), field)
    elif change < 0.93:
        out[at] = field._replace(number=draw.choice((1, 2, 3, 4, 5, 6, 7, 8, 18, 100, 118)))
    elif isinstance(field.value, int):
        out[at] = field._replace(value=draw.choice(_NUMBERS) % (1 << 64))
    else:
        content = field.value if isinstance(field.value, bytes) else _message_bytes(field.value)
        out[at] = field._replace(value=mutate_bytes(draw, content))
    return out


def _parse_message(data: bytes) -> list[_Field] | None:
    """Fields, those that can be read as messages as lists of theirs; None if the bytes are no message."""
    fields, at = [], 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0 or wire not in (0, 1, 2, 5):
            return None
        if wire == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(wire)
            if size is None:
                size, at = _varint(data, at)
            value = data[at : at + size]
            if len(value) != size:
                return None
            at += size
            if wire == 2 and (inside := _parse_message(value)):
                value = inside
        fields.append(_Field(number, wire, value))
    return fields if at == len(data) else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends: past the end of the bytes if it is not all there."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    return 0, len(data) + 1


def _message_bytes(message: list[_Field]) -> bytes:
    out = bytearray()
    for number, wire, value in message:
        out += varint(number << 3 | wire)
        if wire == 0:
            out += varint(value)
            continue
        content = _message_bytes(value) if isinstance(value, list) else value
        if wire == 2:
            out += varint(len(content)) + content
        else:
            size = {1: 8, 5: 4}[wire]
            out += content[:size].ljust(size, b"\0")
    return bytes(out)


# ---- lists and folders of files ------------------------------------------------------------------------------------

_WORDS = (
    "0",
    "1",
    "2",
    "-1",
    "9" * 5000,
    "\u0661",
    "\u00b2",
    "A",
    "B/v.avi",
    "../v.avi",
    "/v.avi",
    "A/../v",
    ".",
    "x" * 300,
)
_SEPARATORS = (" ", "\t", "\n", "\r\n", "\r", "\0", "\u2028", "\ufeff", "/", "\x85", "  ")


def mutate_text(draw: random.Random, data: bytes) -> bytes:
    """Of a list: its words, lines and separators, or its bytes."""
    if draw.random() < 0.3:
        return mutate_bytes(draw, data)
    parts = re.split(r"(\s|/)", data.decode(errors="surrogateescape"))
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(len(parts))
        change = draw.randrange(4)
        if change == 0:
            parts[at] = draw.choice(_SEPARATORS if at % 2 else _WORDS)
        elif change == 1:
            parts.insert(at, draw.choice(_SEPARATORS + _WORDS))
        elif change == 2:
            parts[at:at] = parts[draw.randrange(len(parts)) :][: draw.choice((1, 4))]
        elif len(parts) > 1:
            parts.pop(at)
    return "".join(parts).encode(errors="replace")


def pack_folder(files: dict[str, bytes]) -> bytes:
    """Files with their paths in a folder, as one input."""
    return b"".join(b"%s\n%d\n%s\n" % (name.encode(), len(content), content) for name, content in files.items())


def unpack_folder(data: bytes) -> dict[str, bytes]:
    """What `pack_folder` made, as far as it can be read."""
    files: dict[str, bytes] = {}
    while data:
        name, _, rest = data.partition(b"\n")
        size, _, rest = rest.partition(b"\n")
        if not re.fullmatch(rb"[0-9]{1,6}", size):
            break
        files[name.decode(errors="replace")] = rest[: int(size)]
        data = rest[int(size) + 1 :]
    return files


def mutate_folder(mutate: Mutator) -> Mutator:
    """Of a folder of files: their names, which are there, and what is in one of them, by a mutator of such files."""

    def mutate_files(draw: random.Random, data: bytes) -> bytes:
        files = unpack_folder(data)
        if not files:
            return mutate_bytes(draw, data)
        name = draw.choice(sorted(files))
        change = draw.random()
        if change < 0.6:
            files[name] = mutate(draw, files[name])
        elif change < 0.7:
            files.pop(name)
        elif change < 0.8:
            files[name] = files[draw.choice(sorted(files))]
        else:
            content = files[name] if draw.random() < 0.5 else files.pop(name)
            files[_new_name(draw, name)] = content
        return pack_folder(files)

    return mutate_files


def _new_name(draw: random.Random, name: str) -> str:
    numbers = ("0", "1", "2", "3", "00001", "00002", "00007", "9" * 30, "9" * 200, "", "\u0661")
    prefixes = ("flow_x_", "flow_y_", "flow_x_m1_", "flow_y_m1_", "x_", "y_", "frame", "img_", "u/v/frame")
    change = draw.randrange(3)
    if change == 0:
        return re.sub(r"[0-9]+", lambda _: draw.choice(numbers), name, count=1)
    if change == 1:
        return re.sub(r"[a-z_0-9]*_|frame", lambda _: draw.choice(prefixes), name, count=1)
    folder, _, file = name.rpartition("/")
    return f"{draw.choice((folder, 'a', 'u/a', 'v/a', ''))}/{file}".lstrip("/")
