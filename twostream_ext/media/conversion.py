# SPDX-License-Identifier: BSD-3-Clause
"""Decoded frames as arrays: turned as the file says, rescaled, in RGB or in grey."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from twostream_ext.errors import VideoError, describe

Frame = npt.NDArray[np.uint8]


class Orientation(NamedTuple):
    """How the pixels of a file become those that are to be seen: transposed first, then mirrored."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False


class Converter:
    """Makes frames of one size from those of a decoder, whatever their pixels are; for one thread at a time."""

    def __init__(self, path: Path, size: tuple[int, int], turns: dict[int, Orientation]) -> None:
        """path: for errors; size: (height, width) as it is to be seen; turns: those that are known, by rotation."""
        self._path = path
        self._size = size
        self._turns = turns
        # One for all frames: to set one up takes longer than to convert a small frame.
        self._reformatter = VideoReformatter()

    def rgb(self, frame: av.VideoFrame) -> Frame:
        """uint8 RGB [H, W, 3]; VideoError, naming the file, if FFmpeg cannot convert its pixels."""
        return self._finish(self._source_rgb(frame), frame)

    def grey(self, frame: av.VideoFrame) -> Frame:
        """uint8 [H, W], black 0 and white 255: the file's own luma, or the grey of RGB where a file has no luma."""
        luma = _luma(frame)
        if luma is None:
            luma = np.asarray(cv2.cvtColor(self._source_rgb(frame), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        return self._finish(luma, frame)

    def _source_rgb(self, frame: av.VideoFrame) -> Frame:
        # Bicubic in the chroma alone, as the size stays; the pixels are those that OpenCV's reader gave.
        try:
            converted = self._reformatter.reformat(
                frame, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1
            )
        except (ValueError, av.FFmpegError) as error:
            pixels = f"{frame.format.name} of {frame.width}x{frame.height}"
            raise VideoError(f"{self._path}: its pixels ({pixels}) cannot be made RGB: {describe(error)}") from error
        plane = converted.planes[0]
        shape, strides = (frame.height, frame.width, 3), (plane.line_size, 3, 1)
        return np.ndarray(shape, np.uint8, buffer=memoryview(plane), strides=strides)

    def _finish(self, pixels: Frame, frame: av.VideoFrame) -> Frame:
        rotation = frame.rotation
        if rotation not in self._turns:
            self._turns[rotation] = orientation(frame)
        turned = _turn(pixels, self._turns[rotation])
        height, width = self._size
        if turned.shape[:2] == (height, width):
            return np.array(turned, order="C")  # not a view of the decoder's memory
        method = cv2.INTER_AREA if height < turned.shape[0] else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(turned, (width, height), interpolation=method), dtype=np.uint8)


def orientation(frame: av.VideoFrame) -> Orientation:
    """What the file's display matrix asks for, to the nearest quarter turn."""
    across, down, from_x, from_y = _display_matrix(frame)
    if abs(across) + abs(down) >= abs(from_x) + abs(from_y):
        return Orientation(False, down < 0, across < 0)
    return Orientation(True, from_x < 0, from_y < 0)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """x by x, y by y, y by x and x by y: where a step in the file goes on the screen."""
    matrix: Any
    # PyAV ties a frame whose side data is asked for into a circle, whose memory stays for long: of a tiny one, then.
    try:
        tiny = frame.reformat(width=16, height=16, format="gray", threads=1)
        matrix = tiny.side_data.get("DISPLAYMATRIX")
    except (ValueError, av.FFmpegError):  # PyAV knows not every kind of side data, and then lists none
        matrix = None
        if frame.rotation:
            quarter = round(frame.rotation / 90) % 4
            return ((1, 1, 0, 0), (0, 0, -1, 1), (-1, -1, 0, 0), (0, 0, 1, -1))[quarter]
    if matrix is None:
        return 1, 1, 0, 0
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return a, d, b, c


def _turn(pixels: Frame, how: Orientation) -> Frame:
    if not any(how):
        return pixels
    if how.transposed:
        pixels = pixels.swapaxes(0, 1)
    if how.upside_down:
        pixels = pixels[::-1]
    if how.mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _luma(frame: av.VideoFrame) -> Frame | None:
    """Brightness from 0 to 255 out of the frame's own plane, or None if it has none by itself."""
    bits = _luma_bits(frame.format)
    if bits is None:
        return None
    plane = frame.planes[0]
    bytes_each = 1 if bits == 8 else 2
    step = plane.line_size
    samples = np.ndarray(
        (frame.height, frame.width),
        np.uint8 if bits == 8 else np.dtype("<u2"),
        buffer=memoryview(plane),
        offset=max(0, -step * (frame.height - 1)),  # some decoders write the lowest row first
        strides=(step, bytes_each),
    )
    black, white = _range(bits, _is_full_range(frame))
    if (black, white) == (0, 255):
        return samples
    scale = 255 / (white - black)
    # 0 * samples: what OpenCV calls a blend of two is its fastest way to scale, shift, round and clip.
    return np.asarray(cv2.addWeighted(samples, scale, samples, 0, -black * scale, dtype=cv2.CV_8U), dtype=np.uint8)


def _luma_bits(pixels: av.VideoFormat) -> int | None:
    """Bits of the samples of plane 0, if those are luma and nothing else lies in it."""
    first = pixels.components[0]
    alone = pixels.is_planar or len(pixels.components) == 1
    if pixels.is_rgb or pixels.has_palette or not (alone and first.is_luma and first.plane == 0):
        return None
    if first.bits == 8:
        return 8
    if not 8 < first.bits <= 16 or not pixels.name.endswith("le"):
        return None
    # p010 and its kin have their bits at the upper end of 16.
    return 16 if pixels.name[0] == "p" and pixels.name[1:4].isdigit() else first.bits


def _is_full_range(frame: av.VideoFrame) -> bool:
    if frame.color_range != ColorRange.UNSPECIFIED:
        return frame.color_range == ColorRange.JPEG
    return frame.format.name.startswith(("yuvj", "gray"))


def _range(bits: int, full: bool) -> tuple[int, int]:
    """The values of black and white; 16 and 235 of 8 bits in limited range."""
    return (0, (1 << bits) - 1) if full else (16 << (bits - 8), 235 << (bits - 8))
