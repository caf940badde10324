# SPDX-License-Identifier: BSD-3-Clause
"""Reading video files, whole and broken."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import decode, moving_frames, texture, write_video

from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.media import FALLBACK_FPS, read_video, video_fps
from twostream_ext.media.video import open_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return write_video(folder / "clip.avi", moving_frames(9, size=(60, 100)), fps=24.0)


def test_frames_are_rgb_in_order(tmp_path: Path) -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (210, 210, 20)]
    frames = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    path = write_video(tmp_path / "colours.avi", frames)
    found = [frame[24, 32] for frame in read_video(path, smallest_side=None)]
    np.testing.assert_allclose(found, colours, atol=6)


@pytest.mark.parametrize(
    ("size", "smallest_side", "expected"),
    [
        ((60, 100), 30, (30, 50)),
        ((60, 100), 48, (48, 80)),
        ((100, 60), 30, (50, 30)),
        ((60, 100), 90, (90, 150)),
        ((60, 100), 60, (60, 100)),
        ((60, 100), None, (60, 100)),
        ((66, 100), 40, (40, 61)),  # 60.6
    ],
)
def test_smallest_side(
    tmp_path: Path, size: tuple[int, int], smallest_side: int | None, expected: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "clip.avi", moving_frames(3, size=size))
    video = open_video(path, smallest_side=smallest_side)
    assert video.source_size == size
    assert video.size == expected
    method = cv2.INTER_AREA if expected < size else cv2.INTER_LINEAR
    references = decode(path)
    frames = [frame.rgb() for frame in video.frames]
    assert len(frames) == len(references) == 3
    for frame, reference in zip(frames, references, strict=True):
        height, width = expected
        scaled = cv2.resize(reference, (width, height), interpolation=method)
        np.testing.assert_array_equal(frame, scaled[..., ::-1])


def test_grey_is_about_that_of_the_rgb_frame(clip: Path) -> None:
    colour = list(read_video(clip, smallest_side=40))
    grey = list(read_video(clip, smallest_side=40, grey=True))
    assert len(grey) == len(colour) == 9
    weights = np.array([0.299, 0.587, 0.114])
    for one, other in zip(grey, colour, strict=True):
        assert one.dtype == np.uint8
        assert np.abs(one - other @ weights).mean() < 2


def test_fps(clip: Path) -> None:
    assert video_fps(clip) == pytest.approx(24.0)


def test_header_count_is_not_believed(clip: Path, tmp_path: Path) -> None:
    """The number of frames stands in `avih` (fifth number) and `strh` (ninth)."""
    data = bytearray(clip.read_bytes())
    for mark, place in ((b"avih", 4), (b"strh", 8)):
        position = data.index(mark) + 8 + 4 * place
        assert struct.unpack_from("<I", data, position) == (9,)
        struct.pack_into("<I", data, position, 4)
    lying = tmp_path / "lying.avi"
    lying.write_bytes(data)
    capture = cv2.VideoCapture(str(lying))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) != 9
    assert len(list(read_video(lying))) == 9


def test_truncated_video_gives_the_frames_that_are_there(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) * 6 // 10])
    frames = list(read_video(cut, smallest_side=None))
    assert 3 <= len(frames) < 9
    whole = list(read_video(clip, smallest_side=None))
    np.testing.assert_array_equal(frames[0], whole[0])


def test_frames_behind_a_damaged_one_are_not_lost(clip: Path, tmp_path: Path) -> None:
    """A JPEG in the middle of the file is overwritten: that frame is left out, those behind it are there."""
    data = bytearray(clip.read_bytes())
    starts = [place for place in range(len(data)) if data[place : place + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 9
    length = starts[5] - starts[4] - 8  # the next one's chunk begins with a name and a length
    data[starts[4] : starts[4] + length] = bytes(length)
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(data)
    whole = list(read_video(clip, smallest_side=None))
    found = list(read_video(damaged, smallest_side=None))
    assert len(found) == 8
    for frame, expected in zip(found, whole[:4] + whole[5:], strict=True):
        np.testing.assert_array_equal(frame, expected)
    every_third = list(read_video(damaged, smallest_side=None, frame_step=3))
    np.testing.assert_array_equal(every_third, [whole[0], whole[3], whole[7]])


@pytest.mark.parametrize("step", [1, 2, 4, 9, 20])
def test_every_nth_frame(clip: Path, step: int) -> None:
    video = open_video(clip, smallest_side=30, frame_step=step)
    whole = list(read_video(clip, smallest_side=30))
    np.testing.assert_array_equal([frame.rgb() for frame in video.frames], whole[::step])
    assert video.fps == pytest.approx(24 / step)


@pytest.mark.parametrize("step", [0, -1, 1.5])
def test_wrong_step(clip: Path, step: object) -> None:
    with pytest.raises(SettingsError, match="frame_step is"):
        open_video(clip, frame_step=step)  # type: ignore[arg-type]


def test_frames_that_claim_to_be_enormous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twostream_ext.media.video.MOST_PIXELS", 2000)
    thin = write_video(tmp_path / "thin.avi", moving_frames(2, size=(16, 120)))
    assert open_video(thin, smallest_side=None).size == (16, 120)
    with pytest.raises(VideoError, match=r"thin.avi: frames of 120x16 pixels are too large"):
        open_video(thin, smallest_side=32)


def test_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.avi", moving_frames(1))
    assert len(list(read_video(path))) == 1


def test_names_that_shells_and_ffmpeg_mistake(clip: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b!#&()+;@[]~-.avi", "concat:a.avi", "-f.avi", "frame%05d.avi", "ä.avi", "'.avi"):
        Path(name).write_bytes(clip.read_bytes())
        assert len(list(read_video(name))) == 9, name


def broken_files(folder: Path, clip: Path) -> dict[str, Path]:
    found = {name: folder / f"{name}.mp4" for name in ("text", "empty", "noise", "head", "folder")}
    found["text"].write_text("no video\n" * 500)
    found["empty"].write_bytes(b"")
    found["noise"].write_bytes(np.random.default_rng(0).bytes(20_000))
    found["head"].write_bytes(clip.read_bytes()[:300])
    found["folder"].mkdir()
    found["missing"] = folder / "missing.mp4"
    found["not_utf8"] = folder / os.fsdecode(b"\xff\xfe.mp4")
    found["not_utf8"].write_bytes(clip.read_bytes())
    return found


@pytest.mark.parametrize("kind", ["text", "empty", "noise", "head", "folder", "missing", "not_utf8"])
def test_what_is_no_video(kind: str, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = broken_files(tmp_path, clip)[kind]
    with pytest.raises(VideoError) as caught:
        next(read_video(path))
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message or kind == "not_utf8"
    assert capfd.readouterr() == ("", "")


def test_opencv_is_as_loud_as_before(tmp_path: Path) -> None:
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(VideoError):
        read_video(tmp_path / "missing.avi")
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(VideoError):
        read_video(tmp_path / "text.avi")
    assert cv2.utils.logging.getLogLevel() == level


def test_frames_that_change_their_size(tmp_path: Path) -> None:
    """A stream of JPEGs is a video, and these need not be of one size: the first one's counts."""
    pictures = [texture(48, 64), texture(48, 64), texture(32, 80)]
    coded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures for _ in range(4)]
    path = tmp_path / "growing.mjpeg"
    path.write_bytes(b"".join(coded))
    frames = list(read_video(path, smallest_side=24))
    assert [frame.shape for frame in frames] == 12 * [(24, 32, 3)]
    whole = cv2.resize(pictures[2], (32, 24), interpolation=cv2.INTER_AREA)
    assert np.abs(frames[-1].astype(float)[..., ::-1] - whole).mean() < 12


@pytest.mark.parametrize("side", [0, -5, 12.5, "256"])
def test_wrong_smallest_side(clip: Path, side: object) -> None:
    with pytest.raises(SettingsError, match="smallest_side"):
        read_video(clip, smallest_side=side)  # type: ignore[arg-type]


def test_real_clips(shared_data: Path) -> None:
    ucf = sorted((shared_data / "ucf101-originals").glob("*.avi"))
    ut = sorted((shared_data / "ut-interaction").glob("*/*.mp4"))
    assert len(ucf) == 4
    assert len(ut) == 120
    for path in (ucf[0], ut[0]):
        frames = list(read_video(path, smallest_side=64))
        assert len(frames) == len(decode(path))
        assert min(frames[0].shape[:2]) == 64
        assert 10 < video_fps(path) < 60
        assert video_fps(path) != FALLBACK_FPS
