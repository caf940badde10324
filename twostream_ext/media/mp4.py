# SPDX-License-Identifier: BSD-3-Clause
"""Writing pictures as a video file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import VideoError
from twostream_ext.files import atomic_write, remove_leftovers_of
from twostream_ext.media.decoding import FALLBACK_FPS, Damage, decode, open_source

# OpenCV's writer would print FFmpeg's remarks; what went wrong is found by reading the file again. A user who has set
# the variable still gets them.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_opening = threading.Lock()

_LOWEST_FPS, _HIGHEST_FPS = 0.01, 65535

Picture = npt.NDArray[np.uint8]
"""uint8 RGB [H, W, 3]."""


def write_mp4(out: str | os.PathLike[str], pictures: Iterable[Picture], fps: float) -> None:
    """Write pictures of one size, uint8 RGB [H, W, 3], as an .mp4, whole or not at all.

    fps: frames per second, written to five digits. One that no video can have (not a number, infinite, below 0.01 or
    above 65535) becomes 25.

    VideoError, naming `out`, if that cannot be: there is no picture, they differ in size, or the disk is full.
    """
    check_mp4(out)
    try:
        remove_leftovers_of(out)
        with atomic_write(out, ending=".mp4") as temporary:  # OpenCV chooses the container by the name's ending
            given = _encode(temporary, pictures, fps)
            written = _count_frames(temporary)
            if given == 0:
                raise VideoError(f"{out}: there are no pictures to write")
            if written != given:  # OpenCV does not tell of a disk that is full
                raise VideoError(f"{out}: cannot be written: it would hold {written} of {given} pictures")
    except OSError as error:
        raise VideoError(f"{out}: cannot be written: {error.strerror}") from error


def check_mp4(out: str | os.PathLike[str]) -> None:
    """VideoError unless the name ends in .mp4."""
    if Path(out).suffix.lower() != ".mp4":
        raise VideoError(f"{out}: is written as .mp4, give it that ending")


def _encode(path: Path, pictures: Iterable[Picture], fps: float) -> int:
    """Return how many pictures there were."""
    rest = iter(pictures)
    first = next(rest, None)
    if first is None:
        return 0
    height, width = _even(first).shape[:2]
    with quiet_opencv():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), _writable_fps(fps), (width, height))
    count = 0
    try:
        for picture in chain([first], rest):
            writer.write(cv2.cvtColor(_even(picture), cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        writer.release()
    return count


def _even(picture: Picture) -> Picture:
    """Video codecs want even sizes: the last row and column twice where they are odd."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _writable_fps(fps: float) -> float:
    """The nearest rate that MPEG-4 can hold by way of OpenCV: up to 65535 ones, tenths, hundredths or thousandths."""
    if not _LOWEST_FPS <= fps <= _HIGHEST_FPS:  # so is what is not a number
        return FALLBACK_FPS
    parts_of_one = max(each for each in (1, 10, 100, 1000) if round(fps * each) <= _HIGHEST_FPS)
    return round(fps * parts_of_one) / parts_of_one


def _count_frames(path: Path) -> int:
    """How many frames can be decoded; the header may promise more."""
    try:
        return sum(1 for _ in decode(open_source(path), Damage()))
    except VideoError:  # not even a video
        return 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Without OpenCV's warnings: what went wrong is in our error. The level is one per process."""
    with _opening:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(level)
