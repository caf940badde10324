# SPDX-License-Identifier: BSD-3-Clause
"""Items read by a thread of their own, so that whoever takes them need not wait, nor keep a camera waiting."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_LOOK = 0.1  # seconds between two looks at whether to stop, where nothing comes


class ReadAhead(Generic[Item]):
    """The items of another iterator, in order, read by a thread while those before are worked on.

    An error that the other raises is raised here after the items before it.
    """

    def __init__(self, items: Iterable[Item], *, most: int = 8, drops: bool = False) -> None:
        """most: items that may wait. drops: when more come, the oldest is dropped; otherwise they are waited with."""
        self.dropped = 0
        """How many so far."""
        self._items = items
        self._most = most
        self._drops = drops
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._is_done = False
        self._error: BaseException | None = None

    def stop(self) -> None:
        """End the iteration before the next item; for other threads and for signal handlers, as it takes no lock."""
        self._is_stopped = True

    def __iter__(self) -> Generator[Item, None, None]:
        # A daemon: one that waits for a camera or a pipe must not keep the process from ending.
        threading.Thread(target=self._read, name="read ahead", daemon=True).start()
        try:
            while not self._is_stopped:
                with self._changed:
                    if not self._waiting:
                        if self._is_done:
                            break
                        self._changed.wait(_LOOK)  # not for ever: a stop is not told of
                        continue
                    item = self._waiting.popleft()
                    self._changed.notify_all()
                yield item
            else:
                return
            if self._error is not None:
                raise self._error
        finally:
            self.stop()

    def _read(self) -> None:
        try:
            for item in self._items:
                self._put(item)
                if self._is_stopped:
                    break
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()  # a camera is let go of
            with self._changed:
                self._is_done = True
                self._changed.notify_all()

    def _put(self, item: Item) -> None:
        with self._changed:
            while len(self._waiting) >= self._most and not self._is_stopped:
                if self._drops:
                    self._waiting.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait(_LOOK)
            self._waiting.append(item)
            self._changed.notify_all()
