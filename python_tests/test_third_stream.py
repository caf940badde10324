# SPDX-License-Identifier: BSD-3-Clause
"""A stream of one's own is one class: here the RGB difference of neighbouring frames, trained, tested and commanded."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from twostream_ext import engine, ops
from twostream_ext.cli import main
from twostream_ext.data import FrameRuns, Video, VideoSet
from twostream_ext.engine import RECIPES, Stream, TrainSettings, register_stream, streams
from twostream_ext.errors import SettingsError
from twostream_ext.media import FrameBatch, FrameClip, FrameStore, write_frame_clip
from twostream_ext.models import NetSettings, StreamNet, TemporalInput, build_net, top1

LENGTH = 3  # differences in an input
SIDE = 57
SIZE = (60, 66)
CLASSES = ["brighter", "darker"]
VIDEOS = [Video(f"{name}/{n}.avi", f"{name}/{n}", label) for label, name in enumerate(CLASSES) for n in range(3)]


class DifferenceStream(Stream[FrameClip, FrameBatch]):
    """Inputs are LENGTH differences of neighbouring frames, [N, 3 * length, size, size]."""

    name = "rgb_difference"
    reads = "frames"
    trained_as = "temporal"

    def new_net(self, classes: int, temporal_input: TemporalInput, **common: Any) -> StreamNet:
        length = temporal_input.length
        settings = {"backbone": "cnn_m_2048", **common, "channels": 3 * length, "takes_flow": False, "length": length}
        return build_net(NetSettings(self.name, {"default": classes}, **settings))

    def inputs(self, settings: NetSettings) -> FrameRuns:
        return FrameRuns(settings.length + 1)

    def cut(self, batch: FrameBatch, windows: Tensor, size: int | tuple[int, int], settings: NetSettings) -> Tensor:
        each = windows.repeat_interleave(batch.length, 0)
        frames = ops.crop_frames(batch.frames, each, size, mean=(0, 0, 0), std=(32, 32, 32))
        differences = frames.unflatten(0, (-1, batch.length)).diff(dim=1)  # [N, L, (K,) 3, size, size]
        return differences.movedim(1, -4).flatten(-4, -3)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test; with a recipe of a smaller net."""
    monkeypatch.setattr(streams, "_streams", dict(streams._streams))
    register_stream(DifferenceStream())
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], input_size=SIDE, width=0.05))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists, empty files for videos, and their frames: pictures of noise that get brighter, or darker."""
    root = tmp_path_factory.mktemp("videos")
    noise = np.random.default_rng(0)
    for video in VIDEOS:
        picture = np.kron(noise.integers(80, 170, (8, 8, 3)), np.ones((8, 9, 1), int))[: SIZE[0], : SIZE[1]]
        ramp = np.arange(-4, 5) * (8 if video.label == 0 else -8)
        write_frame_clip(
            root / "frames" / f"{video.name}.safetensors", [(picture + value).astype(np.uint8) for value in ramp]
        )
        (root / video.path).parent.mkdir(exist_ok=True)
        (root / video.path).touch()
    (root / "classInd.txt").write_text("".join(f"{n + 1} {name}\n" for n, name in enumerate(CLASSES)))
    for part in ("train", "test"):
        (root / f"{part}list01.txt").write_text("".join(f"{video.path} {video.label + 1}\n" for video in VIDEOS))
    return root


def new_net() -> StreamNet:
    return engine.new_net(replace(RECIPES["demo"], length=LENGTH), "rgb_difference", len(CLASSES), seed=1)


def test_an_input_is_what_the_stream_says(folder: Path) -> None:
    clip = FrameStore.open(folder / "frames")["darker/1"]
    stream = engine.find_stream("rgb_difference")
    settings = new_net().settings
    inputs = stream.inputs(settings)
    assert inputs.count(clip) == 9 - LENGTH
    batch = inputs.read([clip, clip], [0, 4], threads=1)
    windows = torch.tensor([[1, 2, 0], [3, 9, 1]], dtype=torch.int32)
    cut = stream.cut(batch, windows, SIDE, settings)
    assert cut.shape == (2, 3 * LENGTH, SIDE, SIDE)
    frames = [clip.read(at)[3 : 3 + SIDE, 9 : 9 + SIDE][:, ::-1].astype(np.float64) for at in range(4, 8)]
    expected = [(after - before).transpose(2, 0, 1) / 32 for before, after in pairwise(frames)]
    np.testing.assert_allclose(cut[1], np.concatenate(expected), atol=1e-5)
    views = stream.views(batch, settings=settings, crops=10)
    assert views.shape == (2, 10, 3 * LENGTH, SIDE, SIDE)
    assert torch.equal(views[:, 4], stream.views(batch, settings=settings, crops=1)[:, 0])


def test_it_is_trained_saved_and_tested(folder: Path, tmp_path: Path) -> None:
    videos = VideoSet(VIDEOS, frames=FrameStore.open(folder / "frames"))
    net = new_net()
    assert net.backbone.conv1.in_channels == 3 * LENGTH
    settings = TrainSettings(iterations=25, batch_size=8, learning_rate=0.02)
    engine.train(net, videos, settings=settings, out_dir=tmp_path / "run", workers=1)
    engine.save_model(tmp_path / "model.safetensors", net, CLASSES)
    again = engine.load_model(tmp_path / "model.safetensors").net
    assert again.settings == net.settings
    scores = engine.evaluate(again, videos, frames=4, crops=1)
    torch.testing.assert_close(scores, engine.evaluate(net, videos, frames=4, crops=1), rtol=1e-5, atol=1e-6)
    assert top1(scores, videos.labels) == 1.0
    with pytest.raises(SettingsError, match="the rgb_difference net reads frames; no frame store was given"):
        engine.evaluate(again, VideoSet(VIDEOS), frames=4)


def test_the_command_knows_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = ["--videos", str(folder), "--lists", str(folder), "--frames", str(folder / "frames")]
    numbers = ["--recipe", "demo", "--iterations", "4", "--batch-size", "4", "--length", str(LENGTH), "--workers", "0"]
    assert main(["train", "rgb_difference", *sources, "--out", str(tmp_path), *numbers]) == 0
    assert "rgb_difference net, 2 classes, 6 videos" in capsys.readouterr().out
    model, scores = tmp_path / "model.safetensors", tmp_path / "scores.safetensors"
    numbers = ["--frames-per-video", "2", "--crops", "1"]
    assert main(["evaluate", "--model", str(model), *sources, "--out", str(scores), *numbers]) == 0
    videos = VideoSet(VIDEOS, frames=FrameStore.open(folder / "frames"))
    expected = engine.evaluate(engine.load_model(model).net, videos, frames=2, crops=1)
    assert torch.equal(engine.load_scores(scores).scores, expected)


def test_names_are_told_apart(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="stream 'rgb_difference' is registered already"):
        register_stream(DifferenceStream())
    sources = ["--videos", str(folder), "--lists", str(folder), "--out", str(tmp_path)]
    assert main(["train", "audio", *sources]) == 2
    assert f"stream is 'audio', expected one of {', '.join(streams._streams)}\n" in capsys.readouterr().err
