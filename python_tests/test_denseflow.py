# SPDX-License-Identifier: BSD-3-Clause
"""`twostream denseflow`: what denseflow writes, by rules written down here once more, and its faults left out."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import decode, moving_frames, write_video

from twostream_ext.cli import main, make_parser
from twostream_ext.errors import ExtractionError, ReplacedVideoWarning, SettingsError, VideoError
from twostream_ext.extraction import denseflow
from twostream_ext.extraction.denseflow import _new_size, _Plan
from twostream_ext.flow import FlowStore, denseflow_codes, estimate_flow, png_codes

SIZE = (40, 56)
COUNT = 7

# As its README has them, with a folder of frames, a list, and one video.
SCRIPT = """\
set -e
denseflow frames/walk -if -b=20 -a=tvl1 -s=1 -o=rawframes -v
denseflow videolist.txt -bound=20 -s=-1 -cf -o=rawframes --force
denseflow "videos/A/one.avi" --algorithm=tvl1 -b=20 -s=1 -o="rawframes/A" -v
"""


def make_videos(root: Path, count: int = COUNT) -> Path:
    """Three videos, the frames of one of them as images, and a list as an editor on Windows leaves it."""
    for index, name in enumerate(("A/one.avi", "A/two.avi", "B/three.avi")):
        write_video(root / "videos" / name, moving_frames(count, size=SIZE, seed=index))
    (root / "frames/walk").mkdir(parents=True)
    for number, frame in enumerate(decode(root / "videos/A/two.avi"), 1):
        assert cv2.imwrite(str(root / f"frames/walk/{number:04d}.jpg"), frame)
    (root / "videolist.txt").write_bytes(b"videos/A/one.avi\r\nvideos/A/two.avi\r\n\r\nvideos/B/three.avi")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script leaves, run with another name for the program."""
    root = make_videos(tmp_path_factory.mktemp("script"))
    program = f"{sys.executable} -m twostream_ext denseflow"
    script = re.sub("^denseflow", program, SCRIPT, flags=re.MULTILINE)
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"done video rawframes/walk: {COUNT - 1} tvl1 flows"
    return root


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_videos(tmp_path))
    return tmp_path


def names_by_rule(step: int, frames: int, ending: str = "jpg") -> set[str]:
    """Those of a video's files as the tool's README and users' trees have them."""
    if step == 0:
        return {f"img_{number:05d}.jpg" for number in range(frames)}
    mark = {1: ""}.get(step, f"_p{step}" if step > 0 else f"_m{-step}")
    starts = range(frames - step) if step > 0 else range(-step, frames)
    axes = ("_x", "_y") if ending == "jpg" else ("",)
    return {f"flow{axis}{mark}_{start:05d}.{ending}" for start in starts for axis in axes}


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def code_by_rule(value: float, bound: int) -> int:
    """A cast, clipped; `round` takes halves to the even number, as cvRound does."""
    if value > bound:
        return 255
    return 0 if value < -bound else round(255 * (value + bound) / (bound + bound))


def greys(video: Path, size: tuple[int, int] | None = None) -> list[np.ndarray]:
    frames = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in decode(video)]
    return frames if size is None else [cv2.resize(frame, size[::-1]) for frame in frames]


class RawFrames:
    """Reads flow as the documentation of MMAction2's RawFrameDecode and RawframeDataset says it is read.

    A video is a directory; field i of it, counted from 0, is in filename_tmpl.format("x", i + start_index) and in the
    same of "y", both read in grey. The dataset's start_index is 1 where a config gives no other.
    """

    def __init__(self, filename_tmpl: str = "{}_{:05d}.jpg", start_index: int = 1) -> None:
        self.filename_tmpl = filename_tmpl
        self.start_index = start_index

    def read(self, directory: Path, indices: list[int]) -> list[np.ndarray]:
        planes = []
        for index in indices:
            for axis in ("x", "y"):
                name = self.filename_tmpl.format(axis, index + self.start_index)
                plane = cv2.imread(str(directory / name), cv2.IMREAD_GRAYSCALE)
                assert plane is not None, name
                planes.append(plane)
        return planes


