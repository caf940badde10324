# SPDX-License-Identifier: BSD-3-Clause
"""Reading videos: frames of one size, in RGB or grey, as many as decode, with their times."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av

from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.media.conversion import Converter, Frame, orientation
from twostream_ext.media.decoding import MOST_PIXELS, Damage, Source, TimedFrame, decode, open_source
from twostream_ext.media.jpeg import LONGEST_JPEG_SIDE
from twostream_ext.media.timing import deinterlace as deinterlaced
from twostream_ext.media.timing import resample

VIDEO_EXTENSIONS = (
    *(".3gp", ".asf", ".avi", ".dv", ".flv", ".gif", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Extensions, in lower case, of the files in a folder that are taken for videos."""

_HIGHEST_FPS = 1000  # that can be asked for


@dataclass(frozen=True)
class VideoFrame:
    """A frame that is decoded, and made into pixels when it is asked for them, by the thread that reads the video."""

    time: float
    """Seconds, as in the file; at another rate (`fps`), those for which it stands."""
    _decoded: av.VideoFrame
    _converter: Converter

    def rgb(self) -> Frame:
        """uint8 RGB [H, W, 3]."""
        return self._converter.rgb(self._decoded)

    def grey(self) -> Frame:
        """uint8 [H, W]: the video's own luma, from 0 for black to 255 for white whatever its range in the file.

        It differs from the grey that OpenCV makes of RGB by 1 to 1.5 levels on average. A file without luma (RGB, a
        palette) gives the grey of its RGB.
        """
        return self._converter.grey(self._decoded)


class OpenVideo(NamedTuple):
    fps: float  # of `frames`, which may be others than the file's
    source_size: tuple[int, int]  # (height, width) in the file, in pixels, turned as it is to be seen
    size: tuple[int, int]  # (height, width) of the frames, after rescaling
    pixel_aspect: tuple[int, int]  # (width, height) of the file's pixels; (1, 1) where they are square or it is unknown
    frames: Iterator[VideoFrame]
    damage: Damage  # what was lost so far; whole when `frames` has ended

    def notes(self) -> dict[str, Any]:
        """What is kept about the file beside its frames, when they have been read, as JSON."""
        damage = {"lost": self.damage.lost, "patched": self.damage.patched, "first": self.damage.first}
        return {"pixel_aspect": list(self.pixel_aspect), "damage": damage if self.damage else None}


def open_video(
    path: str | os.PathLike[str],
    *,
    smallest_side: int | None = 256,
    frame_step: int = 1,
    fps: float | None = None,
    deinterlace: bool = False,
    square_pixels: bool = False,
) -> OpenVideo:
    """Open a video and decode its first frame; the others are decoded as they are asked for, by one thread.

    path: a file that FFmpeg can read, or a folder of numbered images (img_00001.jpg, img_00002.jpg, ..., .jpg or .png),
    which is a video of 25 frames per second; images of flow beside them (x_*, y_*, flow_x_*, flow_y_*) are left out.
    smallest_side: the shorter side of the frames in pixels after rescaling with the aspect kept
    (the paper's 256, section 5), by area averaging when they shrink and bilinearly when they grow;
    None keeps the file's size. frame_step: frames 0, frame_step, 2 * frame_step, ... alone are given.
    fps: in place of a step, frames at this rate: for each time 0, 1 / fps, 2 / fps, ... from the first frame's on, the
    last frame that is not later, after the times in the file are rounded to the nearest of these, halves upward (as
    FFmpeg's filter `fps` does). deinterlace: frames that the file marks as interlaced are made of one of their fields,
    by FFmpeg's filter bwdif; by default they are read whole, with both. square_pixels: where the file says that its
    pixels are not square, frames get the width that they are shown with.

    Frames are turned and mirrored as the file's display matrix says, by quarter turns (images as their EXIF says, which
    are turned alone). The number of frames in the
    header is never believed: frames come until the file ends. Those that cannot be decoded are left out, and counted in
    `damage`, as are those that the decoder had to patch up, which are given. If the size, the kind of pixels or the
    colours' range changes on the way, the frames are made as the first. HDR video keeps its values: no tone mapping.

    VideoError, naming the file, if it is missing, may not be read, is no video (audio only, say), has no frame that can
    be decoded or absurdly large ones; SettingsError if an option is no positive number or fps comes with frame_step.
    """
    check_smallest_side(smallest_side)
    check_rate(frame_step, fps)
    source = open_source(Path(path))
    damage = Damage()
    decoded = decode(source, damage)
    first = next(decoded, None)
    if first is None:
        raise VideoError(f"{path}: no frame can be decoded ({source.codec}{f': {damage}' if damage else ''})")
    turn = orientation(first.frame)
    source_size, pixel_aspect = (first.frame.height, first.frame.width), _pixel_aspect(source)
    if turn.transposed:
        source_size, pixel_aspect = source_size[::-1], pixel_aspect[::-1]
    size = rescaled(source_size, pixel_aspect if square_pixels else (1, 1), smallest_side)
    if max(size[0] * size[1], source_size[0] * source_size[1]) > MOST_PIXELS or max(size) > LONGEST_JPEG_SIDE:
        raise VideoError(f"{path}: {_too_large(source_size, size)}")
    timed: Iterator[TimedFrame] = chain([first], decoded)
    if deinterlace:
        timed = deinterlaced(timed)
    if fps is not None:
        timed = resample(Path(path), timed, as_fraction(fps), source.rate)
    return OpenVideo(
        fps=float(source.rate / frame_step) if fps is None else float(fps),
        source_size=source_size,
        size=size,
        pixel_aspect=pixel_aspect,
        frames=_frames(timed, Converter(Path(path), size, {first.frame.rotation: turn}), frame_step),
        damage=damage,
    )


