# SPDX-License-Identifier: BSD-3-Clause
"""What files note as JSON, compared with the types that are expected before anything believes it.

A file may come from anyone: a number where a text should be, or a list where a number should be, is a damaged file and
no reason for a TypeError somewhere later.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from twostream_ext.errors import TwoStreamError

_LARGEST_FLOAT = 10**308


def check_noted(place: object, noted: Any, kinds: Mapping[str, Any], damaged: type[TwoStreamError]) -> dict[str, Any]:
    """Give what is noted at a place if it is a dict that has all these values, each of its type.

    kinds: types as annotations name them, by the names of the values: `int`, `float` (an int will do), `str`, `bool`,
    `None`, unions of them, `list[...]`, `dict[str, ...]`, `Any`; a tuple's hint stands for a list of any length.

    `damaged`, naming the place and the value, otherwise.
    """
    if not isinstance(noted, dict):
        raise damaged(f"{place}: does not hold settings by name, but {noted!r:.80}")
    for name, kind in kinds.items():
        if name not in noted:
            raise damaged(f"{place}: the description lacks {name!r}")
        if not is_noted_as(noted[name], kind):
            raise damaged(f"{place}: {name} is {noted[name]!r:.80}, expected {_words(kind)}")
    return noted


def is_noted_as(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON is of a type; see `check_noted`."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(is_noted_as(value, each) for each in inside)
    if origin in (list, tuple):
        return isinstance(value, list) and all(is_noted_as(each, inside[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(is_noted_as(each, inside[1]) for each in value.values())
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) < _LARGEST_FLOAT)
    return value is None if kind in (None, type(None)) else type(value) is kind


def _words(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