def test_a_script_for_denseflow_runs_with_another_name_for_the_program(tree: Path) -> None:
    root = tree / "rawframes"
    expected = {f"{name}/{file}" for name in ("A/one", "A/two", "B/three") for file in names_by_rule(-1, COUNT)}
    expected |= {f"{name}/{file}" for name in ("walk", "A/one") for file in names_by_rule(1, COUNT)}
    expected |= {f".done/{name}" for name in ("A/one", "A/two", "B/three")}
    assert content(root).keys() == expected


def test_the_files_are_what_opencv_makes_of_codes_by_the_rule(tree: Path) -> None:
    frames = greys(tree / "videos/A/one.avi")
    for name, first, second in (
        ("flow_{}_00002.jpg", frames[2], frames[3]),
        ("flow_{}_m1_00004.jpg", frames[4], frames[3]),
    ):
        check_files(tree / "rawframes/A/one" / name, estimate_flow(first, second))


def check_files(template: Path, field: np.ndarray) -> None:
    """Of a bound of 20."""
    for axis, letter in enumerate("xy"):
        codes = np.array([[code_by_rule(float(value), 20) for value in row] for row in field[..., axis]], np.uint8)
        assert Path(str(template).format(letter)).read_bytes() == cv2.imencode(".jpg", codes)[1].tobytes()


def test_frames_are_made_grey_and_then_rescaled(videos: Path) -> None:
    denseflow("videos/A/one.avi", "out", step=1, bound=20, new_width=30, new_height=24)
    frames = greys(videos / "videos/A/one.avi", (24, 30))
    check_files(videos / "out/one/flow_{}_00001.jpg", estimate_flow(frames[1], frames[2]))


def test_the_tree_is_read_by_a_loader_after_mmaction2_and_by_the_flow_store(tree: Path) -> None:
    loader = RawFrames("flow_{}_{:05d}.jpg", start_index=0)
    planes = loader.read(tree / "rawframes/A/one", list(range(COUNT - 1)))
    assert len(planes) == 2 * (COUNT - 1)
    assert {plane.shape for plane in planes} == {SIZE}
    motion = np.mean([[plane[8:-8, 8:-8].mean() for plane in planes[axis::2]] for axis in (0, 1)], axis=1)
    np.testing.assert_allclose((motion - 127.5) * 40 / 255, (2, 1), atol=0.1)  # the step of the moving frames
    store = FlowStore.open(tree / "rawframes/A", bound=20)
    assert list(store) == ["one", "two"]
    assert store["two"].directions == ("backward",)
    clip = store["one"]
    assert (clip.frame_count, clip.size, clip.directions) == (COUNT, SIZE, ("forward", "backward"))
    codes = clip.read(0, COUNT - 1).codes.numpy()
    np.testing.assert_array_equal(codes[..., 1], np.stack(planes[1::2]))
    backward = loader_of("flow_{}_m1_{:05d}.jpg").read(tree / "rawframes/A/one", [3])
    np.testing.assert_array_equal(clip.read(3, 1, "backward").codes.numpy()[0, ..., 0], backward[0])
    flow = [clip.displacement(3, direction)[8:-8, 8:-8].mean((0, 1)) for direction in ("forward", "backward")]
    np.testing.assert_allclose(flow, [(2, 1), (-2, -1)], atol=0.2)


def loader_of(template: str) -> RawFrames:
    return RawFrames(template, start_index=0)


@pytest.mark.parametrize("step", [0, 1, 2, -1, -3, COUNT - 1, 1 - COUNT])
def test_names_and_numbers_of_every_step(videos: Path, step: int) -> None:
    assert denseflow("videos/A/one.avi", "out", step=step, algorithm="farn") == (
        1,
        0,
        len(names_by_rule(step, COUNT, "")),
    )
    assert content(videos / "out").keys() == {f"one/{name}" for name in names_by_rule(step, COUNT)}


