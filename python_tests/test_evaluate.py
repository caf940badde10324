# SPDX-License-Identifier: BSD-3-Clause
"""Scores of videos against the protocol restated input by input, and the score files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch

from twostream_ext.data import FlowStacks, Video, VideoSet, read_batches
from twostream_ext.engine import (
    TrainSettings,
    evaluate,
    find_stream,
    load_scores,
    save_scores,
    train,
    train_batches,
    video_scores,
)
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.flow import FlowClip, FlowStore, write_flow_clip
from twostream_ext.media.frames import FrameClip, FrameStore, write_frame_clip
from twostream_ext.models import RGB_MEAN, RGB_STD, SpatialNet, StreamNet, TemporalNet, top1
from twostream_ext.ops import FlowBatch

SIDE = 57  # the smallest input
SIZE = (58, 61)  # of the generated fields and frames
NAMES = ["Run/v_a", "Run/v_b", "Walk/v_c"]
FRAMES = {"Run/v_a": 9, "Run/v_b": 5, "Walk/v_c": 40}
VIDEOS = [Video(f"{name}.avi", name, int(name.startswith("Walk"))) for name in NAMES]


class Field(NamedTuple):
    codes: npt.NDArray[np.uint8]
    lo: npt.NDArray[np.float32]
    step: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]


def blotches(random: np.random.Generator, channels: int) -> npt.NDArray[np.uint8]:
    """Coarse enough that windows and times differ in what a net sees: [*SIZE, channels]."""
    coarse = random.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))[: SIZE[0], : SIZE[1]]


def fields(random: np.random.Generator, count: int) -> Iterator[Field]:
    for _ in range(count):
        codes = blotches(random, 2)
        lo = random.uniform(-4, 0, 2).astype(np.float32)
        step = random.uniform(0.01, 0.03, 2).astype(np.float32)
        yield Field(codes, lo, step, (lo + step * codes.mean((0, 1))).astype(np.float32))


@pytest.fixture(scope="module")
def flow_store(tmp_path_factory: pytest.TempPathFactory) -> FlowStore:
    path = tmp_path_factory.mktemp("flow")
    random = np.random.default_rng(0)
    for name, count in FRAMES.items():
        write_flow_clip(
            path / f"{name}.safetensors",
            forward=fields(random, count - 1),
            backward=fields(random, count - 1),
            codec="raw",
        )
    return FlowStore.open(path)


@pytest.fixture(scope="module")
def frame_store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    path = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(1)
    for name, count in FRAMES.items():
        frames = [blotches(random, 3) for _ in range(count)]
        write_frame_clip(path / f"{name}.safetensors", frames)
    return FrameStore.open(path)


def temporal_net(**more: object) -> StreamNet:
    torch.manual_seed(0)
    net = TemporalNet(4, length=4, width=0.05, input_size=SIDE, **more)  # type: ignore[arg-type]
    return sharpened(net)


def spatial_net() -> StreamNet:
    torch.manual_seed(0)
    return sharpened(SpatialNet(4, width=0.05, input_size=SIDE))


def sharpened(net: StreamNet) -> StreamNet:
    """With scores that tell one window from another, and yet are far from 0 and 1."""
    channels = net.backbone.conv1.in_channels
    probe = torch.randn(64, channels, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        hidden = net.backbone.eval()(probe[:, :, :SIDE, :SIDE])
        head = net.fc8["default"]
        logits = hidden @ head.weight.T
        head.weight *= 1.5 / logits.std(0)[:, None]
        head.bias -= 1.5 * logits.mean(0) / logits.std(0)
    return net.train()


def crops_of(pixels: npt.NDArray[np.float64], negate_x: bool) -> Iterator[npt.NDArray[np.float64]]:
    """Corners, centre and their flips of [channels, H, W]."""
    bottom, right = SIZE[0] - SIDE, SIZE[1] - SIDE
    for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)):
        crop = pixels[:, top : top + SIDE, left : left + SIDE]
        yield crop
        flipped = crop[:, :, ::-1].copy()
        if negate_x:
            flipped[0::2] *= -1
        yield flipped


def spaced(count: int, positions: int) -> list[int]:
    """As `data.sampling` documents it: from the first position to the last."""
    return [int(at) for at in np.linspace(0, positions - 1, count).round()]


def field_pixels(clip: FlowClip, at: int, direction: str) -> npt.NDArray[np.float64]:
    """One field as [2, H, W] in pixels, without its mean."""
    codes, lo, step, _ = clip.read(at, 1, direction)
    pixels = lo[0].double().numpy() + step[0].double().numpy() * codes[0].double().numpy()
    return (pixels - pixels.mean((0, 1))).transpose(2, 0, 1)


def mean_softmax(net: StreamNet, inputs: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """One input after the other; `inputs` must be different enough for a judge."""
    net.eval()
    scores = []
    with torch.no_grad():
        for single in inputs:
            logits = net(torch.from_numpy(single[None].astype(np.float32)))[0].double().numpy()
            scores.append(np.exp(logits) / np.exp(logits).sum())
    assert np.std(scores, axis=0).max() > 0.05
    return np.mean(scores, axis=0)


@pytest.mark.parametrize(("name", "frames"), [("Run/v_a", 7), ("Walk/v_c", 3), ("Run/v_b", 2)])
def test_forward_stacks(flow_store: FlowStore, name: str, frames: int) -> None:
    net, clip = temporal_net(), flow_store[name]
    inputs = []
    for start in spaced(frames, FRAMES[name] - 4):
        stack = np.concatenate([field_pixels(clip, start + k, "forward") for k in range(4)])
        inputs += list(crops_of(stack, negate_x=True))
    expected = mean_softmax(net, inputs)
    np.testing.assert_allclose(video_scores(net, clip, frames=frames), expected, atol=2e-5)


@pytest.mark.parametrize(("name", "frames"), [("Run/v_a", 5), ("Walk/v_c", 2), ("Run/v_b", 1)])
def test_bidirectional_stacks(flow_store: FlowStore, name: str, frames: int) -> None:
    """d_tau, d_tau+1, b_tau, b_tau-1 for every tau where all four exist."""
    net, clip = temporal_net(bidirectional=True), flow_store[name]
    inputs = []
    for start in spaced(frames, FRAMES[name] - 4):
        tau = 2 + start
        stack = np.concatenate(
            [
                field_pixels(clip, tau, "forward"),
                field_pixels(clip, tau + 1, "forward"),
                field_pixels(clip, tau, "backward"),
                field_pixels(clip, tau - 1, "backward"),
            ]
        )
        inputs += list(crops_of(stack, negate_x=True))
    expected = mean_softmax(net, inputs)
    np.testing.assert_allclose(video_scores(net, clip, frames=frames), expected, atol=2e-5)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of inputs of each pass through a net."""
    found: list[int] = []
    inner = StreamNet._classify

    def noting(net: StreamNet, hidden: torch.Tensor, dataset: str | None) -> torch.Tensor | dict[str, torch.Tensor]:
        found.append(len(hidden))
        return inner(net, hidden, dataset)

    monkeypatch.setattr(StreamNet, "_classify", noting)
    return found


