# SPDX-License-Identifier: BSD-3-Clause
"""Coding a picture as a PNG, by FFmpeg: OpenCV's libpng prints lines of its own where memory is short."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt


def code_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A .png file of a picture, uint8 RGB [H, W, 3] or RGBA [H, W, 4]; MemoryError where there is none for it."""
    coder = av.CodecContext.create("png", "w")
    coder.height, coder.width, channels = picture.shape
    coder.pix_fmt = "rgba" if channels == 4 else "rgb24"
    coder.time_base = Fraction(1)
    coder.thread_count = 1
    coder.options = {"compression_level": "1", "pred": "sub"}  # as OpenCV does; more takes longer and saves little
    try:
        packets = [*coder.encode(av.VideoFrame.from_ndarray(picture, coder.pix_fmt)), *coder.encode(None)]
    except av.FFmpegError as error:
        raise MemoryError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be coded") from error
    return b"".join(map(bytes, packets))
