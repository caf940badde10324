# SPDX-License-Identifier: BSD-3-Clause
"""Backbones of the timm package (an optional extra), which the paper knows nothing of."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from twostream_ext.errors import CheckpointError, SettingsError, first_line
from twostream_ext.models.backbone_settings import BackboneSettings
from twostream_ext.models.rgb import RGB_MEAN, RGB_STD
from twostream_ext.tensor_files import read_weights


class NoTimmNetError(SettingsError):
    """timm cannot be imported, or cannot make the net; the text says which, as "timm ..." goes on."""


class TimmBackbone(nn.Module):
    """A net of timm up to its features: float [N, channels, input_size, input_size] -> [N, hidden].

    name: any of `timm.list_models()`, `"resnet50"` say, with or without the tag of its weights.

    A frame is brought from our normalisation to what the net was trained on. `dropout` is that of a feature; width must
    be 1. `pretrained` takes timm's weights (which it downloads); where the input is no frame, the filters of the first
    layer are averaged over RGB and repeated for each channel: cross-modality, not of the paper.

    NoTimmNetError if timm cannot be imported, does not know the name or cannot get the weights; SettingsError if the
    net cannot have those settings.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, name: str, settings: BackboneSettings) -> None:
        super().__init__()
        _check(name, settings)
        channels, size = settings.channels, settings.input_size
        frame = not settings.takes_flow and channels == len(RGB_MEAN)
        self.net = _create(name, channels, pretrained=settings.pretrained and frame)
        if settings.pretrained and not frame:
            colour = _create(name, len(RGB_MEAN), pretrained=True)
            self.net.load_state_dict(_for_channels(name, colour.state_dict(), self.net.state_dict()))
        trained_on: dict[str, Any] = self.net.pretrained_cfg
        _check_size(name, trained_on, size)
        self.input_shape = (channels, size, size)
        self.hidden: int = self.net.head_hidden_size
        self.dropout = nn.Dropout(settings.dropout)
        scale, shift = _normalisation(trained_on) if frame else (None, None)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise SettingsError(f"the net takes [N, {expected}], got {list(x.shape)}")
        if self.scale is not None and self.shift is not None:
            x = x * self.scale + self.shift
        features: Tensor = self.dropout(self.net(x))
        return features


def timm_input_size(name: str) -> int:
    """Side in pixels of the square input that a net of timm was made for.

    SettingsError if timm cannot be imported or does not know the name.
    """
    try:
        size: int = _create(name, len(RGB_MEAN), pretrained=False).pretrained_cfg["input_size"][-1]
    except NoTimmNetError as error:
        raise SettingsError(f"{name}: timm {error}") from error
    return size


def load_timm_weights(net: TimmBackbone, path: str | os.PathLike[str]) -> None:
    """Give a net of timm the weights in a file, as timm and its hub write them; those of its classifier are left out.

    CheckpointError, naming the file and the weight, if it is missing, damaged or of another net.
    """
    expected = {name: tensor.shape for name, tensor in net.net.state_dict().items()}
    weights = read_weights(path)
    for name, shape in expected.items():
        if name not in weights or weights[name].shape != shape:
            got = list(weights[name].shape) if name in weights else None
            raise CheckpointError(f"{path}: weight {name} must be {list(shape)}, got {got}")
    net.net.load_state_dict({name: weights[name] for name in expected})


def _check(name: str, settings: BackboneSettings) -> None:
    if not 0 <= settings.dropout < 1:
        raise SettingsError(f"{name}: dropout must be in 0 .. 1 (below 1), got {settings.dropout}")
    if settings.width != 1:
        raise SettingsError(f"backbone {name!r}: width must be 1 for nets of timm, got {settings.width}")


def _create(name: str, channels: int, *, pretrained: bool) -> Any:
    if ":" in name:  # the address of a hub or of a folder: a model file, which may come from anyone, names its backbone
        raise NoTimmNetError("has no nets with a colon in their names; nets from elsewhere are not fetched")
    timm = _import_timm()
    try:
        return timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=0)
    except SettingsError:  # ours: larger than it may be
        raise
    except Exception as error:  # of whatever kind: the name, the network, the hub, the net's own
        raise NoTimmNetError(f"cannot make it: {first_line(error)}") from error


def _import_timm() -> ModuleType:
    try:
        import timm
    except Exception as error:  # a torchvision that does not fit torch raises a RuntimeError
        raise NoTimmNetError(
            f"cannot be imported ({first_line(error)}): pip install 'twostream_ext[timm]', and the torchvision that "
            "belongs to your torch"
        ) from error
    module: ModuleType = timm
    return module


def _for_channels(name: str, colour: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a net for RGB, those of its first layer averaged over RGB and repeated for each channel."""
    weights = dict(colour)
    for key, target in wanted.items():
        given = colour[key]
        if given.shape == target.shape:
            continue
        averaged = given.mean(1, keepdim=True).expand_as(target) if _is_first_layer(given, target) else None
        if averaged is None:
            raise SettingsError(
                f"backbone {name!r}: {key} is {list(given.shape)}, and cannot be made {list(target.shape)}"
            )
        weights[key] = averaged
    return weights


def _is_first_layer(given: Tensor, target: Tensor) -> bool:
    same_but_channels = given.shape[:1] + given.shape[2:] == target.shape[:1] + target.shape[2:]
    return given.dim() == 4 and given.shape[1] == len(RGB_MEAN) and same_but_channels


def _check_size(name: str, trained_on: dict[str, Any], input_size: int) -> None:
    own = trained_on["input_size"][-1]
    if trained_on.get("fixed_input_size") and input_size != own:
        raise SettingsError(f"backbone {name!r}: input_size must be {own}, got {input_size}")
    smallest = (trained_on.get("min_input_size") or (0,))[-1]
    if input_size < max(1, smallest):
        raise SettingsError(f"backbone {name!r}: input_size must be at least {max(1, smallest)}, got {input_size}")


def _normalisation(trained_on: dict[str, Any]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Scale and shift [1, 3, 1, 1] from our normalisation to that of the net's training; None if it is the same."""
    mean, std = (255 * torch.tensor(trained_on[key], dtype=torch.float64) for key in ("mean", "std"))
    our_mean, our_std = (torch.tensor(each, dtype=torch.float64) for each in (RGB_MEAN, RGB_STD))
    if torch.allclose(mean, our_mean) and torch.allclose(std, our_std):
        return None, None
    scale, shift = our_std / std, (our_mean - mean) / std
    return scale.float().view(1, 3, 1, 1), shift.float().view(1, 3, 1, 1)
