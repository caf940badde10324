# SPDX-License-Identifier: BSD-3-Clause
"""What files there are: codecs, containers, pixels, orientations, times; each is read right or is a clear error."""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import struct
import tempfile
from collections.abc import Callable
from fractions import Fraction
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.filter
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import Frame, encode_video, moving_frames, texture, write_video

from twostream_ext.errors import DamagedVideoWarning, ExtractionError, SettingsError, VideoError
from twostream_ext.extraction import extract
from twostream_ext.flow import FlowStore
from twostream_ext.media import VIDEO_EXTENSIONS, FrameReader, FrameStore, open_video, read_video, video_fingerprint
from twostream_ext.media.decoding import TimedFrame
from twostream_ext.media.timing import resample

SIZE = (96, 128)
PAL = (576, 720)  # the one size that DV has

QUIET = {"x265-params": "log-level=none"}
BT2020 = {"x265-params": "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}
FIELDS = {"x264-params": "interlaced=1:tff=1"}

INTERLACED: dict[str, dict[str, Any]] = {
    "camcorder.mts": {"options": FIELDS},
    "camcorder.m2ts": {"options": FIELDS, "muxing": {"mpegts_m2ts_mode": "1"}},
    "h264.mp4": {"options": FIELDS},
    "dvd.vob": {"codec": "mpeg2video", "interlaced": True},
    "xvid.avi": {"codec": "mpeg4", "interlaced": True},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le", "interlaced": True},
    "tape.dv": {"codec": "dvvideo"},
    "tape.avi": {"codec": "dvvideo"},
}

PROGRESSIVE: dict[str, dict[str, Any]] = {
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "crf=20"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "crf=20"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "h264.h264": {},
    "hevc.hevc": {"codec": "libx265", "options": QUIET},
    "h264.ts": {},
    "h264.flv": {},
    "10bit.mp4": {"pixels": "yuv420p10le"},
    "hdr.mkv": {"codec": "libx265", "pixels": "yuv420p10le", "options": BT2020},
    "jpegs.avi": {"codec": "mjpeg", "pixels": "yuvj422p"},
    "colour.gif": {"codec": "gif", "pixels": "rgb8"},
    "rgb.mkv": {"codec": "ffv1", "pixels": "bgr0"},
    "rgb.mov": {"codec": "qtrle", "pixels": "rgb24"},
    "palette.avi": {"codec": "zmbv", "pixels": "bgr0"},
    "grey.mkv": {"codec": "ffv1", "pixels": "gray"},
    "grey10.mkv": {"codec": "ffv1", "pixels": "gray10le"},
    "alpha.mkv": {"codec": "ffv1", "pixels": "yuva420p"},
    "444.mkv": {"codec": "ffv1", "pixels": "yuv444p"},
    "12bit.mkv": {"codec": "ffv1", "pixels": "yuv422p12le"},
    "packed.mov": {"codec": "rawvideo", "pixels": "uyvy422"},
    "planar.avi": {"codec": "rawvideo", "pixels": "yuv420p"},
    "from_below.avi": {"codec": "rawvideo", "pixels": "bgr24"},
}

KINDS = INTERLACED | PROGRESSIVE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


def natural_frames(count: int, size: tuple[int, int] = SIZE) -> list[Frame]:
    """A moving texture, sharp in grey as in `moving_frames`, but of colours that change slowly, as most things are."""
    ramp = np.linspace(-50, 50, size[1])[None, :, None] * np.array([1.0, 0.0, -1.0])
    grey = [frame[..., 1:2].astype(float) for frame in moving_frames(count, size=size, seed=3)]
    return [np.clip(ramp + one * 0.6 + 50, 0, 255).astype(np.uint8) for one in grey]


def source_frames(name: str) -> list[Frame]:
    return natural_frames(5, PAL if name.startswith("tape") else SIZE)


def make(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        encode_video(path, source_frames(name), **KINDS[name])
    return path


def difference(one: Frame, other: Frame) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def grey_of(frame: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_its_pictures(name: str, folder: Path) -> None:
    """As many as were written, in RGB and in grey about as they were written, and of a sound rate."""
    frames = source_frames(name)
    video = open_video(make(folder, name), smallest_side=None)
    found = [(frame.time, frame.rgb(), frame.grey()) for frame in video.frames]
    assert (video.fps, len(found), bool(video.damage)) == (25, 5, False)
    np.testing.assert_allclose(np.diff([time for time, _, _ in found]), 0.04, atol=1e-6)
    for frame, (_, rgb, grey) in zip(frames, found, strict=True):
        assert rgb.dtype == grey.dtype == np.uint8
        assert rgb.shape == frame.shape
        assert grey.shape == frame.shape[:2]
        if not name.startswith(("grey", "colour", "hdr")):  # no colours, 256 of them, other primaries' luma
            assert difference(rgb, frame) < 9  # chroma of half the size, and a lossy codec
        assert difference(grey, grey_of(frame)) < (9 if name.startswith("colour") else 6)
        if not name.startswith("hdr"):
            assert difference(grey, grey_of(rgb)) < 2.1


@pytest.mark.parametrize("name", INTERLACED)
def test_interlaced_files_are_read_whole_or_made_of_one_field(name: str, folder: Path) -> None:
    whole = list(read_video(make(folder, name), smallest_side=None, grey=True))
    single = list(read_video(make(folder, name), smallest_side=None, grey=True, deinterlace=True))
    assert len(whole) == len(single) == 5
    for one, other in zip(whole[1:-1], single[1:-1], strict=True):
        changed = np.abs(one.astype(int) - other).mean(1) > 0.2
        assert changed[::2].mean() + changed[1::2].mean() == pytest.approx(1, abs=0.1)  # every second row is made anew
        assert difference(one, other) < 4


def test_what_is_not_interlaced_is_left_as_it_is(folder: Path) -> None:
    path = make(folder, "h264.ts")
    np.testing.assert_array_equal(list(read_video(path, deinterlace=True)), list(read_video(path)))


def turned(frame: Frame, degrees: float, mirrored: bool, upside_down: bool) -> Frame:
    """As FFmpeg's av_display_matrix_flip and av_display_rotation_set together ask for."""
    frame = np.rot90(frame, round(degrees / 90) % 4)
    return np.ascontiguousarray(frame[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


@pytest.mark.parametrize("degrees", [0, 90, 180, -90, 80])
@pytest.mark.parametrize(("mirrored", "upside_down"), [(False, False), (True, False), (False, True)])
def test_pictures_are_turned_and_mirrored(tmp_path: Path, degrees: float, mirrored: bool, upside_down: bool) -> None:
    frames = natural_frames(2, (48, 80))
    path = encode_video(
        tmp_path / "turned.mp4",
        frames,
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored, vflip=upside_down),
    )
    expected = turned(frames[0], degrees, mirrored, upside_down)
    video = open_video(path, smallest_side=None)
    assert video.source_size == video.size == expected.shape[:2]
    first = next(video.frames)
    assert difference(first.rgb(), expected) < 9
    assert difference(first.grey(), grey_of(expected)) < 6


@pytest.mark.parametrize("degrees", [0, 90])
def test_pixels_that_are_not_square(tmp_path: Path, degrees: int) -> None:
    def prepare(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        stream.set_display_rotation(degrees)

    path = encode_video(tmp_path / "wide.mp4", moving_frames(3, size=(66, 88)), prepare=prepare)
    plain, squared = open_video(path, smallest_side=33), open_video(path, smallest_side=33, square_pixels=True)
    assert plain.pixel_aspect == squared.pixel_aspect == ((11, 16) if degrees else (16, 11))
    assert plain.source_size == squared.source_size == ((88, 66) if degrees else (66, 88))
    assert plain.size == ((44, 33) if degrees else (33, 44))
    assert squared.size == ((64, 33) if degrees else (33, 64))
    assert next(squared.frames).grey().shape == squared.size


TIMES = [0, 40, 50, 200, 230, 270, 300, 310, 500, 520, 600, 700]  # milliseconds


def test_times_of_a_variable_rate(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "variable.mkv", moving_frames(12), times=TIMES)
    video = open_video(path)
    np.testing.assert_allclose([frame.time for frame in video.frames], np.array(TIMES) / 1000)


def numbered(count: int) -> list[Frame]:
    """Frames that tell their number by how bright they are."""
    return [np.full((32, 48, 3), 20 + 10 * number, np.uint8) for number in range(count)]


def numbers(frames: list[Frame]) -> list[int]:
    return [round((float(frame.mean()) - 20) / 10) for frame in frames]


def test_another_rate_takes_frames_by_their_times(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "variable.mkv", numbered(12), "ffv1", pixels="bgr0", times=TIMES)
    video = open_video(path, fps=10)
    found = [(frame.time, frame.rgb()) for frame in video.frames]
    assert video.fps == 10
    np.testing.assert_allclose([time for time, _ in found], np.arange(7) / 10)
    # At 0.1 s the last frame whose time, to the nearest 0.1 s, is not later: that of 0.05 s.
    assert numbers([rgb for _, rgb in found]) == [1, 2, 4, 7, 7, 9, 10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps is 0, expected a number above 0"),
        ({"fps": -25.0}, "fps is -25.0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"fps": 1e9}, "fps is 1000000000.0"),
        ({"fps": 1e-9}, "fps is 1e-09"),
        ({"fps": "25"}, "fps is '25'"),
        ({"fps": 25, "frame_step": 2}, "fps is 25 and frame_step 2: give one of them"),
    ],
)
def test_wrong_rates(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        open_video(make(folder, "h264.ts"), **options)
    with pytest.raises(SettingsError, match=message):
        extract(folder, folder / "flow", **options)


def filtered_by_ffmpeg(times: list[int], fps: Fraction) -> list[int]:
    """Numbers of the frames that FFmpeg's filter gives, of frames at these milliseconds."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(width=16, height=16, format=av.VideoFormat("gray", 16, 16), time_base=Fraction(1, 1000))
    graph.link_nodes(source, graph.add("fps", fps=f"{fps}"), graph.add("buffersink")).configure()
    found = []

    def pull() -> None:
        while True:
            try:
                found.append(int(np.asarray(memoryview(graph.vpull().planes[0]))[0]))
            except (av.BlockingIOError, av.EOFError):
                return

    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), format="gray")
        frame.pts = time
        frame.time_base = Fraction(1, 1000)
        frame.duration = 40
        graph.vpush(frame)
        pull()
    graph.vpush(None)
    pull()
    return found


@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=25),
    fps=st.sampled_from([Fraction(25), Fraction(10), Fraction(60), Fraction(2997, 100), Fraction(1, 2)]),
    start=st.integers(0, 100_000),
)
def test_another_rate_is_that_of_ffmpegs_filter(gaps: list[int], fps: Fraction, start: int) -> None:
    times = [0, *np.cumsum(gaps).tolist()]
    given_frames = iter([TimedFrame(Fraction(start + time, 1000), number) for number, time in enumerate(times)])  # type: ignore[arg-type]
    found = list(resample(Path("a"), given_frames, fps, Fraction(25)))
    # Of a video shorter than half a step the filter makes nothing, we make a frame.
    assert [each.frame for each in found] == (filtered_by_ffmpeg(times, fps) or [len(times) - 1])
    assert [each.time for each in found] == [Fraction(start, 1000) + slot / fps for slot in range(len(found))]


def test_time_stamps_that_jump_are_an_error(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "jump.mkv", moving_frames(4), times=[0, 40, 10_000_000, 10_000_040])
    assert len(list(read_video(path))) == 4
    with pytest.raises(VideoError, match=r"jump.mkv: its time stamps jump from 0.04 to 10000.0 s"):
        list(read_video(path, fps=25))


def test_an_edit_list(tmp_path: Path) -> None:
    """A file that says to begin in the middle of a run of frames begins there."""
    whole = encode_video(tmp_path / "whole.mp4", numbered(20), options={"g": "20", "bf": "0"})
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as sink:
        stream = source.streams.video[0]
        copied = sink.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts -= 7 * 512
                packet.dts -= 7 * 512
                packet.stream = copied
                sink.mux(packet)
    assert numbers(list(read_video(cut))) == list(range(7, 20))
    video = open_video(cut)
    assert [round(frame.time * 25) for frame in video.frames] == list(range(13))
    assert not video.damage


def join(path: Path, parts: list[Path]) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("deinterlace", [False, True])
@pytest.mark.parametrize("fps", [None, 25])
def test_pixels_that_change_on_the_way(tmp_path: Path, deinterlace: bool, fps: float | None) -> None:
    """8 bits, then 10, then another size, then full range: made as the first."""
    frames = natural_frames(3, (48, 64))
    options = {"tune": "zerolatency"}
    parts = [
        encode_video(tmp_path / "0.h264", frames, options=options),
        encode_video(tmp_path / "1.h264", frames, options=options, pixels="yuv422p10le"),
        encode_video(tmp_path / "2.h264", [cv2.resize(f, (96, 72)) for f in frames], options=options),
        encode_video(tmp_path / "3.h264", frames, options=options, pixels="yuvj444p"),
    ]
    path = join(tmp_path / "all.h264", parts)
    video = open_video(path, smallest_side=None, deinterlace=deinterlace, fps=fps)
    found = list(video.frames)
    assert len(found) == 12
    for index, frame in enumerate(found):
        assert difference(frame.rgb(), frames[index % 3]) < 11
        assert difference(frame.grey(), grey_of(frames[index % 3])) < 5


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for _ in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def no_frames(path: Path) -> None:
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        container.start_encoding()


def unknown_codec(ending: str, codec: str, name: bytes, other: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pixels = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        data = encode_video(path.with_name(f"v{ending}"), moving_frames(2), codec, pixels=pixels).read_bytes()
        assert name in data
        path.write_bytes(data.replace(name, other))

    return write


def all_damaged(path: Path) -> None:
    data = bytearray(encode_video(path.with_suffix(".avi"), moving_frames(3), "mjpeg", pixels="yuvj420p").read_bytes())
    for start in [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]:
        data[start : start + 600] = bytes(600)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (audio_only, "is not a video: holds audio only"),
        (no_frames, r"no frame can be decoded|is not a video"),
        (
            unknown_codec(".mkv", "mpeg4", b"V_MPEG4/ISO/ASP", b"V_NOBODY/S/CODE"),
            r"FFmpeg has no decoder for its video \(codec 'V_NOBODY/S/CODE' in matroska",
        ),
        (
            unknown_codec(".avi", "mjpeg", b"MJPG", b"ZZ9Q"),
            r"FFmpeg has no decoder for its video \(codec 'ZZ9Q' in avi\)",
        ),
        (
            unknown_codec(".mov", "png", b"png ", b"zz9q"),
            r"FFmpeg has no decoder for its video \(codec 'zz9q' in mov",
        ),
        (all_damaged, r"no frame can be decoded \(mjpeg: 3 frames lost, first at frame 0: mjpeg: "),
        (lambda path: path.mkdir(), "is a directory without numbered images"),
        (os.mkfifo, "is not a file"),
        (lambda path: None, "no such file"),
        (lambda path: path.symlink_to(path), "no such file|cannot be read"),
        (lambda path: path.write_text("no video"), "is not a video that FFmpeg can read: Invalid data found"),
    ],
)
def test_what_cannot_be_read_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], write: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "a.mp4"
    write(path)
    capfd.readouterr()  # encoders talk
    with pytest.raises(VideoError, match=rf"^{path}: ({message})"):
        open_video(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may not be entered by others
        Path(folder).chmod(0o755)
        path = write_video(Path(folder) / "secret.avi", moving_frames(2))
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            for read in (open_video, video_fingerprint):  # no clip may be noted as of no video
                with pytest.raises(VideoError, match=r"secret.avi: cannot be read: Permission denied"):
                    read(path)
        finally:
            os.seteuid(user)


def test_a_playlist_that_poses_as_a_video(tmp_path: Path) -> None:
    """FFmpeg would fetch what a playlist names, from anywhere."""
    path = tmp_path / "a.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match=r"a.mp4: "):
        open_video(path)


def test_titles_in_other_encodings(tmp_path: Path) -> None:
    data = encode_video(
        tmp_path / "titled.mkv",
        moving_frames(2),
        "mpeg4",
        prepare=lambda stream: stream.metadata.update(title="XYZXYZ"),
    ).read_bytes()
    assert b"XYZXYZ" in data
    (tmp_path / "titled.mkv").write_bytes(data.replace(b"XYZXYZ", b"\xff\xfeZ\xff\xfeZ"))
    assert len(list(read_video(tmp_path / "titled.mkv"))) == 2


def test_what_is_lost_is_counted_and_said_once(tmp_path: Path) -> None:
    """Blanks in two frames of a run, of which one can be patched up or be left out; the others are there."""
    videos = tmp_path / "videos"
    path = encode_video(videos / "hurt.avi", moving_frames(20), "mpeg4", options={"g": "5"})
    (videos / "sound.avi").write_bytes(path.read_bytes())
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"\x00\x00\x01\xb6"]
    for start in (starts[4], starts[11]):
        data[start + 40 : start + 200] = bytes(160)
    path.write_bytes(data)
    video = open_video(path)
    assert not video.damage  # not yet read
    count = len(list(video.frames))
    assert video.damage.lost + video.damage.patched >= 2
    assert count == 20 - video.damage.lost
    assert "first" in str(video.damage)
    with pytest.warns(DamagedVideoWarning) as warned:
        store = extract(videos, tmp_path / "flow", method="dis", frames_out=tmp_path / "frames")
    assert [str(each.message) for each in warned] == [f"{path}: {video.damage}"]
    expected = {"lost": video.damage.lost, "patched": video.damage.patched, "first": video.damage.first}
    for opened in (store, FrameStore.open(tmp_path / "frames")):
        assert opened["hurt"].metadata["damage"] == expected
        assert opened["sound"].metadata["damage"] is None
    extract(videos, tmp_path / "flow", method="dis")  # nothing to do, nothing to say


def test_the_end_that_is_missing_is_counted(tmp_path: Path) -> None:
    for name in ("cut.avi", "cut.mp4"):
        path = encode_video(
            tmp_path / name,
            moving_frames(20),
            "mpeg4",
            options={"g": "1"},
            muxing={"movflags": "faststart"} if name.endswith("mp4") else None,
        )
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 7 // 10])
        video = open_video(path)
        whole = len(list(video.frames))
        assert 5 < whole < 20
        assert whole + video.damage.lost == 20, name


def test_flow_is_the_same_whether_frames_are_stored_or_not(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("rgb.mkv", "10bit.mp4", "dvd.vob"):
        videos.mkdir(exist_ok=True)
        (videos / name).write_bytes(make(folder, name).read_bytes())
    extract(videos, tmp_path / "one", method="dis", smallest_side=48)
    extract(videos, tmp_path / "other", method="dis", smallest_side=48, frames_out=tmp_path / "frames")
    for path in (tmp_path / "one").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_extraction_by_times_notes_it(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "flow"
    encode_video(videos / "v.mkv", moving_frames(12), times=TIMES)
    options: dict[str, Any] = {"method": "dis", "smallest_side": 48, "fps": 10, "square_pixels": True}
    store = extract(videos, out, **options, deinterlace=True, frames_out=tmp_path / "frames", preview=True)
    frames = FrameStore.open(tmp_path / "frames")["v"]
    assert store["v"].frame_count == len(frames) == 7
    assert store["v"].fps == frames.fps == 10
    kept = store.settings
    assert (kept.sampled_fps, kept.deinterlace, kept.square_pixels) == (10, True, True)
    assert store["v"].metadata["pixel_aspect"] == [1, 1]
    assert (out / "v.png").exists()
    extract(videos, out, **options, deinterlace=True)
    for name, value in (("fps", 5), ("square_pixels", False)):
        with pytest.raises(SettingsError, match="was made with"):
            extract(videos, out, **{**options, "deinterlace": True, name: value})
    with pytest.raises(ExtractionError, match=r"v.mkv: has 1 frame at 0.5 frames per second, flow needs at least 2"):
        extract(videos, tmp_path / "none", **{**options, "fps": 0.5})


@pytest.mark.parametrize(("size", "smallest_side"), [((2, 4096), 256), ((2, 4096), 32), ((2, 66000), None)])
def test_sizes_out_of_all_measure(tmp_path: Path, size: tuple[int, int], smallest_side: int | None) -> None:
    path = encode_video(tmp_path / "videos" / "v.mkv", [np.zeros((*size, 3), np.uint8)] * 2, "ffv1", pixels="bgr0")
    with pytest.raises(ExtractionError, match=rf"^1 of 1 .*v\.mkv: frames of {size[1]}x{size[0]} pixels are too large"):
        extract(path.parent, tmp_path / "flow", smallest_side=smallest_side, frames_out=tmp_path / "frames")


def test_thin_pictures(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "videos" / "v.mkv", [texture(2, 4096)] * 2, "ffv1", pixels="bgr0")
    clip = extract(path.parent, tmp_path / "flow", smallest_side=None)["v"]
    assert clip.size == (2, 4096)


def write_images(folder: Path, pattern: str, frames: list[Frame], first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, first):
        assert cv2.imwrite(str(folder / (pattern % number)), frame[..., ::-1])
    return folder


@pytest.mark.parametrize("first", [0, 1, 99_996])
@pytest.mark.parametrize("pattern", ["img_%05d.jpg", "frame_%010d.png", "%d.JPEG"])
def test_folders_of_images(tmp_path: Path, pattern: str, first: int) -> None:
    frames = moving_frames(12, size=(48, 64))
    folder = write_images(tmp_path / "100% [a] 你好", pattern, frames, first)
    for flow in ("flow_x_%05d.jpg", "flow_y_m1_%05d.jpg", "flow_p2_%05d.png"):
        write_images(folder, flow, frames)
    (folder / "n_frames.txt").write_text("12")
    video = open_video(folder, smallest_side=None)
    found = [frame.rgb() for frame in video.frames]
    assert (video.fps, len(found), video.size, bool(video.damage)) == (25, 12, (48, 64), False)
    for frame, one in zip(frames, found, strict=True):
        assert difference(frame, one) < (0.1 if pattern.endswith("png") else 12)


@pytest.mark.parametrize(("tag", "quarters"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_images_are_turned_as_their_exif_says(tmp_path: Path, tag: int, quarters: int) -> None:
    frames = natural_frames(2, (48, 80))
    folder = write_images(tmp_path / "v", "img_%05d.jpg", frames)
    entry = struct.pack("<HHIHHI", 0x112, 3, 1, tag, 0, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry
    for path in folder.iterdir():
        coded = path.read_bytes()
        path.write_bytes(coded[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + coded[2:])
    expected = np.rot90(frames[0], quarters)
    video = open_video(folder, smallest_side=None)
    assert video.source_size == expected.shape[:2]
    assert difference(next(video.frames).rgb(), expected) < 9


@pytest.mark.unsanitized
def test_nothing_stays_open_or_in_memory(folder: Path) -> None:
    """Of videos that are read whole, in part or not at all, also where Python does not look for circles."""

    def used() -> int:
        if int(av.__version__.partition(".")[0]) >= 19:
            gc.collect()  # its filter graphs are circles, which no user of them can break
        ctypes.CDLL(None).malloc_trim(0)  # what is free, but kept by the C library
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    path = make(folder, "tape.dv")  # 5 frames of 1.2 MB in RGB
    reader = FrameReader(path)

    def read_all_ways() -> None:
        open_video(path)
        next(open_video(path, deinterlace=True, fps=50).frames).rgb()
        list(read_video(path, grey=True))
        reader.read(3, 1)
        with pytest.raises(IndexError):
            reader.read(3, 9)

    gc.collect()
    gc.disable()
    try:
        read_all_ways()
        before, open_before = used(), len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(10):
            read_all_ways()
        assert len(list(Path("/proc/self/fd").iterdir())) == open_before
        assert used() - before < 10 << 20
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "img_00003.jpg").unlink(), "img_00003.jpg is missing of 4 images"),
        (lambda folder: (folder / "img_6.jpg").touch(), "is missing of 6 images"),
        (
            lambda folder: (folder / "right_00001.jpg").touch(),
            r"images of several kinds \(img_\*.jpg and right_\*.jpg\)",
        ),
    ],
)
def test_folders_of_images_with_a_fault(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    folder = write_images(tmp_path / "v", "img_%05d.jpg", moving_frames(5))
    spoil(folder)
    with pytest.raises(VideoError, match=rf"^{folder}: .*{message}"):
        open_video(folder)


def test_extraction_takes_folders_of_images_for_videos(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("A/v_1", "A/v.2"):
        write_images(videos / name, "img_%05d.jpg", moving_frames(4))
    write_video(videos / "A" / "v_3.avi", moving_frames(5))
    (videos / "A" / "cover1.jpg").touch()
    store = extract(videos, tmp_path / "flow", method="dis", smallest_side=32, preview=True)
    assert {name: store[name].frame_count for name in store} == {"A/v.2": 4, "A/v_1": 4, "A/v_3": 5}
    again = extract(videos, tmp_path / "other", method="dis", smallest_side=32, names=["A/v.2"])
    assert list(again) == ["A/v.2"]


def test_extensions_are_lower_case_and_sorted() -> None:
    assert list(VIDEO_EXTENSIONS) == sorted(set(VIDEO_EXTENSIONS))
    assert {".gif", ".m2ts", ".hevc", ".h264", ".dv"} <= set(VIDEO_EXTENSIONS)


def test_stores_of_before_are_read_and_go_on(tmp_path: Path) -> None:
    """Their settings know nothing of the new ones."""
    videos, out = tmp_path / "videos", tmp_path / "flow"
    write_video(videos / "v.avi", moving_frames(4))
    extract(videos, out, method="dis")
    kept = json.loads((out / "store.json").read_text())
    for name in ("sampled_fps", "deinterlace", "square_pixels"):
        del kept[name]
    (out / "store.json").write_text(json.dumps(kept))
    write_video(videos / "w.avi", moving_frames(4))
    assert list(extract(videos, out, method="dis")) == ["v", "w"]
    opened = FlowStore.open(out).settings
    assert (opened.sampled_fps, opened.deinterlace, opened.square_pixels) == (None, False, False)


@pytest.mark.parametrize(("name", "codec"), [("v.avi", "MJPG"), ("v.mkv", "MJPG"), ("v.mp4", "mp4v")])
def test_what_the_system_cannot_read_is_an_error_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    """Wherever it happens: FFmpeg takes some such errors for the end of the file. The next time it may be whole."""
    path = write_video(tmp_path / name, moving_frames(40, size=(64, 96)), codec=codec)
    reads = 0

    def read(self: FileIO, size: int = -1) -> bytes:
        nonlocal reads
        reads += 1
        if reads == failing:
            self.failure = OSError(errno.EIO, os.strerror(errno.EIO))  # type: ignore[attr-defined]
            raise self.failure  # type: ignore[attr-defined]
        return FileIO.read(self, size)

    monkeypatch.setattr("twostream_ext.media.decoding._File.read", read)
    failing = 0
    assert len(list(read_video(path))) == 40
    for failing in range(1, reads + 1):  # noqa: B007
        reads = 0
        with pytest.raises(VideoError, match=rf"{name}: cannot be read: Input/output error"):
            list(read_video(path))


@pytest.mark.parametrize("name", ["carphone_pristine.mp4", "bikes.mp4"])
def test_grey_of_luma_is_near_that_which_opencv_makes_of_rgb(real_clips: Path, name: str) -> None:
    frames = list(islice(open_video(real_clips / name).frames, 20))
    differences = [difference(frame.grey(), grey_of(frame.rgb())) for frame in frames]
    assert 0 < sum(differences) / len(differences) < 2
