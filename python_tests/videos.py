# SPDX-License-Identifier: BSD-3-Clause
"""Small video files for the tests, made with OpenCV and PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
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


def encode_video(
    path: Path,
    frames: Iterable[Frame],
    codec: str = "libx264",
    *,
    pixels: str = "yuv420p",
    fps: int = 25,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    interlaced: bool = False,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
) -> Path:
    """Write RGB frames with PyAV, in the container of the name's ending; times: of the frames, in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = list(frames)
    kind = {".mts": "mpegts", ".m2ts": "mpegts", ".h264": "h264", ".hevc": "hevc", ".dv": "dv"}.get(path.suffix)
    with av.open(str(path), "w", format=kind, options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        if interlaced:
            flags = av.codec.context.Flags
            stream.codec_context.flags |= flags.interlaced_dct | flags.interlaced_me
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        prepare(stream)
        for number, pixels_of_one in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_of_one, format="rgb24").reformat(format=pixels, threads=1)
            frame.pts = number if times is None else times[number]
            if times is not None:
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
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
