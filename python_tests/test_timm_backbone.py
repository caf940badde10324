# SPDX-License-Identifier: BSD-3-Clause
"""Backbones of timm: the real package where it can be imported, and everywhere a stand-in with its interface."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision_package import import_timm

from twostream_ext.engine import find_recipe, load_model, new_net, save_model
from twostream_ext.errors import SettingsError
from twostream_ext.models import NetSettings, SpatialNet, StreamNet, TemporalNet, backbone_names, freeze_backbone
from twostream_ext.models.rgb import RGB_MEAN, RGB_STD

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of timm's most nets, for pixels of 0 .. 1


class StandIn(nn.Module):
    """What timm documents of a net made with num_classes=0: features, their number, and what it was trained on."""

    def __init__(self, in_chans: int, **settings: object) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 6, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.head_hidden_size = 6
        self.pretrained_cfg = {"input_size": (3, 224, 224), "mean": MEAN, "std": STD, **settings}

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.stem(x)).relu().mean((2, 3))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The settings of the nets that the stand-in makes; those called "trained" differ from all others."""
    settings: dict[str, Any] = {}

    def create_model(model_name: str, pretrained: bool, in_chans: int, num_classes: int) -> StandIn:
        assert num_classes == 0
        if model_name == "nonsense":
            raise RuntimeError("Unknown model (nonsense)\nfurther advice")
        with torch.random.fork_rng():
            torch.manual_seed(7 if pretrained else torch.seed() % 2**32)
            return StandIn(in_chans, **settings)

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    return settings


def trained() -> StandIn:
    torch.manual_seed(7)
    return StandIn(3)


def test_a_spatial_net_is_the_features_and_a_head(stand_in: dict[str, Any]) -> None:
    net = SpatialNet({"a": 4, "b": 5}, backbone="small", pretrained=True, input_size=32).eval()
    assert net.settings == NetSettings("spatial", {"a": 4, "b": 5}, "small", 0.5, 1.0, 32, 3, False)
    assert net.fc8["a"].in_features == 6
    x = torch.randn(2, 3, 32, 32)
    head = net.fc8["b"]
    torch.testing.assert_close(net(x, "b"), trained().eval()(x) @ head.weight.T + head.bias)


