# SPDX-License-Identifier: BSD-3-Clause
"""Any frames of a video by their numbers, without decoding all that come before them."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from twostream_ext.media.conversion import Converter, Frame, Orientation
from twostream_ext.media.decoding import Damage, decode, open_source
from twostream_ext.media.video import open_video

# Of these each packet is one frame that is shown, or of VP8 one whose first byte tells that it is not. Others have
# packets of which none comes, or two (MPEG-4 in an AVI), and only a decoder knows.
_ONE_FRAME_A_PACKET = frozenset(
    {
        *("av1", "libdav1d", "dnxhd", "dvvideo", "ffv1", "ffvhuff", "h264", "hevc", "huffyuv", "mjpeg"),
        *("mpeg1video", "mpeg2video", "png", "prores", "rawvideo", "utvideo", "vp8", "vp9"),
    }
)

_SHOWN_BY_VP8 = 0x10  # in the first byte of a packet

_TRIED = 8  # frames at the beginning of a file by which its index is tried


class _Key(NamedTuple):
    """A frame that can be decoded by itself."""

    number: int
    places: tuple[int, ...]  # its time stamps, by one of which a container finds it


class _Index(NamedTuple):
    """The frames of a file in the order in which they are shown, as its packets tell."""

    numbers: dict[int, int]  # by time stamp
    keys: list[_Key]


class FrameReader:
    """Frames of a video by number, the same that `open_video` gives from the beginning on.

    What is read is found by an index of the file's packets, made once without decoding them, from the last key frame
    before it. Where that is not sure to be exact, or a seek does not lead where it should, the file is decoded from its
    beginning: always right, but slower. So are MPEG-4 (XviD, DivX), which hides frames in packets of others, files
    without time stamps (.h264, .hevc), and damaged ones. Numbers count a frame that cannot be decoded only where the
    index is used and its packet is not marked as damaged.

    It keeps no file open: threads and forked processes may share one.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, smallest_side: int | None = 256, square_pixels: bool = False
    ) -> None:
        """Read the index; options and errors as of `open_video`."""
        self.path = Path(path)
        video = open_video(path, smallest_side=smallest_side, square_pixels=square_pixels)
        self.fps = video.fps
        self.size = video.size
        self._turns: dict[int, Orientation] = {}
        self._index = _read_index(self.path)
        if self._index is not None:
            count = min(_TRIED, len(self._index.numbers))
            if _sought(self.path, self._index, 0, count) is None:
                self._index = None

    @property
    def seeks(self) -> bool:
        """Whether frames are found by an index, or else by decoding all before them."""
        return self._index is not None

    @cached_property
    def _count(self) -> int:
        if self._index is not None:
            return len(self._index.numbers)
        return sum(1 for _ in _from_start(self.path))

    def __len__(self) -> int:
        """Number of frames; decodes the whole file, once, if it has no index."""
        return self._count

    def read(self, first: int, count: int, *, grey: bool = False) -> Frame:
        """The frames first, ..., first + count - 1: uint8 RGB [count, H, W, 3], or [count, H, W] if `grey`.

        IndexError if there are no such frames; VideoError, naming the file, if it can no longer be read.
        """
        if first < 0 or count < 1 or (self._index is not None and first + count > len(self)):
            raise IndexError(f"{self.path}: frames {first} to {first + count - 1} were asked for")
        found = None if self._index is None else _sought(self.path, self._index, first, count)
        if found is None:
            found = list(islice(_from_start(self.path), first, first + count))
        if len(found) < count:
            raise IndexError(f"{self.path}: frames {first} to {first + count - 1} were asked for, it has {len(self)}")
        converter = Converter(self.path, self.size, self._turns)
        return np.stack([converter.grey(frame) if grey else converter.rgb(frame) for frame in found])


def _from_start(path: Path) -> Iterator[av.VideoFrame]:
    return (frame for _, frame in decode(open_source(path), Damage()))


def _read_index(path: Path) -> _Index | None:
    """None unless each packet has a time of its own and none is damaged or shown before the first key frame."""
    source = open_source(path)
    with closing(source):
        if source.codec not in _ONE_FRAME_A_PACKET:
            return None
        try:
            packets = list(_facts(source.container.demux(source.stream), source.codec == "vp8"))
        except (av.FFmpegError, OSError):
            return None
    shown = sorted(each.pts for each in packets if each.pts is not None and each.is_shown)
    if len(set(shown)) != len(shown) or any(each.pts is None or each.is_corrupt or not each.size for each in packets):
        return None
    numbers = {pts: number for number, pts in enumerate(shown)}
    keys = sorted(
        _Key(numbers[each.pts], tuple(place for place in (each.pts, each.dts) if place is not None))
        for each in packets
        if each.is_key and each.is_shown and each.pts in numbers
    )
    if not keys or keys[0].number != 0 or not packets[0].is_key:
        return None
    return _Index(numbers, keys)


class _Facts(NamedTuple):
    """Of a packet, without its bytes."""

    pts: int | None
    dts: int | None
    size: int
    is_key: bool
    is_corrupt: bool
    is_shown: bool


def _facts(packets: Iterator[av.Packet[av.VideoStream]], is_vp8: bool) -> Iterator[_Facts]:
    for each in packets:
        if each.dts is not None or each.size:  # else it is the mark of the end
            is_shown = not each.is_discard and not (is_vp8 and each.size and not bytes(each)[0] & _SHOWN_BY_VP8)
            yield _Facts(each.pts, each.dts, each.size, each.is_keyframe, each.is_corrupt, is_shown)


def _sought(path: Path, index: _Index, first: int, count: int) -> list[av.VideoFrame] | None:
    """The frames, or None if the file does not give exactly those that its index lists."""
    last = bisect_right(index.keys, first, key=lambda each: each.number)
    # Some containers find places only roughly, and land behind the key frame asked for: then the one before it.
    places = [place for key in reversed(index.keys[max(0, last - 2) : last]) for place in key.places]
    for place in dict.fromkeys(places):
        source = open_source(path)
        with closing(source):
            try:
                source.container.seek(place, stream=source.stream)
            except (av.FFmpegError, OSError):
                continue
            frames = _exactly((frame for _, frame in decode(source, Damage())), index, first, count)
        if frames is not None:
            return frames
    return None


def _exactly(frames: Iterator[av.VideoFrame], index: _Index, first: int, count: int) -> list[av.VideoFrame] | None:
    """Frames first, ..., of those from a seek on: from a key frame that is not later on, each must be the next."""
    starts = {key.number for key in index.keys}
    found: list[av.VideoFrame] = []
    expected: int | None = None
    for frame in frames:
        number = None if frame.pts is None else index.numbers.get(frame.pts)
        if expected is None:
            if number not in starts:  # shown before the key frame, but made of what comes before the seek
                continue
            expected = number
            if expected > first or not frame.key_frame:
                return None
        if number != expected or frame.is_corrupt:
            return None
        if expected >= first:
            found.append(frame)
        if len(found) == count:
            return found
        expected += 1
    return None
