# SPDX-License-Identifier: BSD-3-Clause
"""Reading video files with OpenCV: frames of one size, in RGB, as many as decode."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import SettingsError, VideoError

VIDEO_EXTENSIONS = (
    *(".3gp", ".asf", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Extensions, in lower case, of the files in a folder that are taken for videos."""

FALLBACK_FPS = 25.0
"""Frames per second of a video whose header does not tell; UCF-101's."""

_MOST_PIXELS = 1 << 26  # of a frame; twice those of 8K video. What claims more is damaged.

_DAMAGED_IN_A_ROW = 250  # frames that cannot be decoded, before the rest of a file is given up

# Silence: FFmpeg would print its own remarks on damaged files. A user who has set the variable still gets them.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_opening = threading.Lock()

Frame = npt.NDArray[np.uint8]


class OpenVideo(NamedTuple):
    fps: float  # of `frames`, which may be every frame_step-th of the file's
    source_size: tuple[int, int]  # (height, width) in the file, in pixels
    size: tuple[int, int]  # (height, width) of the frames, after rescaling
    frames: Iterator[Frame]  # uint8 RGB [H, W, 3]


def open_video(path: str | os.PathLike[str], *, smallest_side: int | None = 256, frame_step: int = 1) -> OpenVideo:
    """Open a video and decode its first frame; the others are decoded as they are asked for.

    smallest_side: the shorter side of the frames in pixels after rescaling with the aspect kept
    (the paper's 256, section 5), by area averaging when they shrink and bilinearly when they grow;
    None keeps the file's size. frame_step: frames 0, frame_step, 2 * frame_step, ... alone are given.

    The number of frames in the header is never believed: frames come until the file ends. Those that
    are damaged beyond decoding are left out. If the size changes on the way, they are rescaled to that
    of the first.

    VideoError if the file is missing, is no video, has no frame that can be decoded or absurdly large
    ones; SettingsError if `smallest_side` or `frame_step` is not a positive number.
    """
    check_smallest_side(smallest_side)
    check_frame_step(frame_step)
    path = Path(path)
    capture = _open_capture(path)
    first: cv2.typing.MatLike | None = capture.retrieve()[1] if _advance(capture) else None
    if first is None:
        raise VideoError(f"{path}: no frame can be decoded")
    source_size = first.shape[0], first.shape[1]
    size = _rescaled(source_size, smallest_side)
    if max(size[0] * size[1], source_size[0] * source_size[1]) > _MOST_PIXELS:
        raise VideoError(f"{path}: frames of {source_size[1]}x{source_size[0]} pixels are too large")
    fps = capture.get(cv2.CAP_PROP_FPS)
    return OpenVideo(
        fps=(fps if math.isfinite(fps) and fps > 0 else FALLBACK_FPS) / frame_step,
        source_size=source_size,
        size=size,
        frames=_frames(capture, first, size, frame_step),
    )


def read_video(path: str | os.PathLike[str], *, smallest_side: int | None = 256, grey: bool = False) -> Iterator[Frame]:
    """The frames of a video, uint8 RGB [H, W, 3], or [H, W] if `grey`; see `open_video`."""
    frames = open_video(path, smallest_side=smallest_side).frames
    return map(to_grey, frames) if grey else frames


def video_fps(path: str | os.PathLike[str]) -> float:
    """Frames per second of a video, or `FALLBACK_FPS` if its header does not tell."""
    return open_video(path, smallest_side=None).fps


def to_grey(frame: Frame) -> Frame:
    """uint8 [H, W] of an RGB frame uint8 [H, W, 3]."""
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def check_smallest_side(smallest_side: int | None) -> None:
    """SettingsError unless it is None or a positive whole number."""
    if smallest_side is not None and (not isinstance(smallest_side, int) or smallest_side < 1):
        raise SettingsError(f"smallest_side is {smallest_side!r}, expected a positive number or None")


def check_frame_step(frame_step: int) -> None:
    """SettingsError unless it is a positive whole number."""
    if not isinstance(frame_step, int) or frame_step < 1:
        raise SettingsError(f"frame_step is {frame_step!r}, expected a positive number")


def _open_capture(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    name = str(path.absolute())  # else FFmpeg takes what stands before a colon for a protocol
    try:
        name.encode()
    except UnicodeEncodeError as error:  # OpenCV would crash
        raise VideoError(f"{path!r}: the name is not UTF-8") from error
    with quiet_opencv():
        # One thread: extraction and data loading decode several videos at once.
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise VideoError(f"{path}: is not a video that OpenCV can read")
    return capture


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


def _frames(
    capture: cv2.VideoCapture, first: cv2.typing.MatLike, size: tuple[int, int], frame_step: int
) -> Iterator[Frame]:
    frame: cv2.typing.MatLike | None = first
    while frame is not None:
        yield np.asarray(cv2.cvtColor(_rescale(frame, size), cv2.COLOR_BGR2RGB), dtype=np.uint8)
        if not all(_advance(capture) for _ in range(frame_step)):
            return
        frame = capture.retrieve()[1]


def _advance(capture: cv2.VideoCapture) -> bool:
    """Go to the next frame that can be decoded; False at the end.

    OpenCV does not tell a damaged frame from the end of the file: only after many in a row it is taken for that.
    """
    return any(capture.grab() for _ in range(_DAMAGED_IN_A_ROW))


def _rescaled(size: tuple[int, int], smallest_side: int | None) -> tuple[int, int]:
    """(height, width) after rescaling."""
    height, width = size
    if smallest_side is None:
        return height, width
    scale = smallest_side / min(height, width)
    return round(height * scale), round(width * scale)


def _rescale(frame: cv2.typing.MatLike, size: tuple[int, int]) -> cv2.typing.MatLike:
    height, width = size
    if frame.shape[:2] == size:
        return frame
    shrinks = height < frame.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=method)
