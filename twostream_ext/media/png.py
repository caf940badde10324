# SPDX-License-Identifier: BSD-3-Clause
"""Coding a picture as a PNG, by FFmpeg: OpenCV's libpng prints lines of its own where memory is short."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt


def code_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A picture, uint8 RGB [H, W, 3], as a .png file holds it; MemoryError where there is none for it."""
    coder = av.CodecContext.create("png", "w")
    coder.height, coder.width = picture.shape[:2]
    coder.pix_fmt = "rgb24"
    coder.time_base = Fraction(1)
    coder.thread_count = 1
    coder.options = {"compression_level": "1", "pred": "sub"}  # as OpenCV does; more takes longer and saves little
    try:
        packets = [*coder.encode(av.VideoFrame.from_ndarray(picture, "rgb24")), *coder.encode(None)]
    except av.FFmpegError as error:
        raise MemoryError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be coded") from error
    return b"".join(map(bytes, packets))
