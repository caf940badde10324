# SPDX-License-Identifier: BSD-3-Clause
"""OpenCV and torch with one thread a call, where videos are what is shared out among threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

_IMPORTED_BY = os.getpid()


@contextmanager
def single_threads() -> Iterator[None]:
    """Let every call of OpenCV and torch take one thread; both are set back at the end.

    For torch that holds in threads that are started with `torch.set_num_threads(1)`.
    """
    opencv, ours = cv2.getNumThreads(), torch.get_num_threads()
    set_opencv_threads(1)
    try:
        yield
    finally:
        set_opencv_threads(opencv)
        torch.set_num_threads(ours)  # set to 1 in a worker, it is 1 in threads that start later


def set_opencv_threads(count: int) -> None:
    """Let OpenCV use so many threads a call; not in a forked child, where it would wait for those of its parent."""
    if os.getpid() == _IMPORTED_BY:
        cv2.setNumThreads(count)