def one_by_one(net: StreamNet, clip: FlowClip | FrameClip, frames: int) -> torch.Tensor:
    """The scores by whole passes through the net, a window each."""
    stream = find_stream(net.settings.stream)
    inputs = stream.inputs(net.settings)
    places = spaced(frames, inputs.count(clip))
    views = stream.views(inputs.read([clip] * frames, places, 1), settings=net.settings, crops=10).flatten(0, 1)
    with torch.no_grad():
        return torch.cat([net.eval()(view[None]).softmax(1) for view in views]).double().mean(0).float()


def test_first_layers_are_shared_by_the_windows_where_that_changes_nothing(
    flow_store: FlowStore, frame_store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of a net with a mean image, nor of a stream of which it is not known."""
    image = spatial_net()
    image.backbone.mean_image = 0.5 * torch.randn(3, SIDE, SIDE)
    shared: list[int] = []
    inner = StreamNet.from_stem
    monkeypatch.setattr(StreamNet, "from_stem", lambda *given: (shared.append(1), inner(*given))[1])
    trajectories = temporal_net(input="trajectory", subtract="none")
    for net, clip, shares in (
        (temporal_net(), flow_store["Run/v_a"], True),
        (trajectories, flow_store["Run/v_a"], True),
        (spatial_net(), frame_store["Run/v_a"], True),
        (image, frame_store["Run/v_a"], False),
    ):
        shared.clear()
        expected = one_by_one(net, clip, 2)
        torch.testing.assert_close(video_scores(net, clip, frames=2), expected, rtol=0, atol=1e-5)
        assert bool(shared) == shares
    monkeypatch.setattr(type(find_stream("temporal")), "cuts_alike", False)
    shared.clear()
    net = temporal_net()
    found = video_scores(net, flow_store["Run/v_a"], frames=2)
    torch.testing.assert_close(found, one_by_one(net, flow_store["Run/v_a"], 2), rtol=0, atol=1e-5)
    assert not shared


def test_a_place_that_is_taken_several_times_is_scored_once(flow_store: FlowStore, passes: list[int]) -> None:
    """25 inputs of a video with 5 places, and of one with a single place.

    That places which come more often count more is in `test_forward_stacks`, where 7 of 5 are taken.
    """
    net = temporal_net()
    for name, places in (("Run/v_a", 5), ("Run/v_b", 1)):
        passes.clear()
        found = video_scores(net, flow_store[name], frames=25)
        assert sum(passes) == 10 * places
    torch.testing.assert_close(found, video_scores(net, flow_store["Run/v_b"], frames=1), rtol=0, atol=1e-6)


def test_a_pass_on_the_cpu_takes_memory_that_is_used_again(flow_store: FlowStore, passes: list[int]) -> None:
    """Less than 24 MiB of inputs, or as on a GPU where not even the windows of one input fit."""
    net = temporal_net()
    for size, expected in ((SIDE, 60), (170, 20), (400, 60)):
        settings = replace(net.settings, input_size=size)
        assert 10 * evaluate.__globals__["inputs_per_pass"](settings, 10, torch.device("cpu")) == expected
        assert 10 * evaluate.__globals__["inputs_per_pass"](settings, 10, torch.device("cuda")) == 60
    video_scores(net, flow_store["Walk/v_c"], frames=25)
    assert passes == [60, 60, 60, 60, 10]


def test_frames(frame_store: FrameStore) -> None:
    net, clip = spatial_net(), frame_store["Walk/v_c"]
    inputs = []
    for at in spaced(6, 40):
        pixels = (clip.read(at).astype(np.float64) - RGB_MEAN) / RGB_STD
        inputs += list(crops_of(pixels.transpose(2, 0, 1), negate_x=False))
    expected = mean_softmax(net, inputs)
    np.testing.assert_allclose(video_scores(net, clip, frames=6), expected, atol=2e-5)


def test_the_centre_alone(frame_store: FrameStore) -> None:
    net, clip = spatial_net(), frame_store["Run/v_b"]
    inputs = []
    for at in range(5):
        pixels = (clip.read(at).astype(np.float64) - RGB_MEAN) / RGB_STD
        inputs.append(list(crops_of(pixels.transpose(2, 0, 1), negate_x=False))[8])
    expected = mean_softmax(net, inputs)
    scores = video_scores(net, clip, frames=5, crops=1)
    np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_videos_are_scored_in_their_order_and_alike_each_time(
    flow_store: FlowStore, capfd: pytest.CaptureFixture[str]
) -> None:
    net = temporal_net()
    videos = VIDEOS[::-1] + VIDEOS
    scores = evaluate(net, VideoSet(videos, flow=flow_store), frames=25)
    assert scores.shape == (6, 4)
    assert scores.dtype == torch.float32
    assert torch.equal(scores[:3].flip(0), scores[3:])
    assert torch.equal(scores, evaluate(net, VideoSet(videos, flow=flow_store), frames=25))
    assert torch.equal(scores[0], video_scores(net, flow_store["Walk/v_c"]))
    torch.testing.assert_close(scores.sum(1), torch.ones(6))
    assert len({tuple(row) for row in scores.tolist()}) == 3
    assert capfd.readouterr().err == ""


def test_the_net_is_left_in_its_mode_and_scores_are_ordinary_tensors(
    frame_store: FrameStore,
) -> None:
    for training in (True, False):
        net = spatial_net().train(training)
        scores = video_scores(net, frame_store["Run/v_a"], frames=2)
        assert net.training is training
        assert not scores.is_inference()
        assert not scores.requires_grad


def test_an_error_leaves_the_net_in_its_mode(frame_store: FrameStore) -> None:
    net = spatial_net().train()
    del net.fc8["default"]
    net.fc8["default"] = torch.nn.Linear(1, 4)  # of another size than what comes into it
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes"):
            video_scores(net, frame_store["Run/v_a"], frames=2)
        assert net.training
        assert net.backbone.training


def test_what_cannot_be_scored_names_the_video(flow_store: FlowStore, frame_store: FrameStore) -> None:
    long = TemporalNet(4, length=8, width=0.05, input_size=SIDE)
    with pytest.raises(SettingsError, match=r"Run/v_b: has 5 frames.* 8 flow fields needs 9"):
        evaluate(long, VideoSet(VIDEOS, flow=flow_store))
    large = TemporalNet(4, length=4, width=0.05, input_size=64)
    with pytest.raises(SettingsError, match=r"Run/v_a: .*61x58 pixels.*smaller.*64x64"):
        video_scores(large, flow_store["Run/v_a"])
    with pytest.raises(SettingsError, match="Run/v_a: the spatial net reads frames, got a clip of flow"):
        video_scores(spatial_net(), flow_store["Run/v_a"])
    with pytest.raises(SettingsError, match="Run/v_a: the temporal net reads flow, got a clip of frames"):
        video_scores(temporal_net(), frame_store["Run/v_a"])
    with pytest.raises(SettingsError, match="there are no videos"):
        evaluate(temporal_net(), VideoSet([], flow=flow_store))
    with pytest.raises(SettingsError, match=r"temporal net reads flow.*no flow store"):
        evaluate(temporal_net(), VideoSet(VIDEOS, frames=frame_store))
    with pytest.raises(SettingsError, match=r"spatial net reads frames.*no frame store"):
        evaluate(spatial_net(), VideoSet(VIDEOS, flow=flow_store))
    with pytest.raises(SettingsError, match="frames must be at least 1, got 0"):
        video_scores(temporal_net(), flow_store["Run/v_a"], frames=0)
    with pytest.raises(SettingsError, match="crops must be 1 or 10, got 3"):
        video_scores(temporal_net(), flow_store["Run/v_a"], crops=3)


@pytest.fixture(scope="module")
def motion_store(tmp_path_factory: pytest.TempPathFactory) -> FlowStore:
    """Two classes: patches that move right and left by turns, or down and up."""
    path = tmp_path_factory.mktemp("motion")
    random = np.random.default_rng(2)
    for label, name in enumerate(("Across", "Along")):
        for number in range(4):
            moving = []
            for _ in range(6):
                codes = np.full((*SIZE, 2), 128, np.uint8)
                codes[..., label] = blotches(random, 1)[..., 0]
                lo, step = np.full(2, -2, np.float32), np.full(2, 1 / 64, np.float32)
                mean = (lo + step * codes.mean((0, 1))).astype(np.float32)
                moving.append(Field(codes, lo, step, mean))
            clip = path / name / f"v_{number}.safetensors"
            write_flow_clip(clip, forward=moving, backward=moving[::-1])
    return FlowStore.open(path)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_from_a_store_through_a_broken_training_to_scores(
    motion_store: FlowStore, tmp_path: Path, bidirectional: bool
) -> None:
    videos = [Video(f"{name}.avi", name, int("Along" in name)) for name in motion_store]
    settings = TrainSettings(iterations=40, batch_size=16, checkpoint_every=15, seed=1)

    def new_net() -> TemporalNet:
        torch.manual_seed(3)
        return TemporalNet(2, length=4, width=0.1, input_size=SIDE, dropout=0.2, bidirectional=bidirectional)

    data = VideoSet(videos, flow=motion_store)

    def run(net: StreamNet, name: str, end: int) -> None:
        def batches(start: int) -> Iterator[tuple[FlowBatch, torch.Tensor]]:
            return read_batches(
                motion_store,
                videos,
                FlowStacks(4, bidirectional),
                batch_size=settings.batch_size,
                iterations=end,
                start_iteration=start,
                seed=settings.seed,
                workers=1,
            )

        prepare = partial(find_stream("temporal").training_input, settings=net.settings)
        train_batches(net, batches, prepare=prepare, settings=settings, out_dir=tmp_path / name)

    whole, broken, resumed = new_net(), new_net(), new_net()
    train(whole, data, settings=settings, out_dir=tmp_path / "whole", workers=0)
    with pytest.raises(SettingsError, match="ended after 17 of 40"):
        run(broken, "broken", 17)
    run(resumed, "broken", 40)
    assert all(torch.equal(p, resumed.get_parameter(name)) for name, p in whole.named_parameters())
    scores = evaluate(resumed, data, frames=2)
    assert top1(scores, torch.tensor([video.label for video in videos])) == 1.0


def test_score_files_keep_names_labels_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    labels = torch.tensor([0, 0, 1])
    scores = torch.rand(3, 2)
    save_scores(path, NAMES, labels, scores)
    again = load_scores(path)
    assert again.names == NAMES
    assert torch.equal(again.labels, labels)
    assert torch.equal(again.scores, scores)
    assert [file.name for file in tmp_path.iterdir()] == ["scores.safetensors"]


def test_score_files_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    with pytest.raises(CheckpointError, match=r"2 names, labels \[3\] and scores \[3, 2\]"):
        save_scores(path, NAMES[:2], torch.arange(3), torch.rand(3, 2))
    assert not path.exists()
    with pytest.raises(CheckpointError, match=r"scores\.safetensors: cannot be read"):
        load_scores(path)
    save_scores(path, NAMES, torch.arange(3), torch.rand(3, 2))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"scores\.safetensors: cannot be read"):
        load_scores(path)
