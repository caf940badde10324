# SPDX-License-Identifier: BSD-3-Clause
"""What files note is compared with types before it is believed, and errors stay one line whatever they quote."""

from __future__ import annotations

from typing import Any

import pytest

from twostream_ext.errors import CheckpointError, FlowStoreError
from twostream_ext.noted import check_noted, is_noted_as


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (3, int, True),
        (3.0, int, False),
        (True, int, False),
        (3, float, True),
        (10**400, float, False),
        (float("nan"), float, True),
        (True, float, False),
        ("3", int, False),
        (None, int | None, True),
        ("x", int | None, False),
        (["a", "b"], tuple[str, ...], True),
        (["a", 1], list[str], False),
        ({"a": 1}, dict[str, int], True),
        ({"a": [1]}, dict[str, list[int]], True),
        ({"a": None}, dict[str, int], False),
        ({"a": None}, dict[str, Any], True),
        ([], dict[str, int], False),
        (None, None, True),
        (0, None, False),
    ],
)
def test_values_of_json_and_types(value: object, kind: Any, fits: bool) -> None:
    assert is_noted_as(value, kind) is fits


@pytest.mark.parametrize(
    ("noted", "words"),
    [
        ([1], r"a.json: does not hold settings by name, but \[1\]"),
        ({}, "a.json: the description lacks 'size'"),
        ({"size": "x" * 1000}, r"a.json: size is 'x{79}, expected list\[int\]"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(noted: object, words: str) -> None:
    with pytest.raises(FlowStoreError, match=words):
        check_noted("a.json", noted, {"size": list[int]}, FlowStoreError)


def test_errors_are_one_line_that_no_terminal_obeys() -> None:
    name = "a\nb\r\x1b[2J\x85\u2028\udc80é"
    assert str(CheckpointError(f"{name}: is missing")) == r"a\nb\r\x1b[2J\x85\u2028\udc80é: is missing"
