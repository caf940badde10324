# SPDX-License-Identifier: BSD-3-Clause
"""`twostream predict` of windows, pipes, cameras and many videos; and the files that it writes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_runs import RECIPE, make_run
from test_raw_frames import Camera
from videos import encode_video, moving_frames

from twostream_ext import engine, media, report
from twostream_ext.cli import main
from twostream_ext.errors import SettingsError

CLASSES = ["a", "b", "c", "a class with a name, that is long"]
SIZE = (72, 96)
FRAMES = moving_frames(30, size=SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    make_run(out, CLASSES, 4, recipe=replace(RECIPE, flow_method="dis", frames=2, crops=1))
    summary = json.loads((out / "summary.json").read_text())
    summary["fusion"] = {"weights": {"spatial": 0.25, "temporal": 0.75}, "C": 10.0}
    (out / "summary.json").write_text(json.dumps(summary))
    (out / "fusion" / "svm_chosen.safetensors").write_bytes((out / "fusion" / "svm.safetensors").read_bytes())
    return out


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode_video(tmp_path_factory.mktemp("video") / "v.mkv", FRAMES, "ffv1", pixels="bgr0")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predict(model: Path, *words: object) -> int:
    return main(["predict", "--model", str(model), *map(str, words)])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_windows_of_a_file(model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same numbers as from Python, as CSV, as JSON and as a table."""
    run = engine.load_run(model)
    opened = media.open_video(video, smallest_side=72)
    expected = list(engine.Predictor(run, window=0.6, stride=0.2, fps=opened.fps).windows(opened.frames))
    assert len(expected) == 4
    windows = ("--window", "0.6", "--stride", "0.2")
    columns = ["start", "end", "class", "weighted", "average", "spatial", "temporal", "svm", "svm_chosen"]
    for name in ("answers.csv", "answers.json"):
        assert predict(model, video, *windows, "--out", tmp_path / name) == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown[0] == f"answers: {tmp_path / name}"
        assert shown[1].startswith("30 frames, ")
        assert shown[1].endswith(" frames/s")
    rows = read(tmp_path / "answers.csv")
    assert list(rows[0]) == columns
    for row, window in zip(rows, expected, strict=True):
        place = int(window.prediction.scores["weighted"].argmax())
        assert row["class"] == CLASSES[place] == window.prediction.best
        assert (float(row["start"]), float(row["end"])) == pytest.approx((window.start, window.end), abs=1e-3)
        for name, scores in window.prediction.scores.items():
            assert float(row[name]) == pytest.approx(scores[place].item(), abs=1e-4)
        assert row["svm"] == row["svm_chosen"] == CLASSES[window.prediction.svm]
    assert [
        {name: str(value) for name, value in row.items()} for row in json.loads((tmp_path / "answers.json").read_text())
    ] == rows
    assert predict(model, video, *windows) == 0
    head, *lines, _ = capsys.readouterr().out.splitlines()
    assert head.split() == columns
    assert [line.split()[:2] for line in lines] == [[f"{each.start:.2f}", f"{each.end:.2f}"] for each in expected]


def window_rows(classes: str) -> Iterator[dict[str, str | int | float]]:
    for number, name in enumerate(classes):
        yield {"start": 0.5 * number, "end": 0.5 * number + 1.0, "class": name, "average": 0.1 * number, "svm": "x"}


def test_windows_of_one_class_become_a_span() -> None:
    found: list[report.Row] = []
    spans = report.Spans(found.append)
    for row in window_rows("aabaaa"):
        spans.add(row)
    assert len(found) == 2  # each is given as soon as it has ended
    spans.end()
    spans.end()
    assert found == [
        {"start": 0.0, "end": 1.5, "class": "a", "average": 0.05, "windows": 2},
        {"start": 1.0, "end": 2.0, "class": "b", "average": 0.2, "windows": 1},
        {"start": 1.5, "end": 3.5, "class": "a", "average": 0.4, "windows": 3},
    ]