def test_frames_are_those_of_the_video(videos: Path) -> None:
    denseflow("videos/A/one.avi", "out", new_height=27)
    for number, frame in enumerate(decode(videos / "videos/A/one.avi")):
        expected = cv2.imencode(".jpg", cv2.resize(frame, (38, 27)))[1].tobytes()
        assert (videos / f"out/one/img_{number:05d}.jpg").read_bytes() == expected


@pytest.mark.parametrize("count", [16, 17, 18, 34])
def test_no_batch_is_lost_where_a_video_is_cut(tmp_path: Path, count: int) -> None:
    """Issue 33, 60 and 78 of denseflow: without the last batch, and nothing said."""
    video = write_video(tmp_path / "long.avi", moving_frames(count, size=(24, 32), step=(1, 0)))
    frames = greys(video)
    for step in (1, -2):
        denseflow(video, tmp_path, step=step, bound=20)
        names = names_by_rule(step, count)
        assert names <= {path.name for path in (tmp_path / "long").iterdir()}
        for start in (max(0, -step), count - 1 - max(0, step), *([16] if count > 18 else [])):
            codes = denseflow_codes(estimate_flow(frames[start], frames[start + step]), 20)
            mark = "m2_" if step < 0 else ""
            written = (tmp_path / f"long/flow_x_{mark}{start:05d}.jpg").read_bytes()
            assert written == cv2.imencode(".jpg", np.ascontiguousarray(codes[..., 0]))[1].tobytes()


@pytest.mark.slow
def test_a_folder_of_1298_frames(tmp_path: Path) -> None:
    """Issue 33 of denseflow, which gave 1023 fields and said 1298."""
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(moving_frames(1298, size=(16, 24), step=(0, 0)), 1):
        assert cv2.imwrite(str(tmp_path / f"frames/{number:04d}.jpg"), frame)
    done = denseflow(tmp_path / "frames", tmp_path / "out", step=1, algorithm="farn", input_frames=True)
    assert done == (1, 0, 1297)
    assert {path.name for path in (tmp_path / "out/frames").iterdir()} == names_by_rule(1, 1298)


@given(st.floats(-50, 50, width=32), st.integers(1, 40))
def test_codes_are_rounded_and_clipped_by_the_rule(value: float, bound: int) -> None:
    field = np.full((1, 1, 2), value, np.float32)
    assert denseflow_codes(field, bound).tolist() == [[[code_by_rule(float(np.float32(value)), bound)] * 2]]


def test_halves_become_the_even_code_and_what_is_over_the_bound_the_last_one() -> None:
    step = 30 / 255  # of a bound of 15
    values = [0.0, step, -step, 15.0, 15.001, 99.0, -15.0, -15.001, -1e9]
    field = np.array(values, np.float32).reshape(1, -1, 1).repeat(2, axis=2)
    expected = [128, round(128.5), round(126.5), 255, 255, 255, 0, 0, 0]
    assert denseflow_codes(field, 15)[0, :, 0].tolist()[3:] == expected[3:]
    assert denseflow_codes(field, 15)[0, 0, 0] == 128


