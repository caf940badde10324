# SPDX-License-Identifier: BSD-3-Clause
"""Predictions window by window: the same answers from a store, a file, a pipe and frames pushed one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import RECIPE, make_run
from videos import Frame, encode_video, moving_frames

from twostream_ext import engine
from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.flow import METHODS, ClipFlow
from twostream_ext.media import open_raw, open_video

CLASSES = ["a", "b", "c", "d"]
SIZE = (80, 96)  # larger than the run's frames, whose smallest side is 72
FPS = 25
FEW = replace(RECIPE, frames=3)
KINDS = {
    "forward": FEW,
    "bidirectional trajectories": replace(FEW, bidirectional=True, input="trajectory", length=4),
}


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> engine.FinishedRun:
    return load(tmp_path_factory.mktemp("run"), KINDS[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> engine.FinishedRun:
    return load(tmp_path_factory.mktemp("run"), replace(FEW, flow_method="dis"))


def load(folder: Path, recipe: engine.Recipe) -> engine.FinishedRun:
    make_run(folder, CLASSES, 4, recipe=recipe)
    return engine.load_run(folder)


def video(folder: Path, frames: list[Frame], name: str = "video") -> Path:
    """A file of exactly these pixels."""
    return encode_video(folder / f"{name}.mkv", frames, "ffv1", pixels="bgr0", fps=FPS)


def assert_same_scores(one: engine.Prediction, other: engine.Prediction) -> None:
    assert one.scores.keys() == other.scores.keys()
    for name, scores in one.scores.items():
        assert torch.equal(scores, other.scores[name]), name
    assert (one.svm, one.svm_chosen) == (other.svm, other.svm_chosen)


def assert_same(ours: list[engine.Window], theirs: list[engine.Window]) -> None:
    assert [(each.first, each.frames.size) for each in ours] == [(each.first, each.frames.size) for each in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.002)  # .mkv has milliseconds
        assert_same_scores(one.prediction, other.prediction)


def test_a_window_is_answered_as_a_video_of_its_frames(run: engine.FinishedRun, tmp_path: Path) -> None:
    """Whose flow and frames went through a store, as those did that the nets were trained on."""
    frames = moving_frames(23, size=SIZE)
    opened = open_video(video(tmp_path, frames), smallest_side=72)
    predictor = engine.Predictor(run, window=14 / FPS, stride=8 / FPS, fps=opened.fps)
    windows = list(predictor.windows(opened.frames))
    assert [window.first for window in windows] == [0, 8, 9]  # the last ends with the video
    for window in windows[1:]:
        alone = video(tmp_path, frames[window.first : window.first + 14], f"from {window.first}")
        assert_same_scores(window.prediction, engine.predict_video(alone, run, progress=False))
        assert window.start == pytest.approx(window.first / FPS, abs=0.002)
        assert window.end == pytest.approx((window.first + 14) / FPS, abs=0.002)


@pytest.mark.parametrize(("codec", "pixels", "raw"), [("ffv1", "bgr0", "rgb24"), ("libx264", "yuv420p", "yuv420p")])
def test_a_file_and_its_frames_from_a_pipe_give_the_same(
    plain: engine.FinishedRun, tmp_path: Path, codec: str, pixels: str, raw: str
) -> None:
    path = encode_video(tmp_path / "video.mkv", moving_frames(30, size=SIZE), codec, pixels=pixels, fps=FPS)
    assert len(from_file_and_pipe(plain, path, raw, tmp_path)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["carphone_pristine.mp4", "bikes.mp4"])
def test_a_real_clip_and_its_frames_from_a_pipe_give_the_same(
    plain: engine.FinishedRun, real_clips: Path, tmp_path: Path, name: str
) -> None:
    assert len(from_file_and_pipe(plain, real_clips / name, "yuv420p", tmp_path)) > 15


def from_file_and_pipe(run: engine.FinishedRun, path: Path, pixels: str, folder: Path) -> list[engine.Window]:
    """The windows of both, which are the same."""
    windows = []
    (folder / "pipe").write_bytes(b"".join(raw_frames(path, pixels)))
    from_file = open_video(path, smallest_side=72)
    with (folder / "pipe").open("rb", buffering=0) as file:
        piped = open_raw(file, size=from_file.source_size, fps=from_file.fps, pixels=pixels, smallest_side=72)
        for opened in (piped, from_file):
            predictor = engine.Predictor(run, window=0.5, stride=0.2, fps=opened.fps)
            windows.append(list(predictor.windows(engine.read_pixels(opened))))
            assert not opened.damage
    assert_same(*windows)
    return windows[0]


def raw_frames(path: Path, pixels: str) -> Iterator[bytes]:
    """The frames of a file as `ffmpeg -f rawvideo` writes them."""
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format=pixels).tobytes()


def test_frames_that_are_pushed_give_what_their_file_gives(plain: engine.FinishedRun, tmp_path: Path) -> None:
    frames = moving_frames(22, size=SIZE)
    opened = open_video(video(tmp_path, frames), smallest_side=72)
    from_file = list(engine.Predictor(plain, window=0.6, stride=0.2, fps=FPS).windows(opened.frames))
    predictor = engine.Predictor(plain, window=0.6, stride=0.2, fps=FPS)
    pushed = [predictor.push(frame) for frame in frames]
    assert [number for number, window in enumerate(pushed) if window is not None] == [14, 19]
    last = predictor.finish()
    assert last is not None
    assert predictor.finish() is None  # it was given
    assert_same([*filter(None, pushed), last], from_file)


def test_the_times_that_are_given_are_those_of_windows(plain: engine.FinishedRun) -> None:
    """As of a camera, which has let a second pass between two frames."""
    predictor = engine.Predictor(plain, window=12 / FPS, fps=FPS)
    times = [7 + number / FPS + (number > 5) for number in range(12)]
    *none, window = [predictor.push(frame, time) for frame, time in zip(moving_frames(12), times, strict=True)]
    assert not any(none)
    assert (window.start, window.end) == pytest.approx((0, 12 / FPS + 1))


def test_each_field_is_estimated_once(plain: engine.FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = []

    def still(frames: torch.Tensor, device: torch.device, backward: bool) -> ClipFlow:
        pairs.append(frames.numpy().copy())
        return ClipFlow(torch.ones(len(frames) - 1, *frames.shape[1:], 2), None)

    monkeypatch.setitem(METHODS, "dis", METHODS["dis"]._replace(estimate=still))
    frames = moving_frames(40, size=(72, 80))
    predictor = engine.Predictor(plain, window=0.8, stride=0.04, fps=FPS)
    assert len(list(predictor.windows(frames))) == 21
    assert len(pairs) == 39
    assert all(len(pair) == 2 for pair in pairs)
    assert all(np.array_equal(one[1], other[0]) for one, other in itertools.pairwise(pairs))


def test_no_more_than_a_window_is_kept(plain: engine.FinishedRun) -> None:
    predictor = engine.Predictor(plain, window=12 / FPS, stride=12 / FPS, fps=FPS)
    for frame in moving_frames(12, size=(72, 80)) * 4:
        predictor.push(frame)
    assert predictor.frame_count == 48
    assert len(predictor._ring) == 12


def test_a_video_shorter_than_a_window_is_one(plain: engine.FinishedRun) -> None:
    frames = moving_frames(13, size=(72, 80))
    (window,) = engine.Predictor(plain, window=10, fps=FPS).windows(frames)
    assert (window.first, window.start, window.end) == (0, 0, 13 / FPS)
    with pytest.raises(SettingsError, match="v: has 8 frames, a stack of 10 flow fields needs 11"):
        list(engine.Predictor(plain, window=10, fps=FPS, name="v").windows(frames[:8]))
    with pytest.raises(VideoError, match="v: has 1 frame, flow needs at least 2"):
        list(engine.Predictor(plain, window=10, fps=FPS, name="v").windows(frames[:1]))
    with pytest.raises(VideoError, match="v: there are no frames"):
        list(engine.Predictor(plain, window=10, fps=FPS, name="v").windows([]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"window": 0.4}, "window is 0.4 s, 10 frames at 25 frames per second; a stack of 10 flow fields needs 11"),
        ({"window": 2, "stride": 3}, "stride is 3 s, expected at most the window of 2 s"),
        ({"window": 2, "stride": 0}, "stride is 0, expected a number above 0"),
        ({"window": float("nan")}, "window is nan, expected a number above 0"),
        ({"window": 1e300}, "window is 1e.300, expected a number above 0"),
        ({"fps": -1}, "fps is -1, expected a number above 0"),
    ],
)
def test_windows_that_cannot_be(plain: engine.FinishedRun, settings: dict[str, float], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        engine.Predictor(plain, **settings)


def test_frames_that_cannot_be(plain: engine.FinishedRun) -> None:
    predictor = engine.Predictor(plain)
    with pytest.raises(SettingsError, match=r"a frame is float64 \[72, 80, 3\], expected uint8 \[H, W, 3\]"):
        predictor.push(np.zeros((72, 80, 3)))  # type: ignore[arg-type]
    predictor.push(np.zeros((72, 80, 3), np.uint8))
    with pytest.raises(SettingsError, match=r"frames of \[72, 80, 3\] became \[80, 72, 3\]"):
        predictor.push(np.zeros((80, 72, 3), np.uint8))