def test_frames_come_as_the_net_was_trained_on_them(stand_in: dict[str, Any]) -> None:
    stand_in.update(mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7))
    net = SpatialNet(4, backbone="small", pretrained=True, input_size=32).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).double()
    ours, theirs = (
        (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in ((RGB_MEAN, RGB_STD), ((127.5, 102, 76.5), (127.5, 153, 178.5)))
    )
    torch.testing.assert_close(net.backbone(ours.float()), trained().eval()(theirs.float()), rtol=1e-4, atol=1e-5)


def test_a_pretrained_temporal_net_averages_the_first_layer_over_rgb(stand_in: dict[str, Any]) -> None:
    stand_in.update(mean=(0.5, 0.4, 0.3))  # of frames: flow is left alone
    net = TemporalNet(4, length=3, backbone="small", pretrained=True, input_size=32).eval()
    source = trained()
    filters = net.backbone.net.stem.weight
    assert filters.shape == (6, 6, 3, 3)
    for channel in range(6):
        torch.testing.assert_close(filters[:, channel], source.stem.weight.mean(1))
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(  # summed over 6 channels instead of 3
        net.backbone.net.stem(grey.expand(-1, 6, -1, -1)), 2 * source.stem(grey.expand(-1, 3, -1, -1))
    )
    x = torch.randn(2, 6, 32, 32)
    torch.testing.assert_close(net.backbone(x), net.backbone.net(x))


def test_without_pretrained_the_weights_are_new(stand_in: dict[str, Any]) -> None:
    net = TemporalNet(4, length=3, backbone="small", input_size=32)
    assert net.backbone.net.stem.in_channels == 6
    assert net.backbone.net.stem.weight.std(1).min() > 1e-3


def test_a_first_layer_of_another_kind_is_refused(stand_in: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(model_name: str, pretrained: bool, in_chans: int, num_classes: int) -> StandIn:
        net = StandIn(3)
        net.stem = nn.Linear(in_chans * 16, 6)
        return net

    monkeypatch.setattr(sys.modules["timm"], "create_model", flat)
    with pytest.raises(SettingsError, match=r"backbone 'flat': stem.weight is \[6, 48\], and cannot be made \[6, 64\]"):
        TemporalNet(4, length=2, backbone="flat", pretrained=True)


def test_dropout_acts_on_the_features_in_training_only(stand_in: dict[str, Any]) -> None:
    net = SpatialNet(4, backbone="small", dropout=0.9, input_size=32).train()
    assert (net.backbone(torch.randn(200, 3, 32, 32)) == 0).float().mean() > 0.85
    net.eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(net.backbone(x), net.backbone.net(x))
    with pytest.raises(SettingsError, match="small: dropout must be in 0"):
        SpatialNet(4, backbone="small", dropout=1.0)


def test_training_the_last_layer_only_leaves_the_statistics_alone(stand_in: dict[str, Any]) -> None:
    net = SpatialNet(4, backbone="small", dropout=0.5, input_size=32)
    freeze_backbone(net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        net.train()
        nn.functional.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8) % 4).backward()
        optimizer.step()
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc8.default.weight", "fc8.default.bias"}
    assert (net.backbone(torch.randn(50, 3, 32, 32)) == 0).float().mean() > 0.3
    net.requires_grad_(True)
    net.train()(torch.randn(8, 3, 32, 32))
    assert net.backbone.net.bn1.num_batches_tracked == 1


def test_inputs_of_another_size_are_refused(stand_in: dict[str, Any]) -> None:
    net = TemporalNet(4, length=2, backbone="small", input_size=32)
    for shape in ([1, 4, 32, 33], [1, 3, 32, 32]):
        with pytest.raises(SettingsError, match=r"the net takes \[N, 4, 32, 32\], got \[1, "):
            net(torch.zeros(shape))
    with pytest.raises(SettingsError, match="'small': input_size must be at least 1, got 0"):
        SpatialNet(4, backbone="small", input_size=0)
    stand_in.update(min_input_size=(3, 96, 96))
    with pytest.raises(SettingsError, match="'small': input_size must be at least 96, got 95"):
        SpatialNet(4, backbone="small", input_size=95)
    stand_in.update(fixed_input_size=True)
    with pytest.raises(SettingsError, match="'small': input_size must be 224, got 96"):
        SpatialNet(4, backbone="small", input_size=96)


def test_an_unknown_name_and_an_absent_timm_give_one_line(
    stand_in: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SettingsError, match=r"backbone 'nonsense' is not registered.*cannot make it: Unknown model"
    ) as caught:
        SpatialNet(4, backbone="nonsense")
    assert str(caught.value) == (
        f"backbone 'nonsense' is not registered (registered: {', '.join(backbone_names())}), and timm, which is asked "
        "for all others, cannot make it: Unknown model (nonsense); for a net of your own, call "
        "register_backbone('nonsense', ...) first"
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SettingsError) as caught:
        SpatialNet(4, backbone="resnet50")
    assert re.match(r"backbone 'resnet50' is not registered.*, and timm, .*, cannot be imported \(", str(caught.value))
    assert "pip install 'twostream_ext[timm]'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_the_width_of_a_recipe_is_that_of_cnn_m_2048_alone(stream: str, stand_in: dict[str, Any]) -> None:
    recipe = replace(find_recipe("small"), backbone="small")
    assert recipe.width != 1
    assert new_net(recipe, stream, 4, seed=0).settings.width == 1


@pytest.mark.parametrize("make", [SpatialNet, TemporalNet])
def test_a_net_survives_its_own_file(make: Callable[..., StreamNet], stand_in: dict[str, Any], tmp_path: Path) -> None:
    stand_in.update(std=(0.5, 0.5, 0.5))
    net = make(4, backbone="small", input_size=32).eval()
    net.backbone.net.bn1.running_mean.fill_(0.3)
    save_model(tmp_path / "net.safetensors", net, list("abcd"))
    again = load_model(tmp_path / "net.safetensors").net
    x = torch.randn(2, 3 if make is SpatialNet else 20, 32, 32)
    torch.testing.assert_close(again(x), net(x))


# ---- the real package ----------------------------------------------------------------------------------------------


@pytest.fixture
def timm() -> ModuleType:
    return import_timm()


def test_the_interface_that_the_stand_in_has_is_that_of_timm(timm: ModuleType) -> None:
    for name, size in (("resnet18", 64), ("mobilenetv3_small_050", 64), ("vit_tiny_patch16_224", 224)):
        net = SpatialNet(3, backbone=name, input_size=size).eval()
        with torch.no_grad():
            features = net.backbone(torch.randn(1, 3, size, size))
        assert features.shape == (1, net.backbone.hidden), name
        assert net.fc8["default"].in_features == net.backbone.hidden
    assert net.backbone.scale is not None  # this one was trained on mean and deviation 0.5
    with pytest.raises(SettingsError, match="'vit_tiny_patch16_224': input_size must be 224, got 112"):
        SpatialNet(3, backbone="vit_tiny_patch16_224", input_size=112)
    with pytest.raises(SettingsError, match=r"'vgg' is not registered.*cannot make it: Unknown model"):
        SpatialNet(3, backbone="vgg")


def test_weights_of_timm_go_into_a_temporal_net(
    timm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By timm's own way of loading, from a file in place of its download."""
    source = timm.create_model("resnet18", pretrained=False, num_classes=1000)
    save_file(source.state_dict(), tmp_path / "resnet18.safetensors")
    create, overlay = timm.create_model, {"file": str(tmp_path / "resnet18.safetensors")}
    monkeypatch.setattr(
        timm, "create_model", lambda *args, **options: create(*args, **options, pretrained_cfg_overlay=overlay)
    )
    net = TemporalNet(3, length=10, backbone="resnet18", input_size=64, pretrained=True).eval()
    filters = net.backbone.net.conv1.weight
    torch.testing.assert_close(filters, source.conv1.weight.mean(1, keepdim=True).expand(-1, 20, -1, -1))
    source.eval().reset_classifier(0)
    with torch.no_grad():
        grey = torch.randn(2, 1, 64, 64)
        # Twenty channels of 3/20 of the grey value sum up to what three of it do.
        features = net.backbone(0.15 * grey.expand(-1, 20, -1, -1))
        torch.testing.assert_close(features, source(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_a_real_net_trains_and_survives_its_file(timm: ModuleType, tmp_path: Path) -> None:
    net = TemporalNet(3, length=2, backbone="resnet18", input_size=64, dropout=0.2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    x, labels = torch.randn(6, 4, 64, 64), torch.arange(6) % 3
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    save_model(tmp_path / "net.safetensors", net.eval(), list("abc"))
    again = load_model(tmp_path / "net.safetensors").net
    torch.testing.assert_close(again(x), net(x), rtol=1e-4, atol=1e-4)
