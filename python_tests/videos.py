# SPDX-License-Identifier: BSD-3-Clause
"""Small video files for the tests, made with OpenCV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]


def texture(height: int, width: int, *, seed: int = 0) -> Frame:
    """A smooth random picture, uint8 RGB [height, width, 3]: something for optical flow to hold on to."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = np.stack([cv2.GaussianBlur(noise[..., c], (0, 0), 2.0) for c in range(3)], axis=2)
    return np.clip(128 + 55 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def moving_frames(
    count: int, *, size: tuple[int, int] = (48, 64), step: tuple[int, int] = (2, 1), seed: int = 0
) -> list[Frame]:
    """A texture that moves by `step` = (x, y) pixels a frame, uint8 RGB [height, width, 3]."""
    height, width = size
    large = texture(height + 2 * abs(step[1]) * count, width + 2 * abs(step[0]) * count, seed=seed)
    frames = []
    for index in range(count):
        top, left = (abs(s) * count - s * index for s in (step[1], step[0]))
        frames.append(np.ascontiguousarray(large[top : top + height, left : left + width]))
    return frames


def write_video(path: Path, frames: Iterable[Frame], *, codec: str = "MJPG", fps: float = 25.0) -> Path:
    """Write RGB frames; an .avi with MJPG changes the pixels least."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for frame in frames:
        if writer is None:
            height, width = frame.shape[:2]
            code = cv2.VideoWriter.fourcc(*codec)
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (width, height))
            assert writer.isOpened()
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    assert writer is not None
    writer.release()
    return path


def decode_luma(path: Path) -> list[Frame]:
    """The luma of all frames of a file of JPEGs, as PyAV gives it, uint8 [height, width]."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert {frame.format.name for frame in frames} <= {"yuvj420p", "yuvj422p", "yuvj444p"}  # full range
    planes = [frame.planes[0] for frame in frames]
    return [np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].copy() for plane in planes]


def decode(path: Path) -> list[Frame]:
    """All frames by a plain OpenCV loop, uint8 BGR [height, width, 3]."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            return frames
        frames.append(frame)
