# SPDX-License-Identifier: BSD-3-Clause
"""The motion of one video, in numbers."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from twostream_ext.errors import VideoError, describe
from twostream_ext.flow import estimate_clip_flow, find_method
from twostream_ext.media import Frame, OpenVideo, check_rate, check_smallest_side, open_video
from twostream_ext.motion.fields import CameraMotion, Displacement, FieldMotion

_PAIRS = 16  # of frames, whose flow is estimated in one go
_LIKENESS_OF_A_CUT = 0.35  # of two frames after the flow between them is undone; see `_likeness`
_STILL = 0.5  # grey levels that a still picture may change by from frame to frame, on average


@dataclass(frozen=True)
class MotionSettings:
    """How videos are looked at; SettingsError for what cannot be."""

    fps: float | None = 2.0
    """Frames a second that are taken, by their times in the file; None takes all."""
    smallest_side: int | None = 128
    """Their shorter side, in pixels, after rescaling; None keeps the file's."""
    method: str = "dis"
    """How flow is estimated, of `flow.METHODS`."""

    def __post_init__(self) -> None:
        check_rate(1, self.fps)
        check_smallest_side(self.smallest_side)
        find_method(self.method)


class MotionScore(NamedTuple):
    """The motion of a video. All lengths are in pixels of the file, whatever size its frames were taken at.

    Motion is from each frame that was taken to the next; where a cut lies between two, nothing is. What has no value
    (a video of cuts alone) is NaN.
    """

    frames: int
    """That were taken."""
    seconds: float
    """From the first of them to the last."""
    width: int
    """Of the file's frames, in pixels."""
    height: int
    displacement: Displacement
    """Of all pixels."""
    objects: Displacement
    """Of all pixels, with the camera's motion removed."""
    camera: CameraMotion
    moving: float
    """Share of the pixels that move, with the camera's motion removed; see `FieldMotion.moving`."""
    still: bool
    """Whether it is a still picture (or several, with cuts between them)."""
    cuts: int
    """Between frames that were taken."""

    @property
    def diagonal(self) -> float:
        """Of the file's frames, in pixels; displacements divided by it do not depend on the size of the video."""
        return math.hypot(self.width, self.height)


def score(video: str | os.PathLike[str], settings: MotionSettings | None = None) -> MotionScore:
    """Measure how much moves in a video, with the camera's own motion told apart.

    ```python
    motion = twostream_ext.motion.score("some.mp4")
    print(motion.objects.mean / motion.diagonal, motion.camera.pan)
    ```

    Frames are decoded one by one, and flow is estimated on the processor by one thread: memory does not grow with the
    length of the video.

    video: a file, or a folder of numbered images. settings: by default those of `MotionSettings`.

    VideoError, naming the video, if it cannot be read, its frames are too small, or there is only one of them.
    """
    return score_until(threading.Event(), video, MotionSettings() if settings is None else settings)


def score_until(stop: threading.Event, video: str | os.PathLike[str], settings: MotionSettings) -> MotionScore:
    """`score`, given up when the event is set: CancelledError then."""
    try:
        return _score(stop, video, settings)
    except cv2.error as error:
        raise VideoError(f"{video}: OpenCV failed: {describe(error)}") from error
    except MemoryError as error:
        raise VideoError(f"{video}: there is not enough memory for its frames") from error


def _score(stop: threading.Event, path: str | os.PathLike[str], settings: MotionSettings) -> MotionScore:
    video = open_video(path, smallest_side=settings.smallest_side, fps=settings.fps)
    height, width = video.source_size
    diagonal = math.hypot(width, height)
    motion = FieldMotion(diagonal / math.hypot(*video.size), diagonal)
    count, cuts, is_still = 1, 0, True
    for frames in _stretches(video):
        if stop.is_set():
            raise CancelledError
        try:
            fields = estimate_clip_flow(torch.from_numpy(frames), settings.method).forward
        except VideoError as error:
            raise VideoError(f"{path}: {error}") from error
        kept = []
        for index, field in enumerate(fields.numpy()):
            pair = frames[index], frames[index + 1]
            if _likeness(*pair, field) < _LIKENESS_OF_A_CUT:
                cuts += 1
                continue
            is_still = is_still and float(cv2.absdiff(*pair).mean()) < _STILL
            kept.append(index)
        count += len(fields)
        if kept:
            motion.add(fields[kept], video.fps)
    if count == 1:
        raise VideoError(f"{path}: {_at_rate(settings)}1 frame, motion needs at least 2")
    return MotionScore(
        frames=count,
        seconds=(count - 1) / video.fps,
        width=width,
        height=height,
        displacement=motion.displacement(),
        objects=motion.objects(),
        camera=motion.camera(),
        moving=motion.moving(),
        still=is_still,
        cuts=cuts,
    )


def _at_rate(settings: MotionSettings) -> str:
    return "has " if settings.fps is None else f"at {settings.fps:g} frames a second has "


def _stretches(video: OpenVideo) -> Iterator[Frame]:
    """Grey frames uint8 [T, H, W], T from 2 on; each stretch begins with the last frame of the one before."""
    frames = (frame.grey() for frame in video.frames)
    last = next(frames)
    while following := list(islice(frames, _PAIRS)):
        yield np.stack([last, *following])
        last = following[-1]


def _likeness(frame: Frame, following: Frame, field: npt.NDArray[np.float32]) -> float:
    """How alike two frames are after the flow between them is undone: near 1 in a scene, near 0 across a cut.

    The correlation of their pixels times what their histograms of grey have in common. Frames of one grey (a fade to
    black) are alike in their pixels.
    """
    height, width = frame.shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    undone = cv2.remap(
        following, field[..., 0] + x, field[..., 1] + y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    one, other = (each.astype(np.float32) - np.float32(each.mean()) for each in (frame, undone))
    energy = math.sqrt(_dot(one, one) * _dot(other, other))
    correlation = _dot(one, other) / energy if energy > 0 else 1.0
    counts = (np.bincount(each.ravel() >> 3, minlength=32) for each in (frame, following))
    shared = np.minimum(*counts).sum() / frame.size
    return correlation * float(shared)


def _dot(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """The sum of products, by this thread alone: BLAS, behind `np.vdot`, would wake threads of its own for it."""
    return float((one * other).sum(dtype=np.float64))
