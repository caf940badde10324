# SPDX-License-Identifier: BSD-3-Clause
"""CNN-M-2048 against the numbers of the released net and a float64 NumPy reference."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from twostream_ext.errors import SettingsError
from twostream_ext.models import CNNM2048, SpatialNet, TemporalNet
from twostream_ext.models.cnn_m_2048 import SMALLEST_INPUT, map_sides
from twostream_ext.models.response_norm import local_response_norm


def response_norm_reference(x: np.ndarray) -> np.ndarray:
    """x / (2 + 5e-4 / 5 * sum of 5 squares) ** 0.75, in float64."""
    x = x.astype(np.float64)
    out = np.empty_like(x)
    channels = x.shape[1]
    for channel in range(channels):
        near = x[:, max(0, channel - 2) : min(channels, channel + 3)]
        out[:, channel] = x[:, channel] / (2.0 + 1e-4 * (near**2).sum(1)) ** 0.75
    return out


@pytest.mark.parametrize("channels", [1, 3, 5, 24])
@pytest.mark.parametrize("scale", [0.1, 300.0])
def test_response_norm_matches_float64_reference(channels: int, scale: float) -> None:
    x = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(1)) * scale
    expected = response_norm_reference(x.numpy())
    np.testing.assert_allclose(local_response_norm(x).numpy(), expected, rtol=2e-6, atol=1e-7)


def test_response_norm_equals_torch_including_its_gradient() -> None:
    generator = torch.Generator().manual_seed(2)
    ours = (torch.randn(2, 7, 3, 3, generator=generator) * 50).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    gradient = torch.randn(2, 7, 3, 3, generator=generator)
    expected = nn.functional.local_response_norm(theirs, 5, 5e-4, 0.75, 2.0)
    result = local_response_norm(ours)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(
        torch.autograd.grad(result, ours, gradient), torch.autograd.grad(expected, theirs, gradient)
    )


def test_maps_have_the_sides_of_the_released_net() -> None:
    net = CNNM2048(3, width=0.03)
    sides: dict[str, int] = {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: sides.update({name: output.shape[-1]}))
    net(torch.zeros(1, 3, 224, 224))
    shown = {"conv1": 109, "pool1": 54, "conv2": 26, "pool2": 13, "conv5": 13, "pool5": 6}
    assert {name: sides[name] for name in shown} == shown
    assert map_sides(224)._asdict() == shown


@pytest.mark.parametrize("size", [57, 64, 80, 111, 112, 200])
def test_map_sides_are_what_the_net_computes(size: int) -> None:
    net = CNNM2048(3, width=0.03, input_size=size)
    x = torch.zeros(1, 3, size, size)
    for name, layer in net.named_children():
        if name == "flatten":
            break
        x = layer(x)
        expected = getattr(map_sides(size), name, x.shape[-1])
        assert x.shape[-2:] == (expected, expected), name


def test_pool2_rounds_up() -> None:
    # The last window of a 26-pixel map starts at 24 and sticks out: its maximum is of two columns.
    x = torch.arange(26.0).expand(1, 1, 26, 26).contiguous()
    pooled = CNNM2048(3, width=0.03).pool2(x)
    assert pooled.shape == (1, 1, 13, 13)
    assert pooled[0, 0, 0].tolist() == [2.0 * i + 2 for i in range(12)] + [25.0]


def test_layers_come_in_the_order_of_the_prototxt() -> None:
    names = [name for name, _ in CNNM2048(3, width=0.03).named_children()]
    assert " ".join(names) == (
        "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 "
        "pool5 flatten fc6 relu6 drop6 fc7 relu7 drop7"
    )


def test_the_forward_pass_is_the_formula() -> None:
    """The whole net, restated with functional calls and the NumPy normalisation."""
    torch.manual_seed(3)
    net = CNNM2048(4, width=0.05, input_size=64, dropout=0.0)
    x = torch.randn(2, 4, 64, 64) * 20
    f = nn.functional

    def conv(x: Tensor, layer: nn.Conv2d, stride: int, padding: int) -> Tensor:
        return f.conv2d(x, layer.weight, layer.bias, stride, padding).relu()

    def norm(x: Tensor) -> Tensor:
        return torch.from_numpy(response_norm_reference(x.detach().numpy()).astype(np.float32))

    y = f.max_pool2d(norm(conv(x, net.conv1, 2, 0)), 3, 2, ceil_mode=True)
    y = f.max_pool2d(norm(conv(y, net.conv2, 2, 1)), 3, 2, ceil_mode=True)
    y = conv(conv(conv(y, net.conv3, 1, 1), net.conv4, 1, 1), net.conv5, 1, 1)
    y = f.max_pool2d(y, 3, 2).flatten(1)
    y = f.linear(f.linear(y, net.fc6.weight, net.fc6.bias).relu(), net.fc7.weight, net.fc7.bias)
    torch.testing.assert_close(net(x), y.relu(), rtol=1e-4, atol=1e-5)


def plain_net(net: CNNM2048, in_channels: int, *, norm2: bool) -> nn.Sequential:
    """CNN-M-2048 at full width from the released prototxt and torch's own layers, with the weights of `net`."""

    def norm() -> nn.LocalResponseNorm:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, 96, 7, 2),
        "relu1": nn.ReLU(),
        "norm1": norm(),
        "pool1": pool(),
        "conv2": nn.Conv2d(96, 256, 5, 2, 1),
        "relu2": nn.ReLU(),
        **({"norm2": norm()} if norm2 else {}),
        "pool2": pool(),
        "conv3": nn.Conv2d(256, 512, 3, 1, 1),
        "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(512, 512, 3, 1, 1),
        "relu4": nn.ReLU(),
        "conv5": nn.Conv2d(512, 512, 3, 1, 1),
        "relu5": nn.ReLU(),
        "pool5": pool(),
        "flatten": nn.Flatten(),
        "fc6": nn.Linear(512 * 6 * 6, 4096),
        "relu6": nn.ReLU(),
        "fc7": nn.Linear(4096, 2048),
        "relu7": nn.ReLU(),
    }
    with torch.device("meta"):
        plain = nn.Sequential(OrderedDict(layers))
    plain.load_state_dict(net.state_dict(), assign=True)
    return plain.eval()


