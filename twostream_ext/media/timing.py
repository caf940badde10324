# SPDX-License-Identifier: BSD-3-Clause
"""Which frames of a video are given: at another rate, every so many, or with their two fields made one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from pathlib import Path

import av
import av.filter

from twostream_ext.errors import VideoError
from twostream_ext.media.decoding import TimedFrame

_LONGEST_GAP = 3600  # seconds between two frames; what claims more would be filled with copies for ever


def resample(path: Path, frames: Iterator[TimedFrame], fps: Fraction, rate: Fraction) -> Iterator[TimedFrame]:
    """Frames at times first, first + 1 / fps, ...: at each the last frame that is not later, as FFmpeg's filter `fps`.

    A frame's time is first rounded to the nearest of these times, halves upward. So a frame may be given several times
    or not at all. rate: of `frames`, which tells how long the last one is shown. VideoError, naming `path`, where two
    frames are more than an hour apart.
    """
    shown: TimedFrame | None = None
    start = Fraction(0)
    slot = 0  # the next to be filled
    for following in frames:
        if shown is None:
            start = following.time
        elif following.time - shown.time > _LONGEST_GAP:
            raise VideoError(f"{path}: its time stamps jump from {float(shown.time)} to {float(following.time)} s")
        else:
            for _ in range(slot, _nearest((following.time - start) * fps)):
                yield TimedFrame(start + slot / fps, shown.frame)
                slot += 1
        if shown is None or following.time > shown.time:
            shown = following
    if shown is not None:
        for _ in range(slot, max(1, _nearest((shown.time + 1 / rate - start) * fps))):
            yield TimedFrame(start + slot / fps, shown.frame)
            slot += 1


def _nearest(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def deinterlace(frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    """Frames that the file marks as interlaced with one of their fields made whole by FFmpeg's bwdif; others as is."""
    filtered: _Deinterlacer | None = None
    for time, frame in frames:
        if filtered is None or not filtered.takes(frame):
            if filtered is not None:
                yield from filtered.end()
            filtered = _Deinterlacer(frame)
        yield from filtered.push(time, frame)
    if filtered is not None:
        yield from filtered.end()


class _Deinterlacer:
    """A filter for frames of one size and format. It gives a frame for each, in order, but holds one back."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._kind = _kind(frame)
        self._times: deque[Fraction] = deque()
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        bwdif = self._graph.add("bwdif", mode="send_frame", deint="interlaced")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        return self._kind == _kind(frame)

    def push(self, time: Fraction, frame: av.VideoFrame) -> Iterator[TimedFrame]:
        self._times.append(time)
        self._graph.vpush(frame)
        return self._pull()

    def end(self) -> Iterator[TimedFrame]:
        self._graph.vpush(None)
        return self._pull()

    def _pull(self) -> Iterator[TimedFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield TimedFrame(self._times.popleft(), frame)


def _kind(frame: av.VideoFrame) -> tuple[str, int, int, int, int]:
    return frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range
