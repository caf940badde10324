# SPDX-License-Identifier: BSD-3-Clause
"""Decoding one component of a flow field from a JPEG, with what the decoder itself does not check."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_START = b"\xff\xd8"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END_OF_HEADERS = frozenset({0xD9, 0xDA})  # the end of the picture, the start of its pixels


def jpeg_size(picture: npt.NDArray[np.uint8]) -> tuple[int, int] | None:
    """Height and width that a JPEG claims, uint8 [bytes]; None if it is none."""
    data = picture.data
    if data[:2] != _START:
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAME_HEADERS:
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        if marker in _END_OF_HEADERS:
            return None
        # Padding with 0xFF is allowed before a marker; all else here has a length.
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def largest_jpeg(height: int, width: int) -> int:
    """Bytes that no grey JPEG of a size needs."""
    return 4 * height * width + (1 << 16)


def most_pixels(size: int) -> int:
    """Pixels that no JPEG of `size` bytes has: each 8 by 8 of them take a bit at least."""
    return 512 * size


def decode_jpeg(picture: npt.NDArray[np.uint8], plane: npt.NDArray[np.uint8]) -> bool:
    """Decode a JPEG, uint8 [bytes], into a plane, uint8 [H, W]; tell whether it is one of that size.

    The size is looked at first, so that a damaged one is not allocated. The interpreter is free for other threads while
    this decodes.
    """
    if jpeg_size(picture) != plane.shape:
        return False
    try:
        decoded = cv2.imdecode(picture, cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return False
    if decoded is None or decoded.shape != plane.shape:
        return False
    plane[:] = decoded  # OpenCV cannot be given the place from Python; this copy takes a fiftieth of the decoding
    return True