@pytest.mark.parametrize(
    ("source", "given_sides", "expected"),
    [  # (height, width), (newWidth, newHeight, newShort), (height, width)
        ((240, 320), (0, 0, 0), (240, 320)),
        ((240, 320), (340, 256, 0), (256, 340)),
        ((240, 320), (340, 0, 0), (255, 340)),
        ((240, 320), (0, 256, 0), (256, 341)),
        ((241, 321), (160, 0, 0), (120, 160)),  # 120.12
        ((243, 324), (2, 0, 0), (2, 2)),  # 1.5 goes up
        ((240, 320), (0, 0, 120), (120, 160)),
        ((320, 240), (0, 0, 120), (160, 120)),
        ((240, 320), (0, 0, 240), (240, 320)),  # not shorter than it is
        ((240, 320), (0, 0, 256), (240, 320)),  # nor larger
        ((250, 250), (0, 0, 100), (100, 100)),
        ((10, 4000), (2, 0, 0), (1, 2)),
    ],
)
def test_sizes(source: tuple[int, int], given_sides: tuple[int, int, int], expected: tuple[int, int]) -> None:
    width, height, short = given_sides
    plan = _Plan("tvl1", 1, 20, width, height, short, "jpg", False, None, False)  # type: ignore[arg-type]
    assert _new_size(source, plan) == expected