class ReadingSettings(Protocol):
    """How the frames of a store were read, as its settings note it."""

    @property
    def smallest_side(self) -> int | None: ...
    @property
    def frame_step(self) -> int: ...
    @property
    def sampled_fps(self) -> float | None: ...
    @property
    def deinterlace(self) -> bool: ...
    @property
    def square_pixels(self) -> bool: ...


def open_as(path: str | os.PathLike[str], settings: ReadingSettings) -> OpenVideo:
    """`open_video` as the settings of a store say."""
    return open_video(
        path,
        smallest_side=settings.smallest_side,
        frame_step=settings.frame_step,
        fps=settings.sampled_fps,
        deinterlace=settings.deinterlace,
        square_pixels=settings.square_pixels,
    )


def read_video(
    path: str | os.PathLike[str], *, smallest_side: int | None = 256, grey: bool = False, **options: Any
) -> Iterator[Frame]:
    """The frames of a video, uint8 RGB [H, W, 3], or [H, W] if `grey`; see `open_video`, whose options these are."""
    frames = open_video(path, smallest_side=smallest_side, **options).frames
    return (frame.grey() if grey else frame.rgb() for frame in frames)


def video_fps(path: str | os.PathLike[str]) -> float:
    """Frames per second of a video, or `FALLBACK_FPS` if its header does not tell."""
    return open_video(path, smallest_side=None).fps


def check_smallest_side(smallest_side: int | None) -> None:
    """SettingsError unless it is None or a positive whole number."""
    if smallest_side is not None and (not isinstance(smallest_side, int) or smallest_side < 1):
        raise SettingsError(f"smallest_side is {smallest_side!r}, expected a positive number or None")


def check_rate(frame_step: int, fps: float | None) -> None:
    """SettingsError unless the step is a positive whole number and fps None, or the step 1 and fps positive."""
    if not isinstance(frame_step, int) or frame_step < 1:
        raise SettingsError(f"frame_step is {frame_step!r}, expected a positive number")
    if fps is None:
        return
    if not isinstance(fps, Real) or not math.isfinite(fps) or not 0 < as_fraction(fps) <= _HIGHEST_FPS:
        raise SettingsError(f"fps is {fps!r}, expected a number above 0 and up to {_HIGHEST_FPS}, or None")
    if frame_step != 1:
        raise SettingsError(f"fps is {fps!r} and frame_step {frame_step}: give one of them")


def as_fraction(fps: float) -> Fraction:
    """A rate as it was meant: 29.97 is 2997/100."""
    return Fraction(fps).limit_denominator(1_001_000)


def _frames(timed: Iterator[TimedFrame], converter: Converter, frame_step: int) -> Iterator[VideoFrame]:
    for time, frame in islice(timed, 0, None, frame_step):
        yield VideoFrame(float(time), frame, converter)


def _pixel_aspect(source: Source) -> tuple[int, int]:
    aspect = source.stream.sample_aspect_ratio
    return (aspect.numerator, aspect.denominator) if aspect and aspect > 0 else (1, 1)


def rescaled(size: tuple[int, int], pixel_aspect: tuple[int, int], smallest_side: int | None) -> tuple[int, int]:
    """(height, width) with square pixels out of such of this aspect."""
    height, width = size[0], size[1] * pixel_aspect[0] / pixel_aspect[1]
    scale = 1.0 if smallest_side is None else smallest_side / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _too_large(source_size: tuple[int, int], size: tuple[int, int]) -> str:
    told = f"frames of {source_size[1]}x{source_size[0]} pixels are too large"
    return told if size == source_size else f"{told} (rescaled: {size[1]}x{size[0]})"
