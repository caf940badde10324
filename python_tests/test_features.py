# SPDX-License-Identifier: BSD-3-Clause
"""Vectors of windows: their values beside a plain loop, every layout, what is done twice, broken off or wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from i3d_files import forward, make_weights
from made_runs import RECIPE, make_run
from test_timm_backbone import stand_in  # noqa: F401  a fixture
from torch import Tensor, nn
from videos import encode_video, moving_frames, write_video

from twostream_ext import engine
from twostream_ext.cli import main
from twostream_ext.engine import read_pixels, window_nets
from twostream_ext.engine.window_features import Windows, vectors_of
from twostream_ext.errors import (
    CheckpointError,
    DamagedVideoWarning,
    ExtractionError,
    ReplacedVideoWarning,
    SettingsError,
    VideoError,
)
from twostream_ext.extraction import extract
from twostream_ext.flow import FlowStore, estimate_flow
from twostream_ext.media import Damage, FrameStore, OpenVideo, read_video
from twostream_ext.models import (
    RGB_MEAN,
    RGB_STD,
    BackboneSettings,
    SpatialNet,
    StreamNet,
    backbones,
    register_backbone,
)

CLASSES = list("abcde")
SIDE = 72  # of the frames, whose other side is 96
INPUT = 64
STACK = 4  # flow fields

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    make_run(out, CLASSES, 5, recipe=replace(RECIPE, flow_method="dis", length=STACK))
    return out


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of more frames than two stretches, of two windows, of one window, of one frame less."""
    root = tmp_path_factory.mktemp("videos")
    for name, count in (("A/long", 45), ("A/b.v2", 12), ("B/one", 8), ("B/short", 7)):
        frames = moving_frames(count, size=(SIDE, 96), seed=count)
        encode_video(root / f"{name}.mkv", frames, "ffv1", pixels="bgr0")
    return root


NUMBERS = {"window": 8, "stride": 3}


# ---- the plain loop -------------------------------------------------------------------------------------------------


def ten_crops(height: int, width: int, size: int) -> list[tuple[int, int, bool]]:
    bottom, right = height - size, width - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return [(top, left, flip) for flip in (False, True) for top, left in places]


def cut(picture: Array, crops: int, size: int) -> Array:
    """[..., H, W, C] -> [crops, ..., size, size, C]; the order of the crops is ours."""
    height, width = picture.shape[-3:-1]
    places = ten_crops(height, width, size)
    cuts = []
    for top, left, flip in places if crops == 10 else places[4:5]:
        part = picture[..., top : top + size, left : left + size, :]
        cuts.append(part[..., ::-1, :] if flip else part)
    return np.stack(cuts)


def mirrored(fields: Array, crops: int) -> Array:
    """[crops, ..., h, w, 2], of which the last five have their x turned round."""
    turned = fields.copy()
    if crops == 10:
        turned[5:, ..., 0] *= -1
    return turned


def layer_of(net: StreamNet, x: Array, layer: str) -> Array:
    with torch.no_grad():
        values = torch.from_numpy(np.ascontiguousarray(x))
        for name, part in net.backbone.named_children():
            values = part(values)
            if name == "relu6" and layer == "fc6":
                return values.numpy()
        if layer == "fc7":
            return values.numpy()
        logits = values @ net.fc8["default"].weight.T + net.fc8["default"].bias
        return (logits.exp() / logits.exp().sum(1, keepdim=True)).numpy()


def frame_vectors(root: Path, name: str, net: StreamNet, crops: int, layer: str, store: Path) -> Array:
    """[frames, crops, D], of the frames in a store."""
    clip = FrameStore.open(store / "frames")[name]
    frames = [(clip.read(index) - np.float32(RGB_MEAN)) / np.float32(RGB_STD) for index in range(len(clip))]
    return np.stack([layer_of(net, cut(each, crops, INPUT).transpose(0, 3, 1, 2), layer) for each in frames])


def stack_vectors(root: Path, name: str, net: StreamNet, crops: int, layer: str, store: Path) -> Array:
    """[frames - STACK, crops, D], of the stacks in a store."""
    clip = FlowStore.open(store / "flow")[name]
    fields = [clip.displacement(number) - np.asarray(clip.read(number, 1).mean) for number in range(clip.length())]
    vectors = []
    for first in range(len(fields) - STACK + 1):
        stack = mirrored(cut(np.stack(fields[first : first + STACK]), crops, INPUT), crops)
        vectors.append(layer_of(net, stack.transpose(0, 1, 4, 2, 3).reshape(-1, 2 * STACK, INPUT, INPUT), layer))
    return np.stack(vectors)