def outputs(net: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    """What each layer gives, by its name; ReLUs may work in place."""
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: seen.update({name: output.clone()}))
        for name, layer in net.named_children()
        if not isinstance(layer, nn.Dropout)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_every_layer_of_both_streams_gives_what_a_plain_torch_net_gives(stream: str) -> None:
    channels, norm2 = (3, True) if stream == "spatial" else (20, False)
    torch.manual_seed(6)
    net = (SpatialNet(2) if stream == "spatial" else TemporalNet(2, length=10)).eval().backbone
    assert isinstance(net, CNNM2048)
    x = torch.randn(1, channels, 224, 224) * 50  # so large that the normalisations bend the responses
    with torch.no_grad():
        ours, plain = outputs(net, x), outputs(plain_net(net, channels, norm2=norm2), x)
    assert list(ours) == list(plain)
    for name, expected in plain.items():
        error = (ours[name] - expected).abs().max() / expected.abs().max()
        assert ours[name].shape == expected.shape, name
        assert error < 1e-5, name
    bent = ours["norm1"] / ours["relu1"].clamp(min=1e-9)
    assert bent[ours["relu1"] > 1].std() > 0.01
    sides = {name: ours[name].shape[-1] for name in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")}
    assert sides == {"conv1": 109, "pool1": 54, "conv2": 26, "pool2": 13, "conv5": 13, "pool5": 6}


def test_a_mean_image_is_subtracted_from_the_input() -> None:
    net = CNNM2048(3, width=0.03, input_size=64).eval()
    x, image = torch.randn(2, 3, 64, 64), torch.randn(3, 64, 64)
    expected = net(x - image)
    assert "mean_image" not in net.state_dict()
    net.mean_image = image
    assert torch.equal(net(x), expected)
    assert torch.equal(net.state_dict()["mean_image"], image)


def test_weights_bring_their_mean_image_and_take_away_another() -> None:
    def new() -> CNNM2048:
        return CNNM2048(3, width=0.03, input_size=64)

    plain, with_image = new(), new()
    with_image.mean_image = torch.randn(3, 64, 64)
    net = new()
    net.load_state_dict(with_image.state_dict())
    assert torch.equal(net.mean_image, with_image.mean_image)
    assert net.mean_image is not with_image.mean_image
    net.load_state_dict({"fc7.bias": plain.fc7.bias}, strict=False)  # says nothing of the first layer
    assert net.mean_image is not None
    net.load_state_dict(plain.state_dict())
    assert net.mean_image is None
    with torch.device("meta"):
        unfilled = new()
    unfilled.load_state_dict(with_image.state_dict(), assign=True)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(unfilled.eval()(x), with_image.eval()(x))


def test_a_mean_image_of_another_size_is_no_part_of_the_net() -> None:
    other = {**CNNM2048(3, width=0.03, input_size=64).state_dict(), "mean_image": torch.zeros(3, 70, 70)}
    with pytest.raises(RuntimeError, match="size mismatch for mean_image"):
        CNNM2048(3, width=0.03, input_size=64).load_state_dict(other)


def test_norm2_can_be_dropped() -> None:
    net = CNNM2048(20, width=0.03, norm2=False)
    assert not hasattr(net, "norm2")
    assert hasattr(net, "norm1")


def test_dropout_acts_on_both_full_layers_in_training_only() -> None:
    net = CNNM2048(3, width=0.25, input_size=64, dropout=0.9)
    zeros: dict[str, float] = {}
    for name in ("drop6", "drop7"):
        getattr(net, name).register_forward_hook(
            lambda _layer, _inputs, output, name=name: zeros.update({name: (output == 0).float().mean().item()})
        )
    ones = torch.ones(4, 1024)
    for layer in (net.drop6, net.drop7):
        layer(ones)
    assert zeros == pytest.approx({"drop6": 0.9, "drop7": 0.9}, abs=0.03)
    net.eval()
    assert torch.equal(net.drop6(ones), ones)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x), net(x))