def uncast(picture: np.ndarray) -> np.ndarray:
    """denseflow's README, "Flow Video Specification", from BGR as OpenCV reads it: x, y and a quarter of the bounds."""
    height = picture.shape[0]
    fields = []
    for axis, rows in enumerate((slice(0, height // 2), slice(height // 2 + 1, None))):
        bound = round(picture[rows, :, 2].mean()) * 4
        fields.append((picture[..., axis].astype(float) - 128) * bound / 128)
    return np.stack(fields, axis=2)


@pytest.mark.parametrize("largest", [0.0, 0.3, 3.9, 4.0, 17.0, 300.0, 5000.0])
def test_png_is_read_back_as_the_readme_says(largest: float) -> None:
    random = np.random.default_rng(0)
    field = (largest * random.uniform(-1, 1, (31, 47, 2))).astype(np.float32)
    field[0, 0] = largest
    picture = png_codes(field)[..., ::-1]
    for axis, side in enumerate((47, 31)):
        bound = min(1020, math.ceil(min(side, largest) * 128 / 127 / 4) * 4)
        assert set(np.unique(picture[:15] if axis == 0 else picture[16:], axis=None)) >= {bound // 4 + (bound % 8 == 0)}
        clipped = np.clip(field[..., axis], -bound, bound)
        kept = np.abs(field[..., axis]) <= min(side, largest)  # what is longer than the picture is clipped
        step = (bound + 4 * (bound % 8 == 0)) / 128
        assert np.abs(uncast(picture)[..., axis] - clipped)[kept].max() <= step * 0.501


def test_png_files(videos: Path) -> None:
    denseflow("videos/A/one.avi", "out", step=-2, save_type="png")
    assert content(videos / "out").keys() == {f"one/{name}" for name in names_by_rule(-2, COUNT, "png")}
    frames = greys(videos / "videos/A/one.avi")
    read = cv2.imread(str(videos / "out/one/flow_m2_00005.png"))
    assert np.abs(uncast(read) - estimate_flow(frames[5], frames[3])).max() <= 12 / 128 / 2 * 1.001


@pytest.mark.parametrize("step", [1, 2, -1])
def test_h5_files(videos: Path, step: int) -> None:
    h5py = pytest.importorskip("h5py")
    denseflow("videos/A/one.avi", "out", step=step, save_type="h5")
    name = {1: "one.h5", 2: "one_p2.h5", -1: "one_m1.h5"}[step]
    assert content(videos / "out").keys() == {name}
    frames = greys(videos / "videos/A/one.avi")
    with h5py.File(videos / "out" / name) as file:
        assert set(file) == {each.removesuffix(".jpg") for each in names_by_rule(step, COUNT)}
        start = max(0, -step)
        field = estimate_flow(frames[start], frames[start + step])
        mark = {1: "", 2: "p2_", -1: "m1_"}[step]
        for axis, letter in enumerate("xy"):
            data = file[f"flow_{letter}_{mark}{start:05d}"]
            assert data.dtype == np.float32
            np.testing.assert_array_equal(data[:], field[..., axis])


def test_without_h5py_a_line_says_what_to_install(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert main(["denseflow", "videos/A/one.avi", "-s=1", "-st=h5", "-o=out"]) == 2
    assert capsys.readouterr().err == "twostream: error: HDF5 needs h5py: pip install 'twostream_ext[h5]'\n"
    assert not Path("out").exists()


def test_frames_beside_their_flow_are_read_and_the_flow_is_not(videos: Path) -> None:
    """MMAction2's script of Something-Something writes flow into the folder of the frames."""
    (videos / "frames/walk/notes.png").write_bytes(b"")
    before = content(videos / "frames")
    for step in (1, -1, 1):
        denseflow("frames/walk", "frames", step=step, input_frames=True, algorithm="farn")
    expected = {f"walk/{name}" for step in (1, -1) for name in names_by_rule(step, COUNT)}
    assert content(videos / "frames").keys() == before.keys() | expected
    assert content(videos / "frames").items() >= before.items()


def test_frames_are_never_written_onto_themselves(videos: Path) -> None:
    before = content(videos)
    for out in ("frames", "frames/../frames", str(videos / "frames")):
        with pytest.raises(SettingsError, match=r"walk: holds the frames that are read"):
            denseflow("frames/walk/", out, input_frames=True)
    assert content(videos) == before
    denseflow("frames/walk/", "out", input_frames=True)
    assert content(videos / "out").keys() == {f"walk/{name}" for name in names_by_rule(0, COUNT)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no image", r"0069.jpg: is no image that can be decoded"),
        (b"", r"0069.jpg: is no image that can be decoded"),
        (
            cv2.imencode(".jpg", np.zeros((9, 8, 3), np.uint8))[1].tobytes(),
            "frame 68 is of 8x9 pixels, the first of 56x40",
        ),
    ],
)
def test_a_frame_that_cannot_be_used_leaves_nothing(tmp_path: Path, data: bytes, message: str) -> None:
    """Not even of the stretches before it, which are written by then."""
    (tmp_path / "walk").mkdir()
    for number, frame in enumerate(moving_frames(70, size=SIZE, step=(0, 0)), 1):
        assert cv2.imwrite(str(tmp_path / f"walk/{number:04d}.jpg"), frame)
    (tmp_path / "walk/0069.jpg").write_bytes(data)
    for step in (0, 1):
        with pytest.raises(ExtractionError, match=message):
            denseflow(tmp_path / "walk", tmp_path / "out", step=step, algorithm="farn", input_frames=True, workers=1)
        assert not (tmp_path / "out/walk").exists()


def test_what_is_broken_off_while_it_is_done_again_is_not_done(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"step": 1, "algorithm": "farn", "class_folder": True}
    denseflow("videolist.txt", "out", **options)

    def fail(*_: object) -> None:
        raise VideoError("videos/A/one.avi: some failure")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[denseflow.__module__], "_code_flow", fail)
        with pytest.raises(ExtractionError, match="some failure"):
            denseflow("videolist.txt", "out", force=True, **options)
    (videos / "out/A/one").mkdir(exist_ok=True)
    (videos / "out/A/one/flow_x_00000.jpg").touch()  # as if the process had been killed
    assert denseflow("videolist.txt", "out", **options).skipped == 0


def test_a_list_is_done_but_for_what_fails(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(videos / "videos/A/short.avi", moving_frames(2, size=SIZE))
    (videos / "videos/A/broken.avi").write_text("no video")
    listed = ["videos/A/none.avi", "videos/A/one.avi", "videos/A/broken.avi", "videos/A/short.avi", "videos/A/one.avi"]
    Path("list.txt").write_text("\n".join(listed))
    options = ["denseflow", "list.txt", "-s=2", "-a=farn", "-o=out", "-v"]
    for _ in range(2):
        assert main(options) == 1
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[0] for line in lines[:-1]] == sorted({*listed} - {"videos/A/one.avi"})
        assert "videos/A/short.avi: flow of step 2 needs at least 3 frames, it has fewer" in lines
        assert lines[-1] == "twostream: error: 3 videos could not be done, see above"
        names = {f"one/{name}" for name in names_by_rule(2, COUNT)}
        assert content(videos / "out").keys() == names | {".done/one"}


def test_a_list_as_an_editor_leaves_it_with_names_that_cannot_be(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "n" * 300
    lines = ["\ufeffvideos/A/one.avi", "", f"videos/{long}.avi", "  videos/B/three.avi \t", "../" * 99 + "none/.."]
    Path("list.txt").write_bytes("\r\n".join(lines).encode() + b"\r\nvideos/\xff.avi")
    assert main(["denseflow", "list.txt", "-s=1", "-a=farn", "-o=out", "-cf"]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1] == "twostream: error: 3 videos could not be done, see above"
    assert [
        any(line.startswith(name) for line in shown) for name in (f"videos/{long}", "../..", "videos/\\udcff.avi")
    ] == [True] * 3
    done = {f"{name}/{file}" for name in ("A/one", "B/three") for file in names_by_rule(1, COUNT)}
    assert content(videos / "out").keys() == done | {".done/A/one", ".done/B/three"}


def test_what_is_done_is_left_out_step_by_step(videos: Path) -> None:
    options = {"algorithm": "farn", "class_folder": True}
    assert denseflow("videolist.txt", "out", step=1, **options) == (3, 0, 3 * (COUNT - 1))
    before = {path: path.stat().st_mtime_ns for path in (videos / "out").rglob("*.jpg")}
    assert denseflow("videolist.txt", "out", step=1, **options) == (3, 3, 0)
    assert denseflow("videolist.txt", "out", step=-1, **options) == (3, 0, 3 * (COUNT - 1))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(SettingsError, match=r"was made with bound 32, not 20; .* or -f \(force\)"):
        denseflow("videolist.txt", "out", step=1, bound=20, **options)
    assert denseflow("videolist.txt", "out", step=1, bound=20, force=True, **options) == (3, 0, 3 * (COUNT - 1))
    assert denseflow("videolist.txt", "out", step=1, bound=20, **options) == (3, 3, 0)
    for file in (videos / "out/B/three").glob("flow_x_0*"):
        file.unlink()
    assert denseflow("videolist.txt", "out", step=1, bound=20, **options) == (3, 2, COUNT - 1)
    assert denseflow("videolist.txt", "out", step=-1, **options) == (3, 3, 0)


def test_marks_of_denseflow_itself(videos: Path) -> None:
    """They are empty, and tell no step: the files of this one must be there."""
    (videos / "out/.done/A").mkdir(parents=True)
    (videos / "out/.done/A/one").touch()
    (videos / "out/A/one").mkdir(parents=True)
    (videos / "out/A/one/flow_x_00000.jpg").write_bytes(b"of denseflow")
    options = {"algorithm": "farn", "class_folder": True}
    assert denseflow("videolist.txt", "out", step=1, **options).skipped == 1
    assert (videos / "out/A/one/flow_x_00000.jpg").read_bytes() == b"of denseflow"
    assert denseflow("videolist.txt", "out", step=-1, **options).skipped == 0


def test_another_video_of_the_name_is_done_again_and_leaves_nothing_of_the_old_one(videos: Path) -> None:
    options = {"algorithm": "farn", "step": 1}
    Path("list.txt").write_text("videos/A/one.avi")
    denseflow("list.txt", "out", **options)
    write_video(videos / "videos/A/one.avi", moving_frames(4, size=SIZE, seed=9))
    with pytest.warns(ReplacedVideoWarning, match=r"one\.avi: not the video that was done"):
        denseflow("list.txt", "out", **options)
    assert content(videos / "out").keys() == {f"one/{name}" for name in names_by_rule(1, 4)} | {".done/one"}
    denseflow("videos/A/one.avi", "fresh", **options)
    assert content(videos / "fresh/one") == content(videos / "out/one")


def test_two_videos_of_one_name_are_refused(videos: Path) -> None:
    write_video(videos / "videos/B/one.avi", moving_frames(4, size=SIZE))
    Path("list.txt").write_text("videos/A/one.avi\nvideos/B/one.avi")
    with pytest.raises(SettingsError, match=r"videos/B/one.avi: would be written where videos/A/one.avi is, .*-cf"):
        denseflow("list.txt", "out", step=1)
    assert not Path("out").exists()
    denseflow("list.txt", "out", step=1, algorithm="farn", class_folder=True)
    assert {path.name for path in Path("out/B/one").iterdir()} == names_by_rule(1, 4)


def test_a_video_by_itself_has_no_class_folder_and_no_mark(videos: Path) -> None:
    """As in denseflow, which takes -cf for lists alone."""
    denseflow("videos/A/one.avi", "out", step=1, algorithm="farn", class_folder=True)
    assert content(videos / "out").keys() == {f"one/{name}" for name in names_by_rule(1, COUNT)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-a=nv"], "algorithm nv is NVIDIA's optical-flow hardware, which needs its own SDK; use tvl1 or farn"),
        (["-a=brox"], "algorithm brox is offered by OpenCV for CUDA alone"),
        (["-ns=20", "-nw=20"], "newShort stands in place of newWidth and newHeight"),
        (["-nw=70000"], "newWidth is 70000, expected a number of pixels from 0 to 65500"),
    ],
)
def test_options_that_cannot_be(
    videos: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["denseflow", "videos/A/one.avi", "-s=1", "-o=out", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"twostream: error: {message}")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "option", ["-b=0", "-b=-3", "-b=2.5", "-b=", "-s=x", "-nw=-1", "-a=dis", "-st=bmp", "-x=1", "-v=1", "--ste=1"]
)
def test_wrong_usage(videos: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["denseflow", "videos/A/one.avi", "-o=out", option])
    assert stopped.value.code == 2
    assert option.lstrip("-").partition("=")[0] in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.avi"], "none.avi: no such file"),
        (["none.txt"], "none.txt: cannot be read: No such file or directory"),
        (["empty.txt"], "empty.txt: lists no videos, expected a path in each line"),
        (["binary.txt"], "binary.txt: is no list of videos: it holds null bytes"),
        (["text.avi"], "text.avi: is not a video that FFmpeg can read"),
        (["videos/A"], r"videos/A: is a directory; -if \(input_frames\) takes the frames in it"),
        (["videos/A", "-if"], r"videos/A: holds no frames \(\*.jpg\)"),
        (["videos/A/one.avi", "-if"], "one.avi: is no folder of frames"),
        (["videos/A/one.avi", "-s=7"], "one.avi: flow of step 7 needs at least 8 frames, it has fewer"),
        (["videos/A/one.avi", "-s=-90", "-st=png"], "one.avi: flow of step -90 needs at least 91 frames"),
        (["videos/A/one.avi", "-nh=65000"], "one.avi: frames of 91000x65000 pixels are too large"),
        (["videos/A/one.avi", "-o=empty.txt"], "cannot be written"),
    ],
)
def test_wrong_input_is_one_line(
    videos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty.txt").write_text(" \n\r\n")
    Path("text.avi").write_text("no video")
    Path("binary.txt").write_bytes(b"videos/A/one.avi\n\xff\0\xfe")
    before = content(videos)
    assert main(["denseflow", "-s=1", "-o=out", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert content(videos) == before
    assert not Path("out").exists()


def test_names_of_options_have_one_dash_or_two_and_are_short_or_long() -> None:
    parse = make_parser().parse_args
    expected = parse(["denseflow", "in", "-o=a", "-a=farn", "-s=-2", "-b=7", "-nw=1", "-d=0", "-cf", "-if", "-v", "-f"])
    given = ["-outputDir=a", "--a=farn", "--step=-2", "-bound=7", "--nw=1", "-deviceId=0", "--classFolder"]
    assert parse(["denseflow", *given, "-inputFrames", "--v", "--f", "in"]) == expected
    assert parse(["denseflow", "in", "--saveType=png", "--ns=3"]) == parse(
        ["denseflow", "-st=png", "-newShort=3", "in"]
    )
    plain = parse(["denseflow", "in"])
    assert (plain.step, plain.bound, plain.algorithm, str(plain.outputDir), plain.saveType) == (
        0,
        32,
        "tvl1",
        ".",
        "jpg",
    )


def test_a_device_that_a_script_names_is_not_needed(videos: Path) -> None:
    assert main(["denseflow", "videos/A/one.avi", "-s=1", "-a=farn", "-d=0", "-o=out"]) == 0


def test_farn_has_the_settings_of_opencvs_cuda_function(videos: Path) -> None:
    denseflow("videos/A/one.avi", "out", step=1, algorithm="farn", bound=20)
    frames = greys(videos / "videos/A/one.avi")
    field = cv2.calcOpticalFlowFarneback(frames[0], frames[1], None, 0.5, 5, 13, 10, 5, 1.1, 0)
    codes = np.array([[code_by_rule(float(value), 20) for value in row] for row in field[..., 0]], np.uint8)
    assert (videos / "out/one/flow_x_00000.jpg").read_bytes() == cv2.imencode(".jpg", codes)[1].tobytes()


def test_neither_threads_nor_a_second_time_change_a_byte(videos: Path) -> None:
    for out, workers in (("one", 1), ("three", 3)):
        denseflow("videolist.txt", out, step=1, class_folder=True, workers=workers)
    once = content(videos / "one")
    assert content(videos / "three") == once
    denseflow("videolist.txt", "three", step=1, class_folder=True, force=True)
    assert content(videos / "three") == once


@pytest.mark.parametrize(
    ("how", "at"),
    [
        (signal.SIGKILL, 30),
        *(pytest.param(signal.SIGKILL, files, marks=pytest.mark.slow) for files in (1, 3, 60, 90)),
        *(pytest.param(signal.SIGINT, files, marks=pytest.mark.slow) for files in (1, 30, 90)),
    ],
)
def test_what_is_killed_in_the_middle_goes_on_and_ends_with_the_same_files(
    tmp_path: Path, how: signal.Signals, at: int
) -> None:
    """at: files that are there when the process is killed."""
    make_videos(tmp_path, count=20)
    program = [sys.executable, "-m", "twostream_ext", "denseflow", "videolist.txt", "-s=1", "-b=20", "-cf", "-o=out"]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    out = tmp_path / "out"
    with subprocess.Popen(program, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as running:
        while running.poll() is None and len(list(out.rglob("flow_*.jpg"))) < at:
            time.sleep(0.001)
        running.send_signal(how)
        assert running.stderr is not None
        told = running.stderr.read().decode()
    assert running.returncode == (-how if how == signal.SIGKILL else 130)
    assert told.strip() == (
        "" if how == signal.SIGKILL else "twostream: interrupted; the same command goes on from here"
    )
    for file in out.rglob("flow_*.jpg"):
        assert cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape == SIZE  # whole
    for name in (each.name for each in out.glob(".done/A/*")):
        assert {path.name for path in (out / "A" / name).iterdir()} >= names_by_rule(1, 20)
    os.chdir(tmp_path)
    denseflow("videolist.txt", "out", step=1, bound=20, class_folder=True)
    denseflow("videolist.txt", "undisturbed", step=1, bound=20, class_folder=True)
    assert content(out) == content(tmp_path / "undisturbed")


def test_a_disk_that_is_full_ends_it_with_a_line(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExtractionError, match="out/one: cannot be written: No space left on device"):
        denseflow("videos/A/one.avi", "out", step=1, algorithm="farn")
    assert content(videos / "out") == {}


def test_a_list_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none.txt: cannot be read"):
        denseflow(tmp_path / "none.txt", tmp_path / "out")
