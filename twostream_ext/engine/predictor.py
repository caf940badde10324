# SPDX-License-Identifier: BSD-3-Clause
"""The classes of a video that has no end: window by window, as its frames come in.

Files, pipes, cameras and frames that a program hands over all go through `Predictor`, so that they give the same
answers. Every frame and every flow field is coded as a store of the run would keep it (JPEGs of its quality, 8 bits in
each field's own range), so that the answer of a window is that of a video of these frames alone, to the bit: what was
trained and tested on stores sees what it has learnt on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from twostream_ext.engine.predict import FinishedRun, Prediction, load_run, predict_clips
from twostream_ext.engine.read_ahead import ReadAhead
from twostream_ext.engine.streams import STREAMS
from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.extraction import code_fields, quantize_fields
from twostream_ext.flow import DIRECTIONS, CodedFlow, FlowClip, FlowInMemory, FlowSettings, estimate_clip_flow
from twostream_ext.media import Frame, FrameClip, FramesInMemory, OpenVideo, RawFrames, VideoFrame, code_frame

DEFAULT_WINDOW = 2.0
"""Seconds."""

_LARGEST = 1_000_000  # seconds, or frames in one


class Pixels(NamedTuple):
    """A frame as the nets' inputs are made of it, rescaled as the run's frames."""

    time: float  # seconds
    rgb: Frame  # uint8 [H, W, 3]
    grey: Frame  # uint8 [H, W], what flow is estimated on
    source_size: tuple[int, int]  # (height, width) before it was rescaled


class Window(NamedTuple):
    """A stretch of a video, and what the nets say of it."""

    start: float
    """When its first frame is shown, in seconds from the first frame of the video."""
    end: float
    """When its last frame has been shown."""
    first: int
    """Number of its first frame."""
    prediction: Prediction
    flow: FlowClip
    """That the prediction was made from, as of a video of these frames alone."""
    frames: FrameClip


class _Entry(NamedTuple):
    """A frame in the ring."""

    time: float
    picture: bytes
    fields: dict[str, CodedFlow]  # from the frame before to this one and back; the very first frame has none


class Predictor:
    """A run's nets for frames that come one by one; it keeps those of one window, and never more.

    ```python
    predictor = Predictor("out/", window=2.0, stride=0.5, fps=25)
    for frame in frames:  # uint8 RGB [H, W, 3]
        window = predictor.push(frame)
        if window is not None:
            print(window.start, window.end, window.prediction.best)
    ```

    Each frame costs one estimation of flow to its predecessor (backward flow too, where the temporal net takes it),
    which all windows share that it is in. Windows hold round(window * fps) frames, and one begins every round(stride *
    fps) frames. As many of its frames are scored as the run takes of a test video, equally spaced, with the run's
    crops. For one thread at a time.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | FinishedRun,
        *,
        window: float = DEFAULT_WINDOW,
        stride: float | None = None,
        fps: float = 25.0,
        device: torch.device | str = "cpu",
        name: str = "frames",
    ) -> None:
        """Read the nets.

        Args:
            model: directory of a finished run, or what `load_run` read of it.
            window: seconds that an answer is of.
            stride: seconds from the beginning of one window to that of the next, up to `window`; None: as long as it.
            fps: frames per second that will come.
            device: where flow is computed, if its method can, and where the nets run; see `predict_video`.
            name: of the video, for errors.

        SettingsError for a window that is too short for a stack of flow fields, or a stride or rate that cannot be;
        CheckpointError as of `load_run`.
        """
        self.run = model if isinstance(model, FinishedRun) else load_run(model, device)
        self.fps = fps
        self.name = name
        self._length, self._stride = _check_windows(self.run, window, window if stride is None else stride, fps)
        settings = self.run.settings
        self._settings = FlowSettings(
            method=settings["flow_method"],
            smallest_side=settings["smallest_side"],
            codec="jpeg",
            quality=settings["jpeg_quality"],
            directions=DIRECTIONS if self.run.backward else DIRECTIONS[:1],
        )
        self._maker: RawFrames | None = None
        self._ring: deque[_Entry] = deque(maxlen=self._length)
        self._last: Pixels | None = None
        self._began = 0.0
        self._count = 0
        self._answered = 0

    @property
    def frame_count(self) -> int:
        """Frames so far."""
        return self._count

    def push(self, frame: Frame | VideoFrame | Pixels, time: float | None = None) -> Window | None:
        """Take the next frame; give the window that it fills, if it fills one.

        frame: uint8 RGB [H, W, 3] of any size, which is rescaled as the run's frames; or one of `open_video` with the
        run's smallest side. All must be of one size.
        time: when it is shown, in seconds; None: what a frame of a video says, or its number / fps.

        SettingsError for another shape or dtype; VideoError if the method cannot take frames that small.
        """
        pixels = self._pixels(frame)
        if self._last is None:
            self._began = pixels.time if time is None else time
        elif self._last.grey.shape != pixels.grey.shape:
            (height, width), (was_height, was_width) = pixels.grey.shape, self._last.grey.shape
            raise SettingsError(f"{self.name}: frames of {was_width}x{was_height} pixels became {width}x{height}")
        fields = {} if self._last is None else self._estimate(self._last.grey, pixels.grey)
        picture = code_frame(pixels.rgb, self.run.settings["jpeg_quality"])
        self._ring.append(_Entry(pixels.time if time is None else time, picture, fields))
        self._last = pixels
        self._count += 1
        beyond = self._count - self._length
        return self._answer() if beyond >= 0 and beyond % self._stride == 0 else None

    def finish(self) -> Window | None:
        """After the last frame: one more window that ends with it, unless one did.

        So every frame is in a window; it is a whole one, or all frames if there are fewer than a window holds.
        SettingsError, naming the video, if there are too few for a stack of flow fields.
        """
        return self._answer() if self._answered < self._count else None

    def windows(self, frames: Iterable[Frame | VideoFrame | Pixels]) -> Iterator[Window]:
        """All windows of a video, each as soon as it is full. VideoError if there is no frame."""
        for frame in frames:
            window = self.push(frame)
            if window is not None:
                yield window
        if not self._count:
            raise VideoError(f"{self.name}: there are no frames")
        window = self.finish()
        if window is not None:
            yield window

    def _pixels(self, frame: Frame | VideoFrame | Pixels) -> Pixels:
        if isinstance(frame, Pixels):
            return frame
        if isinstance(frame, VideoFrame):
            rgb = frame.rgb()
            return Pixels(frame.time, rgb, frame.grey(), (rgb.shape[0], rgb.shape[1]))
        pixels = np.asarray(frame)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise SettingsError(
                f"{self.name}: a frame is {pixels.dtype} {list(pixels.shape)}, expected uint8 [H, W, 3]"
            )
        if self._maker is None:
            size = (pixels.shape[0], pixels.shape[1])
            self._maker = RawFrames(self.name, size, smallest_side=self._settings.smallest_side)
        if pixels.shape != self._maker.shape:
            was = list(self._maker.shape)
            raise SettingsError(f"{self.name}: frames of {was} became {list(pixels.shape)}, expected one size")
        made = self._maker.frame(pixels, self._count / self.fps)
        return Pixels(made.time, made.rgb(), made.grey(), self._maker.source_size)

    def _estimate(self, before: Frame, grey: Frame) -> dict[str, CodedFlow]:
        pair = torch.from_numpy(np.stack([before, grey]))
        try:
            flow = estimate_clip_flow(
                pair, self._settings.method, device=self.run.flow_device, backward=self.run.backward
            )
        except VideoError as error:
            raise VideoError(f"{self.name}: {error}") from error
        return code_fields(quantize_fields(flow, self._settings), self._settings)

    def _answer(self) -> Window:
        assert self._last is not None
        self._answered = self._count
        entries = list(self._ring)
        shape = self._last.grey.shape
        size, source_size = (shape[0], shape[1]), self._last.source_size
        fields = {each: [entry.fields[each] for entry in entries[1:]] for each in self._settings.directions}
        if len(entries) < 2:
            raise VideoError(f"{self.name}: has 1 frame, flow needs at least 2")
        flow = FlowInMemory(self.name, fields, settings=self._settings, fps=self.fps, source_size=source_size)
        pictures = [entry.picture for entry in entries]
        frames = FramesInMemory(self.name, pictures, fps=self.fps, size=size, source_size=source_size)
        return Window(
            start=entries[0].time - self._began,
            end=entries[-1].time - self._began + 1 / self.fps,
            first=self._count - len(entries),
            prediction=predict_clips(self.run, flow, frames),
            flow=flow,
            frames=frames,
        )