def windows_of(items: Array, covered: int, frames: int, window: int, stride: int, pad: bool) -> Array:
    """Means over the items of each window, of items of `covered` frames, [T, crops, D]."""
    firsts = range(-(window // 2), frames - window // 2, stride) if pad else range(0, frames - window + 1, stride)
    means = []
    for first in firsts:
        places = np.arange(first, first + window - covered + 1).clip(0, len(items) - 1)
        means.append(items[places].mean(0))
    return np.stack(means)


@pytest.fixture(scope="module")
def store(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flow and frames as the run would store them."""
    root = tmp_path_factory.mktemp("store")
    extract(videos, root / "flow", method="dis", smallest_side=SIDE, frames_out=root / "frames", progress=False)
    return root


def vectors(video: Path, nets: engine.FeatureNets, **numbers: Any) -> Array:
    return np.stack([each.vectors.numpy() for each in engine.window_features(video, nets, **numbers)])


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize(("layer", "crops"), [("fc7", 10), ("fc6", 1), ("scores", 1)])
def test_a_run_gives_the_means_of_a_plain_loop(
    run: Path, videos: Path, store: Path, layer: str, crops: int, pad: bool
) -> None:
    """Both nets, one after the other, of inputs cut from the stores that the run would make of the video."""
    nets = engine.load_feature_nets(run, layer=layer)
    frames = len(FrameStore.open(store / "frames")["A/long"])
    spatial, temporal = (engine.load_model(run / name / "model.safetensors").net for name in ("spatial", "temporal"))
    each = [
        windows_of(frame_vectors(videos, "A/long", spatial, crops, layer, store), 1, frames, 8, 3, pad),
        windows_of(stack_vectors(videos, "A/long", temporal, crops, layer, store), STACK + 1, frames, 8, 3, pad),
    ]
    found = vectors(videos / "A/long.mkv", nets, crops=crops, pad=pad, **NUMBERS)
    assert len(found) == (15 if pad else 13)
    np.testing.assert_allclose(found, np.concatenate(each, 2), rtol=1e-4, atol=1e-5)
    for name, expected in zip(("spatial", "temporal"), each, strict=True):
        alone = engine.load_feature_nets(run, layer=layer, stream=name)
        np.testing.assert_array_equal(
            vectors(videos / "A/long.mkv", alone, crops=crops, pad=pad, **NUMBERS),
            found[:, :, : expected.shape[2]] if name == "spatial" else found[:, :, -expected.shape[2] :],
        )


def test_windows_are_numbered_by_their_first_frames(run: Path, videos: Path) -> None:
    nets = engine.load_feature_nets(run, stream="spatial")

    def firsts(name: str, **numbers: Any) -> list[int]:
        return [each.first for each in engine.window_features(videos / name, nets, **numbers)]

    assert firsts("B/one.mkv", **NUMBERS) == [0]
    assert firsts("A/b.v2.mkv", **NUMBERS) == [0, 3]
    assert firsts("A/b.v2.mkv", window=2, stride=5) == [0, 5, 10]
    assert firsts("A/b.v2.mkv", window=5, stride=4, pad=True) == [-2, 2, 6]
    assert firsts("B/short.mkv", pad=True, **NUMBERS) == [-4, -1, 2]


class Numbers(window_nets.WindowNet):
    """Gives the numbers of the frames of its items, the first and the last."""

    name, digest, takes_flow, input_size = "numbers", "", False, 1

    def __init__(self, least: int) -> None:
        self.least = least

    def items(self, stretches: Iterable[window_nets.Stretch], crops: int) -> Iterator[Tensor]:
        numbers = [int(pixels.time) for stretch in stretches for pixels in stretch.frames]
        last = self.least - 1
        yield from (torch.tensor([first, first + last]) for first in numbers[: len(numbers) - last])

    def vectors(self, items: Sequence[Tensor], crops: int) -> Tensor:
        return torch.stack(list(items)).flatten()[None].float()


class Blank(NamedTuple):
    """A frame of which the time alone is of interest."""

    time: float

    def rgb(self) -> npt.NDArray[np.uint8]:
        return np.zeros((1, 1, 3), np.uint8)

    def grey(self) -> npt.NDArray[np.uint8]:
        return np.zeros((1, 1), np.uint8)


@given(
    count=st.integers(1, 70),
    least=st.integers(1, 6),
    more=st.integers(0, 20),
    stride=st.integers(1, 30),
    pad=st.booleans(),
)
def test_windows_hold_the_items_that_lie_in_them(count: int, least: int, more: int, stride: int, pad: bool) -> None:
    """Of two nets at once, of which one sees single frames."""
    window = least + more
    opened = OpenVideo(25.0, (1, 1), (1, 1), (1, 1), iter([Blank(float(number)) for number in range(count)]), Damage())
    nets = engine.FeatureNets((Numbers(1), Numbers(least)), "fc7", window_nets.Sight("dis", 1, 90), torch.device("cpu"))
    windows = Windows(window, stride, pad, 1, None)
    firsts = range(-(window // 2), count - window // 2, stride) if pad else range(0, count - window + 1, stride)
    expected = []
    for first in firsts:
        frames = np.clip(range(first, first + window), 0, count - 1)
        items = np.clip(range(first, first + more + 1), 0, count - least)
        expected.append([*np.repeat(frames, 2), *np.stack([items, items + least - 1], 1).flatten()])
    if not expected or count < least:
        with pytest.raises(VideoError, match=f"^v: has {count} frames, "):
            list(vectors_of(Path("v"), opened, nets, windows))
        return
    found = list(vectors_of(Path("v"), opened, nets, windows))
    assert [each.first for each in found] == list(firsts)
    np.testing.assert_array_equal([each.vectors[0].tolist() for each in found], expected)


def test_a_bidirectional_net_sees_both_directions(videos: Path, tmp_path: Path) -> None:
    """As a test of it sees them in a store."""
    net = engine.new_net(replace(RECIPE, length=4, bidirectional=True), "temporal", 3, seed=1).eval()
    engine.save_model(tmp_path / "net.safetensors", net, list("abc"))
    extract(videos / "A", tmp_path / "flow", method="dis", smallest_side=SIDE, backward=True, progress=False)
    nets = engine.load_feature_nets(tmp_path / "net.safetensors", layer="scores", method="dis", smallest_side=SIDE)
    (found,) = vectors(videos / "A/b.v2.mkv", nets, window=12, stride=1)
    clip = FlowStore.open(tmp_path / "flow")["b.v2"]
    expected = engine.video_scores(net, clip, frames=8, crops=1)  # all places, each once
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_a_net_of_timm_gives_the_means_of_its_features(
    stand_in: dict[str, Any],  # noqa: F811
    videos: Path,
    tmp_path: Path,
) -> None:
    """With the weights of a file, or those that it fetches, of frames that no JPEG has touched."""
    stand_in["input_size"] = (3, INPUT, INPUT)
    nets = engine.load_feature_nets(net="timm:resnet50", smallest_side=SIDE)
    net = nets.nets[0]._net.backbone
    frames = [frame.astype(np.float32) / 255 for frame in read_video(videos / "A/b.v2.mkv", smallest_side=SIDE)]
    mean, std = (np.float32(stand_in.get(key, given)) for key, given in (("mean", MEAN), ("std", STD)))
    items = []
    for frame in frames:
        x = torch.from_numpy(np.ascontiguousarray(cut((frame - mean) / std, 10, INPUT).transpose(0, 3, 1, 2)))
        with torch.no_grad():
            items.append(net.net(x).numpy())
    found = vectors(videos / "A/b.v2.mkv", nets, crops=10, **NUMBERS)
    np.testing.assert_allclose(found, windows_of(np.stack(items), 1, 12, 8, 3, False), rtol=1e-4, atol=1e-5)
    other = {name: each + 1 for name, each in net.net.state_dict().items()}
    torch.save({**other, "fc.weight": torch.zeros(3, 6)}, tmp_path / "other.pth")
    changed = engine.load_feature_nets(net="timm:resnet50", smallest_side=SIDE, weights=tmp_path / "other.pth")
    assert changed.noted()["weights"] != nets.noted()["weights"]
    assert engine.load_feature_nets(net="timm:resnet50", smallest_side=SIDE).noted() == nets.noted()
    for name, tensor in changed.nets[0]._net.backbone.net.state_dict().items():
        assert torch.equal(tensor, other[name])
    torch.save({name: each[:1] for name, each in other.items() if each.dim()}, tmp_path / "narrow.pth")
    with pytest.raises(SettingsError, match=r"^nonsense: timm cannot make it: Unknown model"):
        engine.load_feature_nets(net="timm:nonsense")
    with pytest.raises(CheckpointError, match=r"narrow.pth: weight stem.weight must be \[6, 3, 3, 3\], got \[1, 3"):
        engine.load_feature_nets(net="timm:resnet50", smallest_side=SIDE, weights=tmp_path / "narrow.pth")


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def small_i3d(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """Files of both nets, which take 32 pixels here: 224 take a second a window."""
    monkeypatch.setattr(window_nets, "I3D_SIZE", 32)
    monkeypatch.setattr(window_nets.I3DWindows, "input_size", 32)
    files = {}
    for name, channels in (("i3d-rgb", 3), ("i3d-flow", 2)):
        files[name] = tmp_path / "weights" / f"{name}.pt"
        files[name].parent.mkdir(exist_ok=True)
        torch.save(make_weights(channels, 6, seed=channels), files[name])
    return files


def i3d_inputs(video: Path, kind: str, crops: int) -> Array:
    """[crops, channels, frames, 32, 32] as the authors give them: RGB, or flow clamped at 20 pixels, in -1 .. 1."""
    if kind == "i3d-rgb":
        frames = np.stack(list(read_video(video, smallest_side=SIDE))).astype(np.float32)
        return (cut(frames, crops, 32) / 127.5 - 1).transpose(0, 4, 1, 2, 3)
    grey = list(read_video(video, smallest_side=SIDE, grey=True))
    fields = [estimate_flow(one, other, "tvl1") for one, other in pairwise(grey)]
    fields.append(fields[-1])
    scaled = np.clip(np.stack(fields), -20, 20) / np.float32(20)
    return mirrored(cut(scaled, crops, 32), crops).transpose(0, 4, 1, 2, 3)


@pytest.mark.parametrize("kind", ["i3d-rgb", "i3d-flow"])
@pytest.mark.parametrize(("crops", "pad", "layer"), [(1, True, "fc7"), (10, False, "scores")])
def test_i3d_gives_what_its_plain_forward_gives(
    small_i3d: dict[str, Path], tmp_path: Path, kind: str, crops: int, pad: bool, layer: str
) -> None:
    video = encode_video(tmp_path / "v.mkv", moving_frames(18, size=(SIDE, 96), step=(3, 1)), "ffv1", pixels="bgr0")
    nets = engine.load_feature_nets(net=kind, weights=small_i3d[kind], smallest_side=SIDE, layer=layer)
    found = vectors(video, nets, window=10, stride=8, crops=crops, pad=pad)
    inputs = torch.from_numpy(np.ascontiguousarray(i3d_inputs(video, kind, crops)))
    assert inputs.shape[2] == 18
    weights = torch.load(small_i3d[kind], weights_only=True)
    expected = []
    for first in (-5, 3, 11) if pad else (0, 8):
        places = torch.arange(first, first + 10).clamp(0, 17)
        with torch.no_grad():
            features, logits = forward(weights, inputs[:, :, places])
        expected.append(features if layer == "fc7" else logits.softmax(1))
    np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_flow_is_clamped_at_twenty_pixels(small_i3d: dict[str, Path]) -> None:
    nets = engine.load_feature_nets(net="i3d-flow", weights=small_i3d["i3d-flow"], smallest_side=SIDE)
    fields = torch.zeros(9, 40, 40, 2)
    fields[..., 0], fields[..., 1] = 35.0, -7.0
    inputs = nets.nets[0]._cut(fields, 10)
    assert inputs.shape == (10, 2, 9, 32, 32)
    assert torch.equal(inputs[:5, 0], torch.ones(5, 9, 32, 32))
    assert torch.equal(inputs[5:, 0], -torch.ones(5, 9, 32, 32))  # flipped
    torch.testing.assert_close(inputs[:, 1], torch.full((10, 9, 32, 32), -0.35))


def test_several_nets_stand_side_by_side(small_i3d: dict[str, Path], videos: Path) -> None:
    both = engine.load_feature_nets(net=list(small_i3d), weights=list(small_i3d.values()), smallest_side=SIDE)
    again = engine.load_feature_nets(net=list(small_i3d), weights=list(small_i3d.values()), smallest_side=SIDE)
    assert both.noted() == again.noted()
    found = vectors(videos / "A/b.v2.mkv", both, window=9, stride=2)
    assert found.shape == (2, 1, 2048)
    for place, (name, file) in enumerate(small_i3d.items()):
        alone = engine.load_feature_nets(net=name, weights=file, smallest_side=SIDE)
        expected = vectors(videos / "A/b.v2.mkv", alone, window=9, stride=2)
        np.testing.assert_array_equal(found[..., 1024 * place : 1024 * (place + 1)], expected)


@pytest.mark.slow
def test_i3d_of_its_own_size(videos: Path, tmp_path: Path) -> None:
    weights = make_weights(3, 400)
    torch.save(weights, tmp_path / "rgb_imagenet.pt")
    nets = engine.load_feature_nets(net="i3d-rgb", weights=tmp_path / "rgb_imagenet.pt")
    (found,) = vectors(videos / "A/b.v2.mkv", nets, window=12, crops=1)
    frames = np.stack(list(read_video(videos / "A/b.v2.mkv"))).astype(np.float32)
    assert frames.shape == (12, 256, 341, 3)
    x = (cut(frames, 1, 224) / 127.5 - 1).transpose(0, 4, 1, 2, 3)
    with torch.no_grad():
        expected, _ = forward(weights, torch.from_numpy(np.ascontiguousarray(x)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# ---- files ----------------------------------------------------------------------------------------------------------

LENGTHS = {"A/long": 13, "A/b.v2": 2, "B/one": 1}  # windows


@pytest.fixture(scope="module")
def spatial(run: Path) -> engine.FeatureNets:
    return engine.load_feature_nets(run, stream="spatial")


def write(videos: Path, out: Path, nets: engine.FeatureNets, **options: Any) -> str:
    """The features of all videos; of those the reasons that have none."""
    try:
        engine.features(videos, out, nets, progress=False, **{**NUMBERS, **options})
    except ExtractionError as error:
        return "\n".join(error.failures)
    return ""


def content(folder: Path) -> dict[str, bytes]:
    """Without the notes of which video each file was made."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".done" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("layout", "crops"), [("actionformer", 1), ("actionformer", 10), ("ms-tcn", 1), ("ms-tcn", 10), ("ten-crop", 10)]
)
def test_every_layout(spatial: engine.FeatureNets, videos: Path, tmp_path: Path, layout: str, crops: int) -> None:
    """And the video that is too short is named, with the others done."""
    failed = write(videos, tmp_path, spatial, layout=layout, crops=crops)
    assert failed == f"{videos / 'B/short.mkv'}: has 7 frames, a window takes 8"
    assert {*content(tmp_path)} == {"features.json", *(f"{name}.npy" for name in LENGTHS)}
    for name, length in LENGTHS.items():
        array = np.load(tmp_path / f"{name}.npy")
        expected = vectors(videos / f"{name}.mkv", spatial, crops=crops, **NUMBERS)
        assert expected.shape[:2] == (length, crops)
        if layout != "ten-crop":
            expected = expected.mean(1)
        np.testing.assert_allclose(array, expected.T if layout == "ms-tcn" else expected, rtol=1e-6)
        assert array.dtype == np.float32
        assert torch.from_numpy(array).shape == array.shape


@pytest.mark.parametrize("crops", [1, 10])
def test_one_file_of_hdf5(spatial: engine.FeatureNets, videos: Path, tmp_path: Path, crops: int) -> None:
    h5py = pytest.importorskip("h5py")
    assert "B/short.mkv" in write(videos, tmp_path, spatial, layout="h5", crops=crops)
    assert {*content(tmp_path)} == {"features.json", "features.h5"}
    with h5py.File(tmp_path / "features.h5") as file:
        for name in LENGTHS:
            expected = vectors(videos / f"{name}.mkv", spatial, crops=crops, **NUMBERS)
            array = file[name][...]
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, expected if crops == 10 else expected[:, 0])
        assert [*file["A"], *file["B"]] == ["b.v2", "long", "one"]


def test_hdf5_goes_on(spatial: engine.FeatureNets, videos: Path, tmp_path: Path) -> None:
    """What is there is not computed again; new videos come beside it."""
    h5py = pytest.importorskip("h5py")
    some, out = tmp_path / "videos", tmp_path / "out"
    (some / "A").mkdir(parents=True)
    (some / "A" / "long.mkv").symlink_to(videos / "A" / "long.mkv")
    assert not write(some, out, spatial, layout="h5")
    with h5py.File(out / "features.h5", "r+") as file:
        file["A/long"][...] = 7
    (some / "one.mkv").symlink_to(videos / "B" / "one.mkv")
    assert not write(some, out, spatial, layout="h5")
    with h5py.File(out / "features.h5") as file:
        assert np.all(file["A/long"][...] == 7)
        np.testing.assert_array_equal(file["one"], vectors(videos / "B/one.mkv", spatial, **NUMBERS)[:, 0])
    before = content(out)
    assert not write(some, out, spatial, layout="h5")
    assert content(out) == before
    # As of kills, one after the file was written and one of a call with other videos.
    for name in ("A/long", "C/other.v2"):
        (out / "parts" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(out / "parts" / f"{name}.npy", np.full((3, 2), 7, np.float32))
    assert not write(some, out, spatial, layout="h5")
    with h5py.File(out / "features.h5") as file:
        assert np.all(file["A/long"][...] == 7)
        assert file["C/other.v2"].shape == (3, 2)
        np.testing.assert_array_equal(file["one"], vectors(videos / "B/one.mkv", spatial, **NUMBERS)[:, 0])
    assert {path.name for path in out.iterdir()} == {"features.json", "features.h5", ".done"}
    (some / "A.mkv").symlink_to(videos / "B" / "one.mkv")
    with pytest.raises(SettingsError, match="A is a video and a folder of videos"):
        write(some, out, spatial, layout="h5")
    (some / "A.mkv").unlink()
    (out / "features.h5").write_bytes(b"no HDF5")
    with pytest.raises(CheckpointError, match=r"features\.h5: cannot be read"):
        write(some, out, spatial, layout="h5")


@pytest.mark.parametrize("layout", ["actionformer", "h5"])
def test_a_video_that_was_replaced_is_done_again(
    spatial: engine.FeatureNets, videos: Path, tmp_path: Path, layout: str
) -> None:
    """Alone, and nothing is made again for a copy of the same video."""
    if layout == "h5":
        pytest.importorskip("h5py")
    some, out = tmp_path / "videos", tmp_path / "out"
    some.mkdir()
    for name, video in {"a": "A/long", "b": "B/one"}.items():
        shutil.copy(videos / f"{video}.mkv", some / f"{name}.mkv")
    write(some, out, spatial, layout=layout)
    before = content(out)
    shutil.copy(videos / "B" / "one.mkv", some / "b.mkv")
    write(some, out, spatial, layout=layout)
    assert content(out) == before
    shutil.copy(videos / "A" / "long.mkv", some / "b.mkv")
    with pytest.warns(ReplacedVideoWarning, match=r"b\.mkv: not the video that was done under this name before"):
        write(some, out, spatial, layout=layout)
    if layout == "h5":
        import h5py

        with h5py.File(out / "features.h5") as file:
            arrays = {name: file[name][...] for name in ("a", "b")}
    else:
        arrays = {name: np.load(out / f"{name}.npy") for name in ("a", "b")}
    np.testing.assert_array_equal(arrays["a"], arrays["b"])
    assert len(arrays["a"]) > 1


def test_without_h5py_it_says_what_to_install(
    spatial: engine.FeatureNets, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SettingsError, match=r"pip install 'twostream_ext\[h5\]'"):
        write(videos, tmp_path / "out", spatial, layout="h5")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_out(spatial: engine.FeatureNets, videos: Path, tmp_path: Path) -> None:
    write(videos, tmp_path, spatial)
    (tmp_path / "A" / "long.npy").write_bytes(b"kept")
    write(videos, tmp_path, spatial)
    assert (tmp_path / "A" / "long.npy").read_bytes() == b"kept"


def test_neither_workers_nor_a_break_change_a_byte(
    spatial: engine.FeatureNets, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(videos, tmp_path / "whole", spatial, workers=1)
    wanted = content(tmp_path / "whole")
    vectors_of, seen = window_nets.StreamWindows.vectors, []

    def interrupted(*given: Any) -> Tensor:
        seen.append(given)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return vectors_of(*given)

    monkeypatch.setattr(window_nets.StreamWindows, "vectors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(videos, tmp_path / "broken", spatial, workers=1)
    left = content(tmp_path / "broken")
    assert {*left} < {*wanted}
    assert "features.json" in left
    assert all(data == wanted[name] for name, data in left.items())
    write(videos, tmp_path / "broken", spatial, workers=3)
    assert content(tmp_path / "broken") == wanted


def features_command(videos: Path, out: Path, run: Path, *more: str) -> list[str]:
    return [
        *("features", str(videos), str(out), "--model", str(run)),
        *("--window", "8", "--stride", "1", "--workers", "1", *more),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_kill_leaves_what_the_same_command_goes_on_from(
    run: Path, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    videos = tmp_path / "videos"
    for number in range(6):
        write_video(videos / f"{number}.avi", moving_frames(60, size=(SIDE, 96), seed=number))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "twostream_ext", *features_command(videos, tmp_path / out, run)]
        # A pytest that was started in the background may have handed on that SIGINT is ignored.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, cwd=tmp_path, env=environment, preexec_fn=heeding, stderr=subprocess.PIPE)  # noqa: PLW1509

    with start("whole") as program:
        assert program.wait(200) == 0
    with start("killed") as program:
        while program.poll() is None and len(list((tmp_path / "killed").glob("*.npy"))) < 2:
            time.sleep(0.02)
        program.send_signal(how)
        _, told = program.communicate(timeout=100)
    assert program.returncode == code
    assert (b"interrupted; the same command goes on from here" in told) == (how == signal.SIGINT)
    assert 2 <= len(list((tmp_path / "killed").glob("*.npy"))) < 6
    with start("killed") as program:
        assert program.wait(200) == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_long_video_takes_no_more_memory_than_a_short_one(
    spatial: engine.FeatureNets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are written as they come: never are more than a few windows away from the frame that was read last."""
    video = write_video(tmp_path / "v.avi", moving_frames(200, size=(SIDE, 96), step=(0, 0)))
    read, behind = [0], []
    pixels_of = read_pixels

    class Counting:
        def __init__(self, opened: Any) -> None:
            self.ahead = pixels_of(opened)

        def __iter__(self) -> Iterator[Any]:
            for each in self.ahead:
                read[0] += 1
                yield each

    monkeypatch.setattr(sys.modules["twostream_ext.engine.window_features"], "read_pixels", Counting)
    for window in engine.window_features(video, spatial, **NUMBERS):
        behind.append(read[0] - window.first)
    assert read == [200]
    assert max(behind) <= 8 + 16


def test_files_as_one_video_and_a_folder_of_images(spatial: engine.FeatureNets, videos: Path, tmp_path: Path) -> None:
    write(videos / "A" / "b.v2.mkv", tmp_path / "one", spatial)
    assert {*content(tmp_path / "one")} == {"features.json", "b.v2.npy"}
    folder = tmp_path / "images.v1"
    folder.mkdir()
    for number, frame in enumerate(read_video(videos / "A" / "b.v2.mkv", smallest_side=SIDE), 1):
        cv2.imwrite(str(folder / f"img_{number:05}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    write(folder, tmp_path / "two", spatial)
    assert {*content(tmp_path / "two")} == {"features.json", "images.v1.npy"}
    np.testing.assert_array_equal(np.load(tmp_path / "two/images.v1.npy"), np.load(tmp_path / "one/b.v2.npy"))


def test_other_settings_are_refused(run: Path, videos: Path, tmp_path: Path, spatial: engine.FeatureNets) -> None:
    write(videos, tmp_path, spatial)
    before = content(tmp_path)
    refused: dict[str, dict[str, Any]] = {
        "window 8, not 7": {"window": 7},
        "stride 3, not 2": {"stride": 2},
        "pad False, not True": {"pad": True},
        "crops 1, not 10": {"crops": 10},
        "fps None, not 10": {"fps": 10.0},
        "layout actionformer, not ms-tcn": {"layout": "ms-tcn"},
    }
    for words, options in refused.items():
        with pytest.raises(SettingsError, match=f"{tmp_path}: was made with {words}"):
            write(videos, tmp_path, spatial, **options)
    with pytest.raises(SettingsError, match="layer fc7, not scores"):
        write(videos, tmp_path, engine.load_feature_nets(run, stream="spatial", layer="scores"))
    with pytest.raises(SettingsError, match="nets spatial net, not spatial net and temporal net"):
        write(videos, tmp_path, engine.load_feature_nets(run))
    other = engine.new_net(RECIPE, "spatial", 5, seed=9)
    engine.save_model(tmp_path.parent / "other.safetensors", other, CLASSES)
    with pytest.raises(SettingsError, match="was made with weights"):
        write(videos, tmp_path, engine.load_feature_nets(tmp_path.parent / "other.safetensors", smallest_side=SIDE))
    assert content(tmp_path) == before
    (tmp_path / "features.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"features\.json: cannot be read"):
        write(videos, tmp_path, spatial)


def test_what_a_video_has_lost_is_told(spatial: engine.FeatureNets, tmp_path: Path) -> None:
    """Of a file whose end is missing."""
    video = encode_video(tmp_path / "v.avi", moving_frames(20, size=(SIDE, 96)), "mpeg4", options={"g": "1"})
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 7 // 10])
    with pytest.warns(DamagedVideoWarning, match=re.escape(str(video))):
        engine.features(video, tmp_path / "out", spatial, window=2, stride=1, progress=False)
    with pytest.warns(DamagedVideoWarning, match=re.escape(str(video))):
        list(engine.window_features(video, spatial, window=2, stride=1))


# ---- the command, and what is wrong ---------------------------------------------------------------------------------


def command(videos: Path, out: Path, *words: object) -> int:
    return main(["features", str(videos), str(out), *map(str, words)])


def test_the_command(run: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = command(videos, tmp_path / "out", "--model", run, "--window", 8, "--stride", 3, "--layer", "fc6")
    assert code == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        f"{videos / 'B/short.mkv'}: has 7 frames, a window takes 8",
        "twostream: error: 1 videos have no features, see above",
    ]
    expected = vectors(videos / "A/long.mkv", engine.load_feature_nets(run, layer="fc6"), **NUMBERS)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "A" / "long.npy"), expected[:, 0])
    noted = json.loads((tmp_path / "out" / "features.json").read_text())
    assert noted["nets"] == ["spatial net", "temporal net"]
    assert (noted["method"], noted["smallest_side"], noted["window"]) == ("dis", SIDE, 8)
    code = command(videos, tmp_path / "padded", "--model", run, "--window", 8, "--stride", 3, "--pad", "--fps", 5)
    assert code == 1  # two frames, of which no stack can be made
    assert "B/one.mkv: has 2 frames, temporal net needs at least 5" in capsys.readouterr().err
    assert command(videos / "A", tmp_path / "A", "--model", run, "--window", 8, "--pad") == 0
    assert capsys.readouterr().out == f"2 videos in {tmp_path / 'A'}\n"
    assert np.load(tmp_path / "A" / "long.npy").shape[0] == 12


WRONG: dict[str, tuple[tuple[object, ...], int, str]] = {
    "no weights": (("--net", "i3d-rgb"), 2, "i3d-rgb takes rgb_imagenet.pt"),
    "no such weights": (
        ("--net", "i3d-flow", "--weights", "none.pt"),
        1,
        "none.pt: no such file; i3d-flow takes flow_",
    ),
    "no such net": (("--net", "i3d"), 2, "net is 'i3d', expected i3d-rgb, i3d-flow or timm:NAME"),
    "ours as timm's": (("--net", "timm:cnn_m_2048"), 2, "is a backbone of ours"),
    "scores of timm": (("--net", "timm:resnet18", "--layer", "scores"), 2, "layer is 'scores', timm:resnet18 has fc7"),
    "fewer weights": (("--net", "i3d-rgb", "i3d-flow", "--weights", "a"), 2, "2 nets and 1 files of weights"),
    "weights of a model": (("--model", "RUN", "--weights", "a"), 2, "a model has its own"),
    "no model": (("--model", "nothing"), 1, "nothing: cannot be read: No such file"),
    "no run": (("--model", "VIDEOS"), 1, "holds no run"),
    "no such stream": (("--model", "RUN", "--stream", "third"), 2, "expected one of spatial, temporal"),
    "stream of a file": (("--model", "NET", "--stream", "spatial"), 2, "only the directory of a run has streams"),
    "another method": (("--model", "RUN", "--method", "tvl1"), 2, "was made with flow_method dis, not tvl1"),
    "another size": (("--model", "RUN", "--size", "80"), 2, "was made with smallest_side 72, not 80"),
    "no such method": (("--model", "NET", "--method", "tvl2"), 2, "method is 'tvl2'"),
    "small frames": (
        ("--model", "NET", "--size", "50"),
        2,
        "is 50 pixels, spatial net needs at least 64",
    ),
    "short windows": (("--model", "RUN", "--window", "4"), 2, "window is 4 frames, temporal net needs at least 5"),
    "ten crops": (("--model", "RUN", "--layout", "ten-crop"), 2, "takes 10 crops, not 1"),
    "a high rate": (("--model", "RUN", "--fps", "1e9"), 2, "fps is 1000000000.0"),
    "device": (("--model", "RUN", "--device", "abacus"), 2, "device is 'abacus'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_line_for_each_mistake(
    case: str, run: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    words, code, text = WRONG[case]
    places = {"RUN": run, "VIDEOS": videos, "NET": run / "spatial" / "model.safetensors"}
    assert command(videos, tmp_path / "out", *(places.get(str(word), word) for word in words)) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert not (tmp_path / "out").exists()


def test_wrong_videos(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name, text in (("empty", "no videos"), ("missing", "no such directory")):
        assert command(tmp_path / name, tmp_path / "out", "--model", run) == 1
        assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty" / "a.mp4").write_bytes(b"no video")
    (tmp_path / "file").write_text("")
    assert command(tmp_path / "empty", tmp_path / "out", "--model", run) == 1
    assert "a.mp4: " in capsys.readouterr().err.splitlines()[0]
    assert {*content(tmp_path / "out")} == {"features.json"}
    assert command(tmp_path / "empty", tmp_path / "file", "--model", run) == 1
    assert "file: cannot be written" in capsys.readouterr().err


def test_numbers_that_cannot_be(spatial: engine.FeatureNets, videos: Path) -> None:
    for options, text in (
        ({"window": 0}, "window is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"crops": 5}, "crops is 5, expected 1 or 10"),
        ({"workers": 0}, "workers is 0"),
        ({"layout": "csv"}, "layout is 'csv', expected one of actionformer, ms-tcn, ten-crop, h5"),
    ):
        with pytest.raises(SettingsError, match=text):
            engine.features(videos, "never made", spatial, **options)
    with pytest.raises(SettingsError, match="give one of the two"):
        engine.load_feature_nets()
    with pytest.raises(SettingsError, match="layer is 'fc8'"):
        engine.load_feature_nets("a", layer="fc8")
    with pytest.raises(VideoError, match="has 7 frames, a window takes 8"):
        list(engine.window_features(videos / "B/short.mkv", spatial, window=8))


class Small(nn.Sequential):
    """A backbone of one's own, with no layer before its last."""

    hidden = 4

    def __init__(self, settings: BackboneSettings) -> None:
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(nn.Conv2d(settings.channels, 4, 5, stride=4), nn.ReLU(), pool, nn.Flatten())


def test_a_backbone_without_full6(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_registered", dict(backbones._registered))
    register_backbone("small", Small)
    engine.save_model(tmp_path / "small.safetensors", SpatialNet(2, backbone="small", input_size=32), ["a", "b"])
    with pytest.raises(SettingsError, match="layer is 'fc6', which small does not have; expected fc7 or scores"):
        engine.load_feature_nets(tmp_path / "small.safetensors", layer="fc6")
    nets = engine.load_feature_nets(tmp_path / "small.safetensors", smallest_side=SIDE)
    assert vectors(videos / "B/one.mkv", nets, **NUMBERS).shape == (1, 1, 4)
