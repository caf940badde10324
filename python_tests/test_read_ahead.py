# SPDX-License-Identifier: BSD-3-Clause
"""Items read ahead by a thread: none lost unless that was asked for, none waited for when it is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from twostream_ext.engine import ReadAhead


def test_all_come_in_order_and_no_more_than_some_are_read_ahead() -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(200):
            read.append(number)
            yield number

    for number, item in enumerate(ReadAhead(items(), most=3)):
        assert item == number
        assert len(read) <= number + 6  # three that wait, one with each of both, and one just asked for
    assert number == 199


def test_the_oldest_are_dropped_while_nobody_takes_them() -> None:
    come = threading.Event()

    def items() -> Iterator[int]:
        yield from range(50)
        come.set()

    ahead = ReadAhead(items(), most=4, drops=True)
    taken = iter(ahead)
    first = next(taken)
    assert come.wait(10)
    rest = list(taken)
    assert rest == list(range(50 - len(rest), 50))
    assert len(rest) in (3, 4)  # the first may have been one of the last four
    assert ahead.dropped == 50 - 1 - len(rest)
    assert first < rest[0]


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("damaged")

    taken = iter(ReadAhead(items()))
    assert [next(taken) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(taken)


def test_it_can_be_stopped_while_nothing_comes() -> None:
    silence = threading.Event()
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            silence.wait(30)
            yield 2
        finally:
            closed.set()

    ahead = ReadAhead(items())
    threading.Timer(0.2, ahead.stop).start()
    began = time.perf_counter()
    assert list(ahead) == [1]
    assert time.perf_counter() - began < 5
    silence.set()
    assert closed.wait(10)  # a camera is let go of


def test_the_thread_ends_with_who_takes_no_more() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    taken = iter(ReadAhead(items(), most=2))
    next(taken)
    taken.close()  # type: ignore[attr-defined]
    assert closed.wait(10)
