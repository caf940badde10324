# SPDX-License-Identifier: BSD-3-Clause
"""Coding planes and frames as JPEGs, and decoding planes with what the decoder itself does not check."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import SettingsError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

CODECS = ("jpeg", "raw")
"""How the planes of a store may be coded."""

LONGEST_JPEG_SIDE = 65500
"""Pixels; libjpeg's limit."""

_START = (0xFF, 0xD8)
_SEGMENT = struct.Struct(">BBHxHH")  # 0xFF, marker, length; of a frame header also precision, height, width
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END_OF_HEADERS = frozenset({0xD9, 0xDA})  # the end of the picture, the start of its pixels


def code_jpeg(picture: npt.NDArray[np.uint8], quality: int | None) -> bytes:
    """JPEG of a picture, grey [H, W] or BGR [H, W, 3].

    ValueError if it is larger than a JPEG can be; MemoryError where OpenCV gives none: it only tells of it by a flag.
    """
    if max(picture.shape[:2]) > LONGEST_JPEG_SIDE:
        height, width = picture.shape[:2]
        raise ValueError(f"a picture of {width}x{height} pixels is too large for a JPEG ({LONGEST_JPEG_SIDE} at most)")
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, coded = cv2.imencode(".jpg", picture, options)
    if not done:
        raise MemoryError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be coded")
    return coded.tobytes()


def check_codec(codec: str, quality: int | None) -> None:
    """SettingsError unless they can be used."""
    if codec not in CODECS:
        raise SettingsError(f"codec is {codec!r}, expected one of {', '.join(CODECS)}")
    if codec == "jpeg" and (not isinstance(quality, int) or not 1 <= quality <= 100):
        raise SettingsError(f"quality is {quality!r}, expected a number from 1 to 100")


def jpeg_size(picture: npt.NDArray[np.uint8]) -> tuple[int, int] | None:
    """Height and width that a JPEG claims, uint8 [bytes]; None if it is none."""
    data: Any = picture
    try:
        if _SEGMENT.unpack_from(data, 0)[:2] != _START:
            return None
        position = 2
        while True:
            escape, marker, length, height, width = _SEGMENT.unpack_from(data, position)
            if escape != 0xFF or marker in _END_OF_HEADERS:
                return None
            if marker in _FRAME_HEADERS:
                return height, width
            # Padding with 0xFF is allowed before a marker; all else here has a length.
            position += 1 if marker == 0xFF else 2 + length
    except struct.error:  # past the end
        return None


def largest_jpeg(height: int, width: int) -> int:
    """Bytes that no grey JPEG of a size needs."""
    return 4 * height * width + (1 << 16)


def most_pixels(size: int) -> int:
    """Pixels that no JPEG of `size` bytes has: each 8 by 8 of them take a bit at least."""
    return 512 * size


def decode_jpeg(picture: npt.NDArray[np.uint8], plane: npt.NDArray[np.uint8]) -> bool:
    """Decode a JPEG, uint8 [bytes], into a plane, uint8 [H, W] in one piece; tell whether it is one of that size.

    No memory is made for one of another size. The interpreter is free for other threads while this decodes.
    """
    return _decode(picture, plane)


def decode_frame(picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG, uint8 [bytes], to RGB uint8 [H, W, 3]; None if it is none of that size.

    No memory is made for one of another size, nor for more pixels than the bytes can have.
    """
    if jpeg_size(picture) != size or size[0] * size[1] > most_pixels(len(picture)):
        return None
    try:
        frame = cv2.imdecode(picture, cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    return None if frame is None or frame.shape != (*size, 3) else np.asarray(frame, np.uint8)


def _decode_and_copy(picture: npt.NDArray[np.uint8], plane: npt.NDArray[np.uint8]) -> bool:
    if jpeg_size(picture) != plane.shape:
        return False
    try:
        decoded = cv2.imdecode(picture, cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return False
    if decoded is None or decoded.shape != plane.shape:
        return False
    plane[:] = decoded
    return True


def _decode_in_place(picture: npt.NDArray[np.uint8], plane: npt.NDArray[np.uint8]) -> bool:
    try:
        decoded = simplejpeg.decode_jpeg(picture, "GRAY", buffer=plane)
    except ValueError:
        return False
    return bool(decoded.shape[:2] == plane.shape)


# The same decoder and the same pixels; but OpenCV cannot be given the place from Python.
_decode = _decode_and_copy if simplejpeg is None else _decode_in_place