def test_spans_of_a_file(model: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "spans.csv"
    assert predict(model, video, "--window", "0.6", "--stride", "0.2", "--spans", "--out", out) == 0
    rows = read(out)
    assert list(rows[0]) == ["start", "end", "class", "weighted", "average", "spatial", "temporal", "windows"]
    assert sum(int(row["windows"]) for row in rows) == 4
    assert (rows[0]["start"], rows[-1]["end"]) == ("0.0", "1.2")


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_answers_are_whole_or_as_they_were(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    with report.answers_file(out, ["class", "score"]) as write:
        write({"class": 'a "b", ä\nc', "score": 0.5})
        write({"class": "d"})
    whole = out.read_bytes()
    if name == "a.csv":
        assert read(out) == [{"class": 'a "b", ä\nc', "score": "0.5"}, {"class": "d", "score": ""}]
    else:
        assert json.loads(whole) == [{"class": 'a "b", ä\nc', "score": 0.5}, {"class": "d"}]

    def stop() -> None:
        with report.answers_file(out, ["class", "score"]) as write:
            write({"class": "other"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert out.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [out]


def test_no_answers_are_a_list_of_none(tmp_path: Path) -> None:
    with report.answers_file(tmp_path / "a.json", ["class"]):
        pass
    assert json.loads((tmp_path / "a.json").read_text()) == []
    with pytest.raises(SettingsError, match=r"a.txt: answers are written as .csv or .json"):
        report.check_answers(tmp_path / "a.txt")


@pytest.fixture
def folder(video: Path, tmp_path: Path) -> Path:
    """Two videos, one of them under a link that leads in a circle, and two that are none."""
    root = tmp_path / "videos"
    (root / "A").mkdir(parents=True)
    (root / "A" / "v.mkv").write_bytes(video.read_bytes())
    encode_video(root / "w.mkv", FRAMES[::-1], "ffv1", pixels="bgr0")
    (root / "A" / "again").symlink_to(root)
    (root / "broken.avi").write_text("no video")
    encode_video(root / "short.mkv", FRAMES[:5], "ffv1", pixels="bgr0")
    return root


def test_all_videos_of_a_folder(model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "answers.csv"
    assert predict(model, folder, "--out", out) == 1
    line = error_line(capsys)
    assert line.startswith("twostream: error: 2 of 4 videos could not be predicted: ")
    assert line.count("broken.avi: is not a video") == 1
    rows = {row["video"]: row for row in read(out)}
    assert list(rows) == ["A/v.mkv", "broken.avi", "short.mkv", "w.mkv"]
    for name in ("A/v.mkv", "w.mkv"):
        expected = engine.predict_video(folder / name, model, progress=False)
        assert rows[name]["class"] == expected.best
        assert float(rows[name]["temporal"]) == pytest.approx(
            expected.scores["temporal"][CLASSES.index(expected.best)].item(), abs=1e-4
        )
        assert rows[name]["error"] == ""
    assert "is not a video" in rows["broken.avi"]["error"]
    assert "has 5 frames, a stack of 10 flow fields needs 11" in rows["short.mkv"]["error"]
    assert rows["short.mkv"]["class"] == ""


def test_windows_of_all_videos_of_a_folder(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "answers.csv"  # beside the videos, and again
    for _ in range(2):
        assert predict(model, folder, "--window", "0.6", "--out", out) == 1
    capsys.readouterr()
    rows = read(out)
    assert [row["video"] for row in rows] == ["A/v.mkv"] * 2 + ["broken.avi", "short.mkv"] + ["w.mkv"] * 2
    assert [row["start"] for row in rows] == ["0.0", "0.6", "", "", "0.0", "0.6"]


def test_a_folder_without_videos(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert predict(model, tmp_path / "empty") == 1
    assert "empty: holds no videos" in error_line(capsys)


def test_the_whole_of_a_video_as_a_line(model: Path, video: Path, tmp_path: Path) -> None:
    assert predict(model, video, "--out", tmp_path / "a.json") == 0
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert row["video"] == str(video)
    assert row["class"] == engine.predict_video(video, model).best


def test_a_folder_of_images_is_a_video(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By itself, from within, and in a folder of videos."""
    images = tmp_path / "videos" / "v.1"
    images.mkdir(parents=True)
    for number, frame in enumerate(FRAMES[:14], start=1):
        cv2.imwrite(str(images / f"img_{number:05}.png"), frame)
    monkeypatch.chdir(images)
    for video in (images, "."):
        assert predict(model, video) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
    assert predict(model, tmp_path / "videos", "--out", tmp_path / "a.csv") == 0
    (row,) = read(tmp_path / "a.csv")
    assert (row["video"], row["class"]) == ("v.1", shown[1].split("  ")[0].strip())


PIPE = ["--size", f"{SIZE[1]}x{SIZE[0]}", "--fps", "25", "--window", "0.6", "--stride", "0.2"]


def test_a_pipe_gives_what_the_file_gives(
    model: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And tells of a last frame that is cut short."""
    assert predict(model, video, *PIPE[4:], "--out", tmp_path / "file.csv") == 0
    capsys.readouterr()
    (tmp_path / "raw").write_bytes(b"".join(frame.tobytes() for frame in FRAMES) + b"12345")
    with (tmp_path / "raw").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert predict(model, "-", *PIPE, "--out", tmp_path / "pipe.csv") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1].startswith("30 frames, ")
    lost = "1 frame lost, first at frame 30: the pipe ends after 5 of its 20736 bytes"
    assert shown.err == f"twostream: warning: standard input: {lost}\n"
    assert (tmp_path / "pipe.csv").read_bytes() == (tmp_path / "file.csv").read_bytes()


@pytest.mark.slow
def test_an_interrupt_ends_a_pipe_with_what_is_there(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.json"
    words = ["predict", "-", "--model", model, *PIPE, "--out", out, "--annotated", tmp_path / "video.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "twostream_ext", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    for frame in FRAMES:
        process.stdin.write(frame.tobytes())
    process.stdin.flush()  # and it stays open
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".answers.json.*")):  # the first answer
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    said = process.communicate()[1]
    assert (process.returncode, said) == (0, b"")
    rows = json.loads(out.read_text())
    assert 1 <= len(rows) <= 4
    assert all(row["class"] in CLASSES for row in rows)
    assert media.open_video(tmp_path / "video.mp4").fps == 25


def test_a_camera(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which does not wait: what could not be handled is dropped and counted."""
    camera = Camera(FRAMES * 8)
    monkeypatch.setattr("twostream_ext.media.raw._capture", lambda number: camera if number == 2 else None)
    assert predict(model, "camera:2", "--window", "0.4", "--out", tmp_path / "a.csv") == 0
    words = capsys.readouterr().out.splitlines()[-1].replace(",", "").split()
    assert words[1::2][:1] == ["frames"]
    assert int(words[0]) + (int(words[4]) if "dropped" in words else 0) == 240
    assert read(tmp_path / "a.csv")[0]["start"] == "0.0"
    assert camera.is_released


def test_annotated_windows(model: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "annotated.mp4"
    for windows in (["--window", "0.6", "--stride", "0.24"], ["--window", "0.6"]):
        assert predict(model, video, *windows, "--top", "3", "--annotated", out) == 0
        frames = list(media.read_video(out, smallest_side=None))
        assert len(frames) == 29  # the last has no flow
        assert frames[0].shape == (3 * 72 + 4 * 18 + 12, 3 * 192, 3)
        for shown, frame in zip(frames, FRAMES, strict=False):
            enlarged = np.repeat(np.repeat(frame, 3, 0), 3, 1)
            assert np.abs(shown[:216, :288].astype(float) - enlarged).mean() < 12


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-"], "predict - needs --size WxH and --fps R"),
        (["-", "--size", "4x4"], "predict - needs --size WxH and --fps R"),
        (["v.mkv", "--fps", "4"], "--fps is of a pipe or a camera"),
        (["camera:0", "--size", "4x4"], "--size and --pixels are of a pipe"),
        (["v.mkv", "--stride", "1"], "--stride and --spans are of windows"),
        (["v.mkv", "--spans"], "--stride and --spans are of windows"),
        ([".", "--annotated", "a.mp4"], "--annotated is of one video"),
        (["v.mkv", "--out", "a.txt"], "a.txt: answers are written as .csv or .json"),
        (["-", "--size", "5x4", "--fps", "3", "--pixels", "yuv420p"], "expected even numbers"),
        (["v.mkv", "--window", "0.1"], "a stack of 10 flow fields needs 11"),
    ],
)
def test_options_that_do_not_go_together(
    model: Path,
    video: Path,
    words: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(video.parent)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert predict(model, *words) == 2
    assert says in error_line(capsys)


@pytest.mark.parametrize("words", ["--size 4", "--size 4x", "--fps 0", "--window nan", "--stride x"])
def test_numbers_that_are_none(model: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict(model, "v.mkv", *words.split())
    assert "expected" in capsys.readouterr().err
