# SPDX-License-Identifier: BSD-3-Clause
"""Frames without a header: from a pipe, and from a camera that OpenCV opens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import moving_frames

from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.media import OpenVideo, open_camera, open_raw

FRAMES = moving_frames(5, size=(20, 30))


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Callable[..., OpenVideo]]:
    """What opens frames of 30x20 pixels, 10 a second, that are so many bytes."""
    with ExitStack() as stack:

        def opened(content: bytes, **options: object) -> OpenVideo:
            (tmp_path / "raw").write_bytes(content)
            file = stack.enter_context((tmp_path / "raw").open("rb", buffering=0))
            return open_raw(file, **{"size": (20, 30), "fps": 10, **options})

        yield opened


def test_frames_of_a_pipe(pipe: Callable[..., OpenVideo]) -> None:
    opened = pipe(b"".join(frame.tobytes() for frame in FRAMES), smallest_side=None)
    assert (opened.fps, opened.source_size, opened.size) == (10, (20, 30), (20, 30))
    for number, (frame, expected) in enumerate(zip(opened.frames, FRAMES, strict=True)):
        np.testing.assert_array_equal(frame.rgb(), expected)
        np.testing.assert_array_equal(frame.grey(), cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY))
        assert frame.time == pytest.approx(number / 10)
    assert not opened.damage


def test_frames_of_a_pipe_are_rescaled_as_those_of_a_file(pipe: Callable[..., OpenVideo]) -> None:
    opened = pipe(FRAMES[0].tobytes(), smallest_side=10)
    assert opened.size == (10, 15)
    (frame,) = opened.frames
    expected = cv2.resize(FRAMES[0], (15, 10), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(frame.rgb(), expected)


def test_luma_of_yuv420p_is_taken_as_it_is(pipe: Callable[..., OpenVideo]) -> None:
    planes = np.full((30, 30), 128, np.uint8)
    planes[:20] = np.linspace(16, 235, 30).astype(np.uint8)
    opened = pipe(planes.tobytes(), pixels="yuv420p", smallest_side=None)
    (frame,) = opened.frames
    expected = np.rint((planes[:20].astype(float) - 16) * 255 / 219)
    np.testing.assert_allclose(frame.grey(), expected, atol=0.5)


def test_frames_that_come_in_pieces() -> None:
    """A pipe gives what it has, which is less than a frame."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as file:
            content = b"".join(frame.tobytes() for frame in FRAMES)
            for first in range(0, len(content), 700):
                file.write(content[first : first + 700])

    threading.Thread(target=write).start()
    with os.fdopen(reading, "rb", buffering=0) as file:
        opened = open_raw(file, size=(20, 30), fps=10, smallest_side=None)
        np.testing.assert_array_equal([frame.rgb() for frame in opened.frames], FRAMES)


def test_a_last_frame_that_is_cut_short_is_told(pipe: Callable[..., OpenVideo]) -> None:
    opened = pipe(b"".join(frame.tobytes() for frame in FRAMES)[:-100], smallest_side=None)
    assert len(list(opened.frames)) == 4
    assert str(opened.damage) == "1 frame lost, first at frame 4: the pipe ends after 1700 of its 1800 bytes"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": (0, 30)}, "the size of rgb24 frames is 30x0, expected at least 1x1"),
        ({"size": (21, 30), "pixels": "yuv420p"}, "the size of yuv420p frames is 30x21, expected even numbers"),
        ({"pixels": "gray"}, "pixels are 'gray', expected one of rgb24, yuv420p"),
        ({"fps": 0}, "fps is 0"),
        ({"smallest_side": 0}, "smallest_side is 0"),
    ],
)
def test_a_pipe_that_cannot_be(pipe: Callable[..., OpenVideo], options: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        pipe(b"", **options)


class Camera:
    """What `cv2.VideoCapture` would be, with no camera."""

    def __init__(self, frames: list[np.ndarray], fps: float = 30.0) -> None:
        self.frames = list(frames)
        self.fps = fps
        self.asked: list[tuple[int, float]] = []
        self.is_released = False

    def isOpened(self) -> bool:  # noqa: N802
        return bool(self.frames)

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.005)  # frames come one after the other, or a busy machine would drop nearly all
        return (True, cv2.cvtColor(self.frames.pop(0), cv2.COLOR_RGB2BGR)) if self.frames else (False, None)

    def get(self, _: int) -> float:
        return self.fps

    def set(self, property: int, value: float) -> bool:
        self.asked.append((property, value))
        return True

    def release(self) -> None:
        self.is_released = True


@pytest.mark.parametrize(("says", "asked", "expected"), [(30, None, 30), (0, None, 25), (0, 15, 15), (12, 15, 12)])
def test_a_camera(monkeypatch: pytest.MonkeyPatch, says: float, asked: float | None, expected: float) -> None:
    camera = Camera(FRAMES, says)
    monkeypatch.setattr("twostream_ext.media.raw._capture", lambda number: camera)
    opened = open_camera(0, fps=asked, smallest_side=None)
    assert (opened.fps, opened.size) == (expected, (20, 30))
    assert camera.asked == ([] if asked is None else [(cv2.CAP_PROP_FPS, asked)])
    frames = list(opened.frames)
    np.testing.assert_array_equal([frame.rgb() for frame in frames], FRAMES)
    times = [frame.time for frame in frames]
    assert times == sorted(times)
    assert times[0] < 1
    assert camera.is_released


def test_no_camera(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VideoError, match="camera:97: there is no such camera"):
        open_camera(97)
    assert capfd.readouterr() == ("", "")
