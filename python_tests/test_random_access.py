# SPDX-License-Identifier: BSD-3-Clause
"""Frames of a video by number: exactly those that reading from the beginning gives, in every kind of file."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from videos import Frame, encode_video, moving_frames

from twostream_ext.errors import VideoError
from twostream_ext.media import FrameReader, read_video
from twostream_ext.media.random_access import _sought

COUNT = 60
SIZE = (64, 80)  # libx265 ruins memory at some smaller ones

OPEN = {"g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0:log-level=none"}
CLOSED = {"g": "10", "bf": "2", "x264-params": "scenecut=0"}
HEVC = {"x265-params": "log-level=none:keyint=10:min-keyint=10:bframes=3:open-gop=1"}
UNEVEN = np.cumsum(np.random.default_rng(0).choice([10, 33, 40, 200], COUNT)).tolist()

# By name: how it is made, and whether frames are found by seeking.
KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "closed.mp4": ({"options": CLOSED}, True),
    "open.mp4": ({"options": OPEN}, True),
    "open.mkv": ({"options": OPEN}, True),
    "open.mov": ({"options": OPEN}, True),
    "open.ts": ({"options": OPEN}, True),
    "fields.mts": ({"options": {"g": "10", "x264-params": "interlaced=1:tff=1"}}, True),
    "one_key.mp4": ({"options": {"g": "1000", "bf": "3", "x264-params": "scenecut=0"}}, True),
    "pyramid.mkv": ({"options": {"g": "25", "x264-params": "bframes=8:b-pyramid=normal:scenecut=0"}}, True),
    "fragments.mp4": ({"options": CLOSED, "muxing": {"movflags": "frag_keyframe+empty_moov"}}, True),
    "variable.mkv": ({"options": CLOSED, "times": UNEVEN}, True),
    "hevc.mp4": ({"codec": "libx265", "options": HEVC}, True),
    "hevc.mkv": ({"codec": "libx265", "options": HEVC}, True),
    "av1.mkv": ({"codec": "libsvtav1", "options": {"preset": "13", "g": "10"}}, True),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}}, True),
    "hidden.webm": ({"codec": "libvpx-vp9", "options": {"g": "20", "cpu-used": "8", "lag-in-frames": "16"}}, True),
    "mpeg2.vob": ({"codec": "mpeg2video", "options": {"g": "8", "bf": "2"}}, True),
    "mpeg2.ts": ({"codec": "mpeg2video", "options": {"g": "8", "bf": "2"}}, True),
    "jpegs.avi": ({"codec": "mjpeg", "pixels": "yuvj420p"}, True),
    "prores.mov": ({"codec": "prores_ks", "pixels": "yuv422p10le"}, True),
    "xvid.avi": ({"codec": "mpeg4", "options": {"g": "10", "bf": "2"}}, False),
    "vp8.webm": ({"codec": "libvpx", "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "10"}}, True),
    "raw.h264": ({"options": CLOSED}, False),
    "raw.hevc": ({"codec": "libx265", "options": HEVC}, False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


def make(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        encode_video(path, moving_frames(COUNT, size=SIZE), **KINDS[name][0])
    return path


def sequential(path: Path, *, grey: bool = False) -> Frame:
    return np.stack(list(read_video(path, smallest_side=None, grey=grey)))


@pytest.mark.parametrize("name", KINDS)
def test_any_window_is_what_sequential_reading_gives(name: str, folder: Path) -> None:
    path = make(folder, name)
    whole = sequential(path)
    reader = FrameReader(path, smallest_side=None)
    assert (len(reader), reader.seeks) == (len(whole), KINDS[name][1])

    @hypothesis_settings(max_examples=12)
    @given(st.integers(0, len(whole) - 1), st.integers(1, 12))
    def windows(first: int, count: int) -> None:
        count = min(count, len(whole) - first)
        np.testing.assert_array_equal(reader.read(first, count), whole[first : first + count])
        # Without a fall back to the beginning, too; but for DVDs, in which places near the end are not found.
        if reader._index is not None and path.suffix != ".vob":
            assert _sought(path, reader._index, first, count) is not None

    windows()


def test_packets_of_vp8_that_are_not_shown_are_no_frames(folder: Path, tmp_path: Path) -> None:
    """As those that an encoder makes for later frames to look back at."""
    path = tmp_path / "hidden.webm"
    data = bytearray(make(folder, "vp8.webm").read_bytes())
    with av.open(str(make(folder, "vp8.webm"))) as container:
        packets = [bytes(each) for each in container.demux(video=0) if each.size]
    for number in (3, 17, 44):
        data[data.index(packets[number])] &= ~0x10
    path.write_bytes(data)
    whole, reader = sequential(path), FrameReader(path, smallest_side=None)
    assert (len(whole), len(reader), reader.seeks) == (COUNT - 3, COUNT - 3, True)
    for first in range(0, COUNT - 8, 3):
        np.testing.assert_array_equal(reader.read(first, 5), whole[first : first + 5])
        assert _sought(path, reader._index, first, 5) is not None


def test_grey_and_rescaled(folder: Path) -> None:
    path = make(folder, "open.mp4")
    reader = FrameReader(path, smallest_side=16)
    expected = np.stack(list(read_video(path, smallest_side=16, grey=True)))[33:40]
    np.testing.assert_array_equal(reader.read(33, 7, grey=True), expected)


def test_a_seek_decodes_no_more_than_a_run_of_frames(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twostream_ext.media import random_access

    decoded = []

    def counting(*arguments: Any) -> Any:
        for each in original(*arguments):
            decoded.append(each)
            yield each

    reader = FrameReader(make(folder, "closed.mp4"))
    original = random_access.decode
    monkeypatch.setattr(random_access, "decode", counting)
    reader.read(55, 3)
    assert len(decoded) <= 11


@pytest.mark.parametrize("name", ["closed.mp4", "xvid.avi"])
@pytest.mark.parametrize(("first", "count"), [(-1, 2), (0, 0), (COUNT, 1), (COUNT - 2, 3), (0, COUNT + 1)])
def test_frames_that_are_not_there(folder: Path, name: str, first: int, count: int) -> None:
    reader = FrameReader(make(folder, name))
    with pytest.raises(IndexError, match=rf"{name}: frames {first} to {first + count - 1} were asked for"):
        reader.read(first, count)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_damaged_files_give_what_sequential_reading_gives(folder: Path, tmp_path: Path, place: float) -> None:
    """A window that touches the damage is decoded from the beginning; the others are what they are."""
    data = bytearray(make(folder, "closed.mp4").read_bytes())
    begin = data.index(b"mdat") + int(place * (data.index(b"moov") - data.index(b"mdat")))
    data[begin : begin + 60] = bytes(60)
    path = tmp_path / "hurt.mp4"
    path.write_bytes(data)
    whole, reader = sequential(path), FrameReader(path, smallest_side=None)
    if len(whole) == COUNT:  # patched up: the numbers are the same
        for first in range(0, COUNT - 3, 4):
            np.testing.assert_array_equal(reader.read(first, 3), whole[first : first + 3])


def test_threads_and_forked_children_share_a_reader(folder: Path) -> None:
    path = make(folder, "open.mkv")
    whole, reader = sequential(path), FrameReader(path, smallest_side=None)
    wrong = []

    def work(seed: int) -> None:
        for first in np.random.default_rng(seed).integers(0, COUNT - 4, 6).tolist():
            if not np.array_equal(reader.read(first, 4), whole[first : first + 4]):
                wrong.append(first)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    child = os.fork()
    if child == 0:
        work(9)
        os._exit(len(wrong))
    assert os.waitpid(child, 0)[1] == 0
    assert not wrong


def test_a_file_that_goes_away(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "gone.mp4"
    path.write_bytes(make(folder, "closed.mp4").read_bytes())
    reader = FrameReader(path)
    path.unlink()
    with pytest.raises(VideoError, match=r"gone.mp4: no such file"):
        reader.read(0, 1)
