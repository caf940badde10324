# SPDX-License-Identifier: BSD-3-Clause
"""A net of the user's own below both streams: registered, trained, saved, read and tested like the paper's."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import training_runs
from torch import Tensor, nn

from twostream_ext import models
from twostream_ext.cli import main
from twostream_ext.engine import (
    CHECKPOINT_FILE,
    RECIPES,
    TrainSettings,
    load_model,
    load_scores,
    save_model,
    train_batches,
)
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.models import (
    BackboneSettings,
    SpatialNet,
    StreamNet,
    TemporalNet,
    backbone_names,
    copy_backbone,
    find_backbone,
    freeze_backbone,
    load_pretrained,
    register_backbone,
)
from twostream_ext.tensor_files import read_tensors, write_tensors

SIDE = training_runs.SIDE
OURS = backbone_names()


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr("twostream_ext.models.backbones._registered", dict(models.backbones._registered))


@pytest.fixture
def small() -> type[nn.Module]:
    """The example of the documentation, registered as it says there."""
    text = inspect.getdoc(register_backbone)
    assert text is not None
    code = text.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"torch": torch, "twostream_ext": type("package", (), {"models": models})}
    exec(textwrap.dedent(code), names)
    made: type[nn.Module] = names["Small"]
    return made


# ---- the registry --------------------------------------------------------------------------------------------------


def test_the_example_is_found_and_built_into_both_nets(small: type[nn.Module]) -> None:
    assert backbone_names() == [*OURS, "small"]
    assert find_backbone("small") is small
    for net, channels in ((SpatialNet(5, backbone="small"), 3), (TemporalNet(5, length=4, backbone="small"), 8)):
        assert type(net.backbone) is small
        assert net.fc8["default"].in_features == 64
        assert net(torch.randn(2, channels, 224, 224)).shape == (2, 5)


def test_a_backbone_is_told_of_its_input() -> None:
    told: list[BackboneSettings] = []

    def make(settings: BackboneSettings) -> nn.Module:
        told.append(settings)
        net = nn.Flatten()
        net.hidden = settings.channels * settings.input_size**2  # type: ignore[assignment]
        return net

    register_backbone("flat", make)
    SpatialNet(2, backbone="flat", input_size=8, dropout=0.3, width=0.5, pretrained=True)
    TemporalNet({"a": 2, "b": 3}, length=5, backbone="flat", input_size=9)
    assert told == [
        BackboneSettings(3, takes_flow=False, input_size=8, dropout=0.3, width=0.5, pretrained=True),
        BackboneSettings(10, takes_flow=True, input_size=9, dropout=0.9),
    ]


def test_a_name_registered_again_stands_for_the_newer_one(small: type[nn.Module]) -> None:
    class Newer(small):  # type: ignore[misc, valid-type]
        pass

    register_backbone("small", Newer)
    assert type(SpatialNet(2, backbone="small").backbone) is Newer


def test_the_name_of_the_paper_s_backbone_is_kept(small: type[nn.Module]) -> None:
    with pytest.raises(SettingsError, match="register_backbone: 'cnn_m_2048' is the name of the paper's backbone"):
        register_backbone("cnn_m_2048", small)


@pytest.mark.parametrize("hidden", [None, 0, 2.0])
def test_a_backbone_that_does_not_say_its_size_is_refused(hidden: object) -> None:
    def make(settings: BackboneSettings) -> nn.Module:
        net = nn.Flatten()
        net.hidden = hidden  # type: ignore[assignment]
        return net

    register_backbone("silent", make)
    with pytest.raises(SettingsError, match=f"'silent': its attribute `hidden` must be .*, got {hidden}"):
        SpatialNet(2, backbone="silent")


# ---- all that is done with nets ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_runs.make_folder(tmp_path_factory.mktemp("videos"))


def arguments(videos: Path, command: str, out: Path) -> list[str]:
    sources = [*training_runs.sources(videos), "--out", str(out)]
    return [*command.split(), *sources, "--workers", "0"] if command.startswith("train") else [command, *sources]


def test_it_trains_goes_on_and_is_tested_by_the_commands(
    small: type[nn.Module], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], input_size=SIDE))
    numbers = ["--recipe", "demo", "--iterations", "6", "--batch-size", "8", "--length", "2", "--backbone", "small"]

    def trained(out: Path, *more: str) -> int:
        return main([*arguments(videos, "train temporal", out), *numbers, *more])

    assert trained(tmp_path / "whole") == 0
    with training_runs.sigterm_after(3):
        assert trained(tmp_path / "stopped") == 143
    assert trained(tmp_path / "stopped", "--resume") == 0
    whole, stopped = (load_model(tmp_path / name / "model.safetensors").net for name in ("whole", "stopped"))
    assert type(whole.backbone) is small
    assert (whole.settings.backbone, whole.settings.width) == ("small", 1)
    assert differences(whole, stopped) == set()

    model = str(tmp_path / "whole" / "model.safetensors")
    scores = tmp_path / "scores.safetensors"
    few = ["--model", model, "--frames-per-video", "2", "--crops", "1"]
    assert main([*arguments(videos, "evaluate", scores), *few]) == 0
    assert load_scores(scores).scores.shape == (1, 3)
    assert trained(tmp_path / "tuned", "--init", model, "--last-layer") == 0
    assert differences(whole, load_model(tmp_path / "tuned" / "model.safetensors").net) == {"fc8"}


def differences(first: StreamNet, second: StreamNet) -> set[str]:
    """Of backbone and fc8, those with a different weight."""
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    return {name.split(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}


def test_a_backbone_is_copied_and_frozen(small: type[nn.Module]) -> None:
    source, target = (SpatialNet(3, backbone="small", dropout=0.5, input_size=32) for _ in range(2))
    assert differences(source, target) == {"backbone", "fc8"}
    copy_backbone(source, target)
    assert differences(source, target) == {"fc8"}
    freeze_backbone(target.train())
    assert {name.split(".")[0] for name, each in target.named_parameters() if each.requires_grad} == {"fc8"}
    assert (target.backbone(torch.randn(50, 3, 32, 32)) == 0).float().mean() > 0.3
    with pytest.raises(SettingsError, match="the same backbone, got small and cnn_m_2048"):
        copy_backbone(source, SpatialNet(3, width=0.05, input_size=57))
    with pytest.raises(SettingsError, match="the net's backbone must be cnn_m_2048, got 'small'"):
        load_pretrained(source, "imagenet-vgg-m-2048.mat")


def test_a_file_of_a_backbone_that_is_not_registered_says_what_to_do(
    small: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, SpatialNet(2, backbone="small", input_size=32), ["run", "jump"])
    monkeypatch.setattr("twostream_ext.models.backbones._registered", {"cnn_m_2048": find_backbone("cnn_m_2048")})
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: backbone 'small' is not registered (registered: cnn_m_2048), and timm, ")
    assert text.endswith("; for a net of your own, call register_backbone('small', ...) first")
    assert "\n" not in text


def test_a_file_of_another_net_of_that_name_names_the_weight(small: type[nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, SpatialNet(2, backbone="small", input_size=32), ["run", "jump"])

    class Other(nn.Sequential):
        hidden = 64

        def __init__(self, settings: BackboneSettings) -> None:
            super().__init__(nn.Conv2d(settings.channels, 64, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    register_backbone("small", Other)
    expected = r"weight backbone\.0\.weight must be \[64, 3, 5, 5\], got \[64, 3, 7, 7\]"
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {expected}"):
        load_model(path)


@pytest.mark.parametrize("command", ["train", "run"])
def test_the_help_names_what_there_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out.partition("\n  --backbone NAME")[2].partition("\n  --")[0]
    for name in (*backbone_names(), "timm", "register_backbone"):
        assert name in text


# ---- files that 0.1.0 wrote ----------------------------------------------------------------------------------------

SETTINGS = TrainSettings(iterations=4, batch_size=3, checkpoint_every=2)


def old_net(net: StreamNet) -> dict[str, Any]:
    """What 0.1.0 wrote of a net: two streams that it knew by name, and whether there is a mean image."""
    settings = net.settings
    return {
        "stream": settings.stream,
        "classes": settings.classes,
        "backbone": settings.backbone,
        "dropout": settings.dropout,
        "width": settings.width,
        "input_size": settings.input_size,
        "length": settings.length,
        "bidirectional": settings.bidirectional,
        "mean_image": "backbone.mean_image" in net.state_dict(),
    }


def nets() -> list[StreamNet]:
    """Temporal, spatial, and spatial with a mean image."""
    torch.manual_seed(0)
    temporal = TemporalNet({"a": 2, "b": 3}, length=4, width=0.05, input_size=SIDE, bidirectional=True)
    spatial, with_image = (SpatialNet(3, width=0.05, input_size=SIDE) for _ in range(2))
    with_image.backbone.mean_image = torch.randn(3, SIDE, SIDE)
    return [temporal, spatial, with_image]


@pytest.mark.parametrize("number", range(3))
def test_an_old_model_is_read(number: int, tmp_path: Path) -> None:
    net = nets()[number].eval()
    classes = {name: [f"{name}{each}" for each in range(count)] for name, count in net.settings.classes.items()}
    path = tmp_path / "model.safetensors"
    write_tensors(path, "twostream model 1", net.state_dict(), {"net": old_net(net), "classes": classes})
    again, names = load_model(path)
    assert names == classes
    assert again.settings == net.settings
    assert differences(again, net) == set()
    assert ("backbone.mean_image" in again.state_dict()) == (number == 2)


@pytest.mark.parametrize("number", range(3))
def test_training_goes_on_from_an_old_checkpoint(number: int, tmp_path: Path) -> None:
    def trained(net: StreamNet, out: Path, *, iterations: int = 4) -> StreamNet:
        def batches(start: int) -> Iterator[int]:
            return iter(range(start, iterations))

        train_batches(net, batches, prepare=prepare, settings=SETTINGS, out_dir=out, progress=False)
        return net

    def prepare(iteration: int, *, seed: int, offset: int) -> tuple[Tensor, Tensor]:
        channels = 8 if number == 0 else 3
        generator = torch.Generator().manual_seed(offset)
        return torch.randn(3, channels, SIDE, SIDE, generator=generator), torch.arange(3)

    whole = trained(nets()[number], tmp_path / "whole")
    path = tmp_path / "stopped" / CHECKPOINT_FILE
    with pytest.raises(SettingsError, match="batches ended after 3"):
        trained(nets()[number], path.parent, iterations=3)
    tensors, description = read_tensors(path, "twostream checkpoint 1")
    assert description["net"] == asdict(whole.settings)
    write_tensors(path, "twostream checkpoint 1", tensors, {**description, "net": old_net(whole)})
    fresh = nets()[min(number, 1)]  # without a mean image, of which the checkpoint tells
    assert differences(trained(fresh, path.parent), whole) == set()


def test_an_old_checkpoint_of_another_net_is_refused(tmp_path: Path) -> None:
    net = nets()[1]
    description = {"net": {**old_net(net), "stream": "temporal", "length": 2}, "settings": {}, "iteration": 1}
    write_tensors(tmp_path / CHECKPOINT_FILE, "twostream checkpoint 1", {"net.a": torch.zeros(1)}, description)
    with pytest.raises(CheckpointError, match="made with stream 'temporal', now asked for 'spatial'"):
        train_batches(
            net,
            lambda start: iter(()),
            prepare=lambda *_, **__: None,
            settings=SETTINGS,
            out_dir=tmp_path,
            progress=False,
        )