def test_signals_neither_vanish_nor_explode_at_the_start() -> None:
    torch.manual_seed(5)
    net = CNNM2048(20, width=0.25, input_size=64, dropout=0.0, norm2=False)
    hidden = net(torch.randn(16, 20, 64, 64))
    assert hidden.shape == (16, 512)
    assert 0.05 < hidden.std().item() < 5
    assert all((p == 0).all() for n, p in net.named_parameters() if n.endswith("bias"))


def test_the_smallest_input_fits_and_one_pixel_less_is_refused() -> None:
    net = CNNM2048(2, width=0.03, input_size=SMALLEST_INPUT)
    assert net(torch.zeros(1, 2, SMALLEST_INPUT, SMALLEST_INPUT)).shape == (1, net.hidden)
    with pytest.raises(SettingsError, match=f"input_size must be at least {SMALLEST_INPUT}.*got 56"):
        CNNM2048(2, input_size=SMALLEST_INPUT - 1)


@pytest.mark.parametrize("wrong", [{"width": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_other_arguments_are_checked(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(SettingsError, match=f"CNNM2048: {name} must be"):
        CNNM2048(3, **wrong)


def test_importing_the_models_imports_nothing_heavy_or_optional(tmp_path: Path) -> None:
    code = (
        "import sys, twostream_ext.models;"
        "heavy = ('cv2', 'sklearn', 'matplotlib', 'tensorboard', 'scipy', 'google.protobuf', 'timm', 'torchvision');"
        "print([m for m in heavy if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