def read_pixels(video: OpenVideo, *, drops: bool = False) -> ReadAhead[Pixels]:
    """The frames of a video, decoded and rescaled by a thread of their own while others are predicted.

    drops: when eight of them wait, the oldest is dropped, as of a camera, which does not wait; its `dropped` counts
    them. Otherwise the thread waits.
    """
    return ReadAhead(
        (Pixels(frame.time, frame.rgb(), frame.grey(), video.source_size) for frame in video.frames), drops=drops
    )


def _check_windows(run: FinishedRun, window: float, stride: float, fps: float) -> tuple[int, int]:
    """Frames of a window and of a stride."""
    for what, value in (("fps", fps), ("window", window), ("stride", stride)):
        if not 0 < value <= _LARGEST:
            raise SettingsError(f"{what} is {value:g}, expected a number above 0 and up to {_LARGEST}")
    if stride > window:
        raise SettingsError(f"stride is {stride:g} s, expected at most the window of {window:g} s")
    frames, fields = round(window * fps), run.nets[STREAMS[1]].net.settings.length
    if frames <= fields:
        raise SettingsError(
            f"window is {window:g} s, {frames} frames at {fps:g} frames per second; a stack of {fields} flow fields "
            f"needs {fields + 1}"
        )
    return frames, max(1, round(stride * fps))
