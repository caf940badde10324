# SPDX-License-Identifier: BSD-3-Clause
"""Writing pictures as a video file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import VideoError
from twostream_ext.files import atomic_write

Picture = npt.NDArray[np.uint8]
"""uint8 RGB [H, W, 3]."""


def write_mp4(out: str | os.PathLike[str], pictures: Iterable[Picture], fps: float) -> None:
    """Write pictures of one size, uint8 RGB [H, W, 3], as an .mp4; VideoError if that cannot be."""
    check_mp4(out)
    with atomic_write(out) as temporary:
        named = temporary.with_suffix(".mp4")  # OpenCV chooses the container by the name's ending
        writer = None
        try:
            for picture in pictures:
                even = _even(picture)
                if writer is None:
                    size = (even.shape[1], even.shape[0])
                    writer = cv2.VideoWriter(str(named), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
                    if not writer.isOpened():
                        raise VideoError(f"{out}: cannot be written")
                writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
            if writer is None:
                raise VideoError(f"{out}: there are no pictures to write")
            writer.release()
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def check_mp4(out: str | os.PathLike[str]) -> None:
    """VideoError unless the name ends in .mp4."""
    if Path(out).suffix.lower() != ".mp4":
        raise VideoError(f"{out}: is written as .mp4, give it that ending")


def _even(picture: Picture) -> Picture:
    """Video codecs want even sizes: the last row and column twice where they are odd."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
