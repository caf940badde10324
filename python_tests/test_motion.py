# SPDX-License-Identifier: BSD-3-Clause
"""The scores of motion, on videos whose motion is known because it was drawn."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import runpy
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from videos import Frame, encode_video, moving_frames, texture, write_video

from twostream_ext import cli, motion
from twostream_ext.errors import ExtractionError, SettingsError, VideoError
from twostream_ext.motion import FieldMotion, MotionScore, MotionSettings

WHOLE = MotionSettings(fps=None, smallest_side=None)
FPS = 25


def lossless(path: Path, frames: list[Frame], fps: int = FPS) -> Path:
    return encode_video(path, frames, "ffv1", pixels="bgr0", fps=fps)


def warped_frames(count: int, step: Callable[[int], np.ndarray], size: tuple[int, int] = (96, 128)) -> list[Frame]:
    """Pictures of a texture through the maps [2, 3] from its pixels, about its middle, to those of frame `index`."""
    height, width = size
    picture = texture(3 * height, 3 * width)
    middle = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1.0]])
    back = np.array([[1, 0, -1.5 * width], [0, 1, -1.5 * height], [0, 0, 1.0]])
    frames = []
    for index in range(count):
        whole = middle @ np.vstack([step(index), [0, 0, 1]]) @ back
        frames.append(cv2.warpAffine(picture, whole[:2], (width, height), flags=cv2.INTER_LINEAR))
    return frames


def turned(degrees: float, zoom: float = 1.0) -> np.ndarray:
    """The map that turns clockwise, as one sees it, and enlarges: y points down."""
    angle = math.radians(degrees)
    return zoom * np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])


# ---- one video ------------------------------------------------------------------------------------------------------


def test_what_moves_as_a_whole_is_the_camera(tmp_path: Path) -> None:
    found = motion.score(lossless(tmp_path / "pan.mkv", moving_frames(12, size=(96, 128), step=(3, -1))), WHOLE)
    assert found.camera.pan_x == pytest.approx(3 * FPS, rel=0.05)
    assert found.camera.pan_y == pytest.approx(-1 * FPS, rel=0.1)
    assert found.displacement.mean == pytest.approx(math.hypot(3, 1) * FPS, rel=0.05)
    assert found.displacement.median == pytest.approx(math.hypot(3, 1) * FPS, rel=0.05)
    assert found.objects.median < 0.05 * found.displacement.median
    assert found.moving < 0.1
    assert (found.frames, found.seconds, found.width, found.height) == (12, pytest.approx(11 / FPS), 128, 96)
    assert (found.still, found.cuts) == (False, 0)


def test_a_camera_that_zooms_and_turns(tmp_path: Path) -> None:
    frames = warped_frames(10, lambda index: turned(0.8 * index, 1.01**index))
    found = motion.score(lossless(tmp_path / "zoom.mkv", frames), WHOLE)
    assert found.camera.zoom == pytest.approx(0.01 * FPS, rel=0.1)
    assert found.camera.turn == pytest.approx(0.8 * FPS, rel=0.1)
    assert found.objects.median < 0.15 * found.displacement.median


def test_lengths_do_not_depend_on_the_size_and_rate_at_which_frames_are_taken(tmp_path: Path) -> None:
    video = lossless(tmp_path / "pan.mkv", moving_frames(40, size=(192, 256), step=(2, 0)), fps=20)
    for settings in (MotionSettings(None, None), MotionSettings(10.0, 96), MotionSettings(5.0, 96)):
        assert motion.score(video, settings).displacement.median == pytest.approx(40, rel=0.06), settings


def test_an_object_is_told_from_the_camera(tmp_path: Path) -> None:
    frames = moving_frames(10, size=(96, 128), step=(2, 0))
    patch = texture(48, 48, seed=5)
    for index, frame in enumerate(frames):
        frame[24:72, 20 + 5 * index : 68 + 5 * index] = patch
    found = motion.score(lossless(tmp_path / "object.mkv", frames), WHOLE)
    area = 48 * 48 / (96 * 128)
    assert found.camera.pan_x == pytest.approx(2 * FPS, rel=0.1)
    assert found.moving == pytest.approx(area, abs=0.08)
    assert found.objects.mean == pytest.approx(area * 3 * FPS, rel=0.35)  # 5 px a frame beside the camera's 2
    assert found.objects.p95 == pytest.approx(3 * FPS, rel=0.15)


def test_still_pictures_and_cuts(tmp_path: Path) -> None:
    one, other = texture(96, 128, seed=1), 255 - texture(96, 128, seed=2) // 2
    slides = motion.score(lossless(tmp_path / "slides.mkv", [one] * 6 + [other] * 6), WHOLE)
    assert (slides.still, slides.cuts, slides.frames) == (True, 1, 12)
    assert slides.displacement.mean == slides.objects.mean == slides.moving == 0
    moving = (
        moving_frames(6, size=(96, 128), step=(2, 0), seed=1),
        moving_frames(6, size=(96, 128), step=(2, 0), seed=2),
    )
    cut = motion.score(lossless(tmp_path / "cut.mkv", [*moving[0], *moving[1]]), WHOLE)
    assert (cut.still, cut.cuts) == (False, 1)
    assert cut.displacement.mean == pytest.approx(2 * FPS, rel=0.05)  # nothing moves from scene to scene


def test_cuts_alone_have_no_motion(tmp_path: Path) -> None:
    video = lossless(tmp_path / "flash.mkv", [texture(96, 128, seed=1), 255 - texture(96, 128, seed=2) // 2])
    found = motion.score(video, WHOLE)
    assert found.cuts == 1
    assert all(math.isnan(each) for each in (*found.displacement, *found.objects, *found.camera, found.moving))
    assert motion.score_row("flash.mkv", found)["mean"] is None


def test_a_fade_to_black_is_no_fault(tmp_path: Path) -> None:
    frames = [(texture(64, 80) * share).astype(np.uint8) for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0)]
    found = motion.score(lossless(tmp_path / "fade.mkv", frames), WHOLE)
    assert all(math.isfinite(each) for each in (*found.displacement, *found.objects, *found.camera))


def test_errors_of_one_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"one\.avi: has 1 frame, motion needs at least 2"):
        motion.score(write_video(tmp_path / "one.avi", [texture(64, 80)]), WHOLE)
    with pytest.raises(VideoError, match=r"short\.avi: at 2 frames a second has 1 frame"):
        motion.score(write_video(tmp_path / "short.avi", moving_frames(4)))
    with pytest.raises(VideoError, match=r"none\.avi: no such file"):
        motion.score(tmp_path / "none.avi")
    for wrong in ({"fps": 0.0}, {"fps": math.nan}, {"smallest_side": 0}, {"method": "guess"}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            MotionSettings(**wrong)  # type: ignore[arg-type]


# ---- fields ---------------------------------------------------------------------------------------------------------


def test_mean_and_percentiles_are_those_of_all_pixels_together() -> None:
    """Against NumPy with all of them in memory."""
    random = np.random.default_rng(0)
    gathered = FieldMotion(scale=2.0, diagonal=200.0)
    lengths = []
    for spread in (0.01, 1.0, 30.0):
        fields = torch.from_numpy(random.normal(scale=spread, size=(3, 20, 30, 2)).astype(np.float32))
        gathered.add(fields, 10.0)
        lengths.append(20.0 * np.linalg.norm(fields.numpy().astype(np.float64), axis=-1).ravel())
    every = np.concatenate(lengths)
    found = gathered.displacement()
    assert found.mean == pytest.approx(every.mean(), rel=1e-5)
    assert found.median == pytest.approx(np.percentile(every, 50, method="inverted_cdf"), rel=0.006)
    assert found.p95 == pytest.approx(np.percentile(every, 95, method="inverted_cdf"), rel=0.006)


@pytest.mark.parametrize("length", [0.0, 1e-5, 1e7])
def test_lengths_beyond_the_bins(length: float) -> None:
    fields = torch.full((1, 8, 8, 2), length / math.sqrt(2))
    gathered = FieldMotion(scale=1.0, diagonal=100.0)
    gathered.add(fields, 1.0)
    assert gathered.displacement().mean == pytest.approx(length, rel=1e-5)
    assert gathered.displacement().median == pytest.approx(min(length, 2.0**20) if length > 1 else 0, rel=0.006)


# ---- many videos ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for index in range(6):
        write_video(root / f"Class{index % 2}" / f"v{index}.avi", moving_frames(9, step=(index, 1), seed=index), fps=6)
    return root


SETTINGS = MotionSettings(fps=6.0, smallest_side=None)


def read_table(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".csv":
        return [dict(row) for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_table_has_what_each_video_has(tree: Path, tmp_path: Path) -> None:
    rows = motion.score_videos(tree, tmp_path / "scores.jsonl", SETTINGS)
    names = [f"Class{index % 2}/v{index}.avi" for index in (0, 2, 4, 1, 3, 5)]
    assert [row["video"] for row in rows] == names
    assert rows == [motion.score_row(name, motion.score(tree / name, SETTINGS)) for name in names]
    assert read_table(tmp_path / "scores.jsonl") == rows
    assert [*rows[0], "error"] == motion.score_columns()
    assert [path.name for path in tmp_path.iterdir()] == ["scores.jsonl"]
    means = [float(str(row["mean"])) for row in sorted(rows, key=lambda row: str(row["video"])[-5:])]
    assert means == sorted(means)  # video N moves by N pixels


def test_formats_hold_the_same(tree: Path, tmp_path: Path) -> None:
    rows = motion.score_videos(tree, tmp_path / "scores.csv", SETTINGS)
    shown = read_table(tmp_path / "scores.csv")
    assert list(shown[0]) == motion.score_columns()
    for row, texts in zip(rows, shown, strict=True):
        assert texts.pop("error") == ""
        assert texts == {name: str(int(value) if isinstance(value, bool) else value) for name, value in row.items()}
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(SettingsError, match=r"scores\.parquet: Parquet needs pyarrow: pip install"):
            motion.score_videos(tree, tmp_path / "scores.parquet", SETTINGS)
        return
    from pyarrow import parquet

    motion.score_videos(tree, tmp_path / "scores.parquet", SETTINGS)
    table = parquet.read_table(tmp_path / "scores.parquet")
    assert table.to_pylist() == [{**row, "error": None} for row in rows]


def test_the_number_of_threads_changes_no_byte(tree: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        motion.score_videos(tree, tmp_path / f"{workers}.csv", SETTINGS, workers=workers)
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "3.csv").read_bytes()


def test_those_that_fail_are_listed_and_tried_again_alone(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in tree.rglob("*.avi"):
        (videos / path.name).write_bytes(path.read_bytes())
    whole = (videos / "v3.avi").read_bytes()
    (videos / "v3.avi").write_bytes(whole[:100])
    out = tmp_path / "scores.jsonl"
    with pytest.raises(ExtractionError, match=r"1 of 6 videos could not be scored: .*v3\.avi") as raised:
        motion.score_videos(videos, out, SETTINGS)
    assert len(raised.value.failures) == 1
    assert read_table(out)[3] == {"video": "v3.avi", "error": raised.value.failures[0]}
    (videos / "v3.avi").write_bytes(whole)
    (videos / "v4.avi").write_bytes(whole)  # replaced: its scores are no longer its own
    scored = counted_scores(monkeypatch)
    rows = motion.score_videos(videos, out, SETTINGS)
    assert sorted(scored) == ["v3.avi", "v4.avi"]
    assert {**rows[4], "video": "v3.avi"} == rows[3]
    assert "error" not in rows[3]
    assert not list(tmp_path.glob("*.rows"))


def counted_scores(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos that are scored from now on."""
    from twostream_ext.motion import many

    scored: list[str] = []
    score_until = many.score_until

    def counted(stop: object, video: Path, settings: MotionSettings) -> MotionScore:
        scored.append(Path(video).name)
        return score_until(stop, video, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(many, "score_until", counted)
    return scored


def broken_off(tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> Path:
    """The rows that a call leaves that is broken off after some videos."""
    from twostream_ext.motion import many

    score_until, begun = many.score_until, []

    def until(stop: object, video: Path, settings: MotionSettings) -> MotionScore:
        begun.append(video)
        if len(begun) > after:
            raise KeyboardInterrupt
        return score_until(stop, video, settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(many, "score_until", until)
        with pytest.raises(KeyboardInterrupt):
            motion.score_videos(tree, out, SETTINGS, workers=1)
    assert not out.exists()
    return out.with_name(f"{out.name}.rows")


@pytest.mark.parametrize("tail", [b"", b'{"content": "0', b"\0" * 300, b'{"content": "0", "row": {}}\n', b"[1, 2]\n"])
def test_a_call_that_was_broken_off_goes_on(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: bytes
) -> None:
    """Also where the last line was cut off, or lost with the power."""
    motion.score_videos(tree, tmp_path / "whole.csv", SETTINGS)
    out = tmp_path / "scores.csv"
    kept = broken_off(tree, out, monkeypatch, after=4)
    kept.write_bytes(kept.read_bytes() + tail)
    scored = counted_scores(monkeypatch)
    motion.score_videos(tree, out, SETTINGS)
    assert sorted(scored) == ["v3.avi", "v5.avi"]
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not kept.exists()


def test_what_was_begun_with_other_settings_is_refused(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = broken_off(tree, tmp_path / "scores.csv", monkeypatch, after=2)
    before = kept.read_bytes()
    other = MotionSettings(fps=2.0, smallest_side=None)
    with pytest.raises(SettingsError, match=r"scores\.csv\.rows: was begun with fps 6\.0, not 2\.0"):
        motion.score_videos(tree, tmp_path / "scores.csv", other)
    assert kept.read_bytes() == before


def test_two_calls_do_not_write_the_same_scores(tree: Path, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "scores.csv.rows").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match=r"scores\.csv\.rows: another process is writing these scores"):
            motion.score_videos(tree, tmp_path / "scores.csv", SETTINGS)


def test_a_command_that_is_killed_goes_on(tree: Path, tmp_path: Path) -> None:
    motion.score_videos(tree, tmp_path / "whole.csv", SETTINGS)
    out = tmp_path / "scores.csv"
    command = [sys.executable, "-m", "twostream_ext", "motion", str(tree), "--out", str(out)]
    command += ["--fps", "6", "--size", "own", "--workers", "1"]
    rows = tmp_path / "scores.csv.rows"
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:  # type: ignore[call-overload]
        until = time.monotonic() + 60
        while not (rows.exists() and rows.read_bytes().count(b"\n") > 2) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        process.kill()
    subprocess.run(command, check=True, **quiet)  # type: ignore[call-overload]
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "whole.csv"]


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_shows_a_video(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["motion", str(tree / "Class1/v3.avi"), "--fps", "own", "--size", "own"]) == 0
    head, units, line = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["video", "motion", "objects"]
    assert units.split()[0] == "px/s"
    found = motion.score(tree / "Class1/v3.avi", WHOLE)
    assert line.split()[:2] == ["v3.avi", f"{found.displacement.mean:.1f}"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["VIDEOS", "--out", "scores.txt"], 2, "scores.txt: scores are written as .csv, .jsonl, .parquet"),
        (["VIDEOS", "--out", "scores.csv", "--method", "guess"], 2, "method is 'guess'"),
        (["VIDEOS", "--out", "scores.csv", "--fps", "2000"], 2, "fps is 2000.0"),
        (["nowhere", "--out", "scores.csv"], 1, "nowhere: no such"),
        (["EMPTY", "--out", "scores.csv"], 1, "holds no videos"),
        (["VIDEOS", "--out", "nowhere/scores.csv"], 1, "nowhere/scores.csv"),
    ],
)
def test_wrong_input_is_one_line(
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"VIDEOS": str(tree), "EMPTY": "empty"}
    assert cli.main(["motion", *(places.get(each, each) for each in arguments)]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_the_data_juicer_example(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of what it takes from Data-Juicer, which no test installs."""
    registered = {}

    class Filter:
        video_key = "videos"

    class Operators:
        @staticmethod
        def register_module(name: str) -> Callable[[type], type]:
            return lambda operator: registered.setdefault(name, operator)

    base, constant = types.ModuleType("data_juicer.ops.base_op"), types.ModuleType("data_juicer.utils.constant")
    base.__dict__.update(OPERATORS=Operators, Filter=Filter)
    constant.__dict__.update(Fields=types.SimpleNamespace(stats="__dj__stats__"))
    for name in ("data_juicer", "data_juicer.ops", "data_juicer.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.setitem(sys.modules, constant.__name__, constant)
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / "data_juicer_motion.py"))
    keep = registered["video_object_motion_filter"](min_score=0.0, max_score=10.0)
    sample = keep.compute_stats_single({"videos": [str(tree / "Class1/v3.avi")], "__dj__stats__": {}})
    found = motion.score(tree / "Class1/v3.avi")
    assert sample["__dj__stats__"]["video_object_motion"] == [found.objects.mean / found.diagonal]
    assert keep.process_single(sample)
    assert not registered["video_object_motion_filter"](min_score=10.0).process_single(sample)
