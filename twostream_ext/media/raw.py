# SPDX-License-Identifier: BSD-3-Clause
"""Frames that come as bare pixels: from an array, a pipe or a camera."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np

from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.media.conversion import Converter, Frame, Orientation
from twostream_ext.media.decoding import FALLBACK_FPS, MOST_PIXELS, Damage
from twostream_ext.media.jpeg import LONGEST_JPEG_SIDE
from twostream_ext.media.mp4 import quiet_opencv
from twostream_ext.media.video import OpenVideo, VideoFrame, check_rate, check_smallest_side, rescaled

RAW_PIXELS = ("rgb24", "yuv420p")
"""How the pixels of a pipe may lie, by FFmpeg's names."""


class RawFrames:
    """Makes frames of pixels of one size, as `open_video` does of those of a file; for one thread at a time."""

    def __init__(
        self, name: str, source_size: tuple[int, int], *, pixels: str = "rgb24", smallest_side: int | None = 256
    ) -> None:
        """name: for errors; source_size: (height, width) of what is given; the others as of `open_raw`."""
        check_smallest_side(smallest_side)
        if pixels not in RAW_PIXELS:
            raise SettingsError(f"{name}: pixels are {pixels!r}, expected one of {', '.join(RAW_PIXELS)}")
        height, width = source_size
        if min(source_size) < 1 or (pixels == "yuv420p" and (height % 2 or width % 2)):
            wanted = "even numbers" if pixels == "yuv420p" else "at least 1x1"
            raise SettingsError(f"{name}: the size of {pixels} frames is {width}x{height}, expected {wanted}")
        self.source_size = source_size
        self.size = rescaled(source_size, (1, 1), smallest_side)
        if max(height * width, self.size[0] * self.size[1]) > MOST_PIXELS or max(self.size) > LONGEST_JPEG_SIDE:
            raise VideoError(f"{name}: frames of {width}x{height} pixels are too large")
        self.shape = (height, width, 3) if pixels == "rgb24" else (height * 3 // 2, width)
        self._pixels = pixels
        self._converter = Converter(Path(name), self.size, {0: Orientation()})

    def frame(self, pixels: Frame, time: float) -> VideoFrame:
        """A frame that shows a copy of pixels, uint8 of `shape`, at a time in seconds."""
        decoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=self._pixels)
        return VideoFrame(time, decoded, self._converter)


def open_raw(
    file: FileIO,
    *,
    size: tuple[int, int],
    fps: float,
    pixels: str = "rgb24",
    smallest_side: int | None = 256,
    name: str = "pipe",
) -> OpenVideo:
    """Frames one after the other without any header, as `ffmpeg -i X -f rawvideo -pix_fmt rgb24 -` writes them.

    file: open for reading, without a buffer; read as frames are asked for, until it ends. size: (height, width) of what
    comes. fps: what the times of frames are counted by. pixels: one of `RAW_PIXELS`; of yuv420p, in which most files
    are, flow is estimated on the same luma as of the file, and of rgb24 on the grey of its RGB. smallest_side: as of
    `open_video`. name: for errors.

    An end within a frame is counted in `damage`; that frame is not given. SettingsError for a size, a rate or pixels
    that cannot be.
    """
    check_rate(1, fps)
    maker = RawFrames(name, size, pixels=pixels, smallest_side=smallest_side)
    damage = Damage()
    return OpenVideo(float(fps), size, maker.size, (1, 1), _read_raw(file, maker, fps, damage, name), damage)


def _read_raw(file: FileIO, maker: RawFrames, fps: float, damage: Damage, name: str) -> Iterator[VideoFrame]:
    number = 0
    while True:
        buffer = np.empty(maker.shape, np.uint8)
        read = _fill(file, buffer.data.cast("B"), name)
        if read < buffer.nbytes:
            if read:
                damage.add_lost(1, f"at frame {number}: the pipe ends after {read} of its {buffer.nbytes} bytes")
            return
        yield maker.frame(buffer, number / fps)
        number += 1


def _fill(file: FileIO, buffer: memoryview, name: str) -> int:
    """Read until the buffer is full or the file ends; return how many bytes there are."""
    filled = 0
    try:
        while filled < len(buffer) and (read := file.readinto(buffer[filled:])):
            filled += read
    except OSError as error:
        raise VideoError(f"{name}: cannot be read: {error.strerror}") from error
    return filled


class Capture(Protocol):
    """What is needed of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: N802  named as in OpenCV
    def read(self) -> tuple[bool, cv2.typing.MatLike]: ...
    def get(self, propId: int, /) -> float: ...  # noqa: N803
    def set(self, propId: int, value: float, /) -> bool: ...  # noqa: N803
    def release(self) -> None: ...


def open_camera(number: int, *, fps: float | None = None, smallest_side: int | None = 256) -> OpenVideo:
    """The frames of a camera of this machine, by OpenCV, as they come; each has the time at which it came.

    number: of the camera, from 0. fps: asked of the camera, which may give another rate; None: its own. What the camera
    then says is the rate of the video, or what was asked for, or 25, where it says nothing.

    VideoError if there is no such camera or it gives no frame.
    """
    if fps is not None:
        check_rate(1, fps)
    name = f"camera:{number}"
    with quiet_opencv():
        capture = _capture(number)
    if not capture.isOpened():
        raise VideoError(f"{name}: there is no such camera, or it is in use")
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    found, first = capture.read()
    if not found:
        capture.release()
        raise VideoError(f"{name}: gives no picture")
    rate = capture.get(cv2.CAP_PROP_FPS)
    source_size = (first.shape[0], first.shape[1])
    maker = RawFrames(name, source_size, smallest_side=smallest_side)
    return OpenVideo(
        fps=rate if 0 < rate < float("inf") else fps or FALLBACK_FPS,
        source_size=source_size,
        size=maker.size,
        pixel_aspect=(1, 1),
        frames=_captured(capture, first, maker),
        damage=Damage(),
    )


def _capture(number: int) -> Capture:
    return cv2.VideoCapture(number)


def _captured(capture: Capture, first: cv2.typing.MatLike, maker: RawFrames) -> Iterator[VideoFrame]:
    started = time.monotonic()
    picture, found = first, True
    try:
        while found:
            rgb = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield maker.frame(rgb, time.monotonic() - started)
            found, picture = capture.read()
    finally:
        capture.release()
