# SPDX-License-Identifier: BSD-3-Clause
"""Released weights: files in both formats give the net that is in them, on our inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import released_files as released
import scipy.io
import torch

from twostream_ext import ops
from twostream_ext.engine import find_stream, load_model, save_model
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.media import FrameBatch
from twostream_ext.models import SpatialNet, StreamNet, TemporalNet, load_pretrained
from twostream_ext.models.rgb import RGB_MEAN, RGB_STD

CLASSES, WIDTH = 12, 0.05
CROPS = [1, 4, 8]  # a corner, the centre, a flipped corner
FORMATS = ["filters.mat", "weights.mat", "layers.caffemodel", "layer.caffemodel"]
COLOUR = np.array([103.932, 116.766, 123.659], dtype=np.float32)  # BGR, of the released mean image


def frame_views(frame: torch.Tensor, net: StreamNet, crops: int) -> torch.Tensor:
    return find_stream("spatial").views(FrameBatch.pack([frame]), settings=net.settings, crops=crops)


@pytest.fixture(scope="module")
def blobs() -> released.Blobs:
    return released.caffe_net(CLASSES, WIDTH)


def write(path: Path, blobs: released.Blobs, mean: npt.NDArray[np.floating] | None = None) -> Path:
    """A file in the format that its name says; mean: BGR [3, h, w], which only a .mat holds."""
    old = path.stem in ("filters", "layers")
    if path.suffix == ".mat":
        average = None if mean is None else mean[::-1].transpose(1, 2, 0)
        released.save_matconvnet(path, released.matconvnet_layers(blobs, old=old), average, old=old)
    else:
        path.write_bytes(released.caffemodel(blobs, old=old))
    return path


def small_net(classes: int | dict[str, int] = CLASSES) -> SpatialNet:
    return SpatialNet(classes, width=WIDTH).eval()


def same_weights(first: StreamNet, second: StreamNet) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def frame() -> torch.Tensor:
    return torch.randint(0, 256, (230, 260, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def views(frame: torch.Tensor) -> list[npt.NDArray[np.uint8]]:
    """The pixels of some of the ten crops, as RGB [224, 224, 3]."""
    out = []
    for top, left, flip in ops.ten_crop_windows(torch.tensor([[230, 260]]), 224)[0, CROPS].tolist():
        crop = frame.numpy()[top : top + 224, left : left + 224]
        out.append(crop[:, ::-1] if flip else crop)
    return out


@pytest.mark.parametrize("kind", ["image", "colour"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_loaded_net_computes_what_the_file_s_net_computes_in_its_own_convention(
    name: str,
    kind: str,
    blobs: released.Blobs,
    frame: torch.Tensor,
    views: list[npt.NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    mean = released.mean_image() if kind == "image" else COLOUR.reshape(3, 1, 1)
    path = write(tmp_path / name, blobs, mean)
    mean_file = None
    if name.endswith(".mat"):
        layers = released.matconvnet_layers(blobs, old=name == "filters.mat")
        expected = [released.run_matconvnet(layers, view, mean[::-1].transpose(1, 2, 0)) for view in views]
    else:
        if kind == "image":
            mean_file = tmp_path / "VGG_mean.binaryproto"
            mean_file.write_bytes(released.binaryproto(mean[None]))
        expected = [released.run_caffe(blobs, view, mean) for view in views]
    net = small_net()
    loaded = load_pretrained(net, path, mean_file=mean_file)
    assert loaded.taken == ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8.default")
    assert loaded.kept == ()
    with torch.no_grad():
        scores = net(frame_views(frame, net, 10)[0, CROPS])
    wanted = torch.from_numpy(np.stack(expected))
    assert 1 < wanted.std() < 20  # of that size, so that 1e-4 means something
    torch.testing.assert_close(scores.double(), wanted, rtol=1e-4, atol=1e-4)


def test_both_references_agree_on_the_released_net(blobs: released.Blobs, views: list[npt.NDArray[np.uint8]]) -> None:
    mean = released.mean_image()
    layers = released.matconvnet_layers(blobs, old=False)
    np.testing.assert_allclose(
        released.run_caffe(blobs, views[0], mean),
        released.run_matconvnet(layers, views[0], mean[::-1].transpose(1, 2, 0)),
        rtol=1e-9,
    )


def test_all_formats_give_the_same_bits(blobs: released.Blobs, tmp_path: Path) -> None:
    mean = released.mean_image()
    (tmp_path / "mean").write_bytes(released.binaryproto(mean[None]))
    nets = []
    for name in FORMATS:
        nets.append(small_net())
        path = write(tmp_path / name, blobs, mean)
        load_pretrained(nets[-1], path, mean_file=None if name.endswith(".mat") else tmp_path / "mean")
    assert all(same_weights(nets[0], net) for net in nets[1:])


def test_other_ways_that_caffe_files_are_written(blobs: released.Blobs, tmp_path: Path) -> None:
    """Full layers as convolutions, float64, and layers without a word on normalisation."""
    plain, other = small_net(), small_net()
    load_pretrained(plain, write(tmp_path / "layer.caffemodel", blobs))
    weights, biases = blobs["fc6"]
    as_convolution = weights.reshape(len(weights), -1, 6, 6).astype(np.float64)
    changed = {**blobs, "fc6": (as_convolution, biases)}
    (tmp_path / "other").write_bytes(released.caffemodel(changed, old=False, lrn=None))  # type: ignore[arg-type]
    load_pretrained(other, tmp_path / "other")
    assert same_weights(plain, other)


def test_a_mat_file_without_a_mean_goes_by_the_released_colour(blobs: released.Blobs, tmp_path: Path) -> None:
    without, caffe = small_net(), small_net()
    load_pretrained(without, write(tmp_path / "weights.mat", blobs))
    load_pretrained(caffe, write(tmp_path / "layer.caffemodel", blobs))
    assert same_weights(without, caffe)


@pytest.mark.parametrize("name", ["weights.mat", "layers.caffemodel"])
def test_heads_of_another_number_of_classes_keep_their_weights(
    name: str, blobs: released.Blobs, tmp_path: Path
) -> None:
    net = small_net({"imagenet": CLASSES, "ucf101": 7})
    before = net.fc8["ucf101"].weight.clone()
    loaded = load_pretrained(net, write(tmp_path / name, blobs))
    assert loaded.taken[-2:] == ("fc7", "fc8.imagenet")
    assert loaded.kept == ("fc8.ucf101",)
    assert torch.equal(net.fc8["ucf101"].weight, before)
    np.testing.assert_array_equal(net.fc8["imagenet"].weight.detach().numpy(), blobs["fc8"][0])
    np.testing.assert_array_equal(net.fc8["imagenet"].bias.detach().numpy(), blobs["fc8"][1])


def test_a_net_with_a_mean_image_survives_its_own_files(
    blobs: released.Blobs, frame: torch.Tensor, tmp_path: Path
) -> None:
    net = small_net()
    load_pretrained(net, write(tmp_path / "weights.mat", blobs, released.mean_image()))
    save_model(tmp_path / "model.safetensors", net, [str(number) for number in range(CLASSES)])
    again = load_model(tmp_path / "model.safetensors").net
    x = frame_views(frame, net, 1)[0]
    assert again.settings == net.settings
    assert same_weights(again, net)
    torch.testing.assert_close(again(x), net(x), rtol=1e-5, atol=1e-4)  # in a file, tensors are aligned otherwise
    load_pretrained(again, write(tmp_path / "colour.mat", blobs))
    assert again.backbone.mean_image is None


@pytest.mark.parametrize("name", ["weights.mat", "layers.caffemodel"])
def test_a_temporal_net_gets_the_grey_filters_for_each_channel_when_asked(
    name: str, blobs: released.Blobs, tmp_path: Path
) -> None:
    path = write(tmp_path / name, blobs, released.mean_image())
    net = TemporalNet(CLASSES, length=3, width=WIDTH)
    with pytest.raises(SettingsError, match="only with cross_modality=True, which is not of the paper"):
        load_pretrained(net, path)
    load_pretrained(net, path, cross_modality=True)
    bgr, biases = blobs["conv1"]
    grey = sum(bgr[:, 2 - colour].astype(np.float64) * RGB_STD[colour] for colour in range(3)) / 3
    for channel in range(6):
        np.testing.assert_allclose(net.backbone.conv1.weight[:, channel].detach().numpy(), grey, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net.backbone.conv1.bias.detach().numpy(), biases)
    for layer in ("conv2", "conv5"):
        np.testing.assert_array_equal(getattr(net.backbone, layer).weight.detach().numpy(), blobs[layer][0])
    assert net.backbone.mean_image is None


# ---- what is refused -----------------------------------------------------------------------------------------------


def refused(path: Path, message: str, **options: object) -> None:
    """One line that names the file, and a net that stays as it was."""
    net = small_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pretrained(net, path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert "at 0x" not in str(caught.value)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        ("conv1", (5, 4, 7, 7), r"weights of conv1 must be \[5, 3, 7, 7\], got \[5, 4, 7, 7\]"),
        ("conv3", (26, 13, 3, 2), r"weights of conv3 must be \[26, 13, 3, 3\], got \[26, 13, 3, 2\]"),
        ("fc7", (205, 205), r"fc7 must have 102 biases, got 205"),
        ("fc7", (102, 206), r"weights of fc7 must be \[102, 205\], got \[(1, 1, )?102, 206(, 1, 1)?\]"),
    ],
)
def test_a_layer_of_another_shape_is_named_with_both_shapes(
    name: str, layer: str, shape: tuple[int, ...], message: str, blobs: released.Blobs, tmp_path: Path
) -> None:
    changed = {**blobs, layer: (np.zeros(shape, np.float32), np.zeros(shape[0], np.float32))}
    path = write(tmp_path / name, changed)
    refused(path, f"{name}: {message}")


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_layer_is_named(name: str, blobs: released.Blobs, tmp_path: Path) -> None:
    path = write(tmp_path / name, {layer: pair for layer, pair in blobs.items() if layer != "conv4"})
    refused(path, f"{name}: has no layer conv4 with weights and biases, only conv1, conv2, conv3, conv5, fc6")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_was_cut_is_refused_wherever_it_was_cut(name: str, blobs: released.Blobs, tmp_path: Path) -> None:
    # Without its last, large layers: a small file is cut at more places.
    whole = write(tmp_path / name, {layer: pair for layer, pair in blobs.items() if layer != "fc8"}).read_bytes()
    random = np.random.default_rng(3)
    lengths = [0, 1, 60, 127, 128, 129, 140, len(whole) - 1, *random.integers(1, len(whole), 12).tolist()]
    for length in lengths:
        cut = tmp_path / f"cut{length}.{name}"
        cut.write_bytes(whole[:length])
        refused(cut, f"^{tmp_path}/cut{length}.{name}: ")
        cut.unlink()


def test_files_of_something_else_are_refused(blobs: released.Blobs, tmp_path: Path) -> None:
    other = tmp_path / "other"
    refused(other, "other: cannot be read: No such file or directory")
    other.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 474 + b"\x89HDF\r\n\x1a\n")
    refused(other, r"other: a MATLAB 7.3 file \(HDF5\).*save it with -v7")
    other.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 600)
    refused(other, "MATLAB 7.3 file")
    other.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 4)
    refused(other, "other: neither a MATLAB 5 file nor a whole Caffe model")
    torch.save({"conv1": torch.zeros(3)}, other)
    refused(other, "other: neither a MATLAB 5 file nor a")
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
    refused(tmp_path / "other.mat", "has no cell array `layers`")
    cells = np.empty((1, 2), dtype=object)
    cells[0, :] = [{"type": "relu", "name": "relu1"}, {"type": "conv", "name": "conv1"}]
    scipy.io.savemat(tmp_path / "other.mat", {"layers": cells})
    refused(tmp_path / "other.mat", "no layer has weights")


@pytest.mark.parametrize("old", [True, False])
def test_other_constants_of_normalisation_are_refused(old: bool, blobs: released.Blobs, tmp_path: Path) -> None:
    """Among them the conventions mixed up: alpha of one square in a Caffe file, alpha of five in a .mat."""
    expected = r"norm1 must have size, alpha, beta and k \(5, 0.0005, 0.75, 2.0\), got "
    path = tmp_path / "a.caffemodel"
    for lrn, got in [((5, 1e-4, 0.75, 2.0), r"\(5.0, 0.0001, "), ((5, 5e-4, 0.75, 1.0), r"\(5.0, 0.0005, 0.75, 1.0\)")]:
        path.write_bytes(released.caffemodel(blobs, old=old, lrn=lrn))
        refused(path, expected + got)
    path = tmp_path / "a.mat"
    for constants, got in [((5, 2, 5e-4, 0.75), r"\(5.0, 0.0025, "), ((5, 1, 1e-4, 0.75), r"\(5.0, 0.0005, 0.75, 1.0")]:
        released.save_matconvnet(path, released.matconvnet_layers(blobs, old=old, lrn=constants), None, old=old)
        refused(path, expected + got)


def test_mean_images_of_another_size_are_refused(blobs: released.Blobs, tmp_path: Path) -> None:
    path, mean = write(tmp_path / "layer.caffemodel", blobs), tmp_path / "mean"
    wrong = [
        (
            np.zeros((1, 3, 256, 256), np.float32),
            r"mean: mean image must have the net's input size \[224, 224\], got \[",
        ),
        (np.zeros((1, 1, 224, 224), np.float32), r"mean: mean image must be \[1, 3, height, width\], got \[1, 1, 224"),
    ]
    for image, message in wrong:
        mean.write_bytes(released.binaryproto(image))
        refused(path, message, mean_file=mean)
    mean.write_bytes(released.binaryproto(released.mean_image()[None])[:-1])
    refused(path, "mean: not a whole Caffe mean image", mean_file=mean)
    refused(path, "absent: cannot be read", mean_file=tmp_path / "absent")
    refused(
        write(tmp_path / "weights.mat", blobs, np.zeros((4, 224, 224), np.float32)),
        r"averageImage must be \[height, width, 3\] or 3 numbers, got \[224, 224, 4\]",
    )


def test_a_blob_with_too_few_values_is_refused(blobs: released.Blobs, tmp_path: Path) -> None:
    short = released.field(7, released.field(1, released.varint(5) + released.varint(3))) + released.field(5, b"\0" * 8)
    layer = released.field(1, b"conv1") + released.field(7, short) * 2
    (tmp_path / "a").write_bytes(released.field(100, layer))
    refused(tmp_path / "a", r"a: conv1 of shape \[5, 3\] has 2 values")


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (small_net, {"cross_modality": True}, "cross_modality is for nets that take flow"),
        (
            lambda: TemporalNet(2, width=WIDTH),
            {"cross_modality": True, "mean_file": "mean"},
            "mean_file is of frames, a net for flow has no use for it",
        ),
    ],
)
def test_options_that_do_not_suit_the_net_are_refused(
    net: Callable[[], StreamNet], options: dict[str, object], message: str, blobs: released.Blobs, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"load_pretrained: {message}"):
        load_pretrained(net(), write(tmp_path / "layer.caffemodel", blobs), **options)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weights.mat", "layers.caffemodel"])
def test_files_of_the_released_size_load(name: str, frame: torch.Tensor, tmp_path: Path) -> None:
    blobs = released.caffe_net(1000, 1.0)
    path = write(tmp_path / name, blobs)
    assert path.stat().st_size > 300e6
    net = SpatialNet(1000).eval()
    load_pretrained(net, path)
    expected = released.run_caffe(blobs, frame.numpy()[3:227, 18:242], COLOUR.reshape(3, 1, 1))
    with torch.no_grad():
        scores = net(frame_views(frame, net, 1)[0])
    torch.testing.assert_close(scores[0].double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_inputs_are_normalised_as_the_weights_are_folded() -> None:
    """The one place where the two could part: a frame of the mean colour is an input of zeros."""
    frame = torch.full((57, 57, 3), 124, dtype=torch.uint8)
    values = frame_views(frame, SpatialNet(2, width=WIDTH, input_size=57), 1)[0, 0, :, 0, 0]
    torch.testing.assert_close(values, (124 - torch.tensor(RGB_MEAN)) / torch.tensor(RGB_STD))
