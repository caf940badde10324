# SPDX-License-Identifier: BSD-3-Clause
"""The spatial and the temporal net: a backbone and one linear classifier for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from twostream_ext.errors import SettingsError
from twostream_ext.models.cnn_m_2048 import CNNM2048
from twostream_ext.models.timm_backbone import TimmBackbone

if TYPE_CHECKING:
    from typing import Self

CNN_M_2048 = "cnn_m_2048"
"""Name of the paper's backbone; all others are timm's."""
ONLY_DATASET = "default"
"""Name of the head of a net that was given a plain number of classes."""


@dataclass(frozen=True)
class NetSettings:
    """All that is needed to build a net again; plain values, so that JSON can hold it."""

    stream: str  # "spatial" or "temporal"
    classes: dict[str, int]  # data set -> number of classes
    backbone: str
    dropout: float
    width: float
    input_size: int  # side of the square input in pixels
    length: int = 0  # flow fields in one input; 0 for the spatial net
    bidirectional: bool = False
    mean_image: bool = False  # the backbone subtracts one, see `load_pretrained`
    channels: int = 0  # of the input
    takes_flow: bool = False  # the input is flow and not RGB


class StreamNet(nn.Module):
    """What both nets share. Use `SpatialNet` or `TemporalNet`."""

    def __init__(self, settings: NetSettings, *, in_channels: int, pretrained: bool) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = _backbone(settings, in_channels, pretrained)
        self.fc8 = nn.ModuleDict({name: _head(self.backbone.hidden, count) for name, count in settings.classes.items()})
        # A quarter to a third faster on the CPU than planes one after the other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, dataset: str | None = None) -> Tensor | dict[str, Tensor]:
        """Float [N, channels, input_size, input_size] -> scores before the softmax [N, classes].

        dataset: whose classes. Left out, a net with one head gives the scores of that, and a net with several the
        scores of each by name.
        """
        if dataset is not None and dataset not in self.fc8:
            raise SettingsError(f"dataset must be one of {', '.join(self.fc8)}, got {dataset!r}")
        hidden = self.backbone(x)
        if dataset is None and len(self.fc8) > 1:
            return {name: head(hidden) for name, head in self.fc8.items()}
        scores: Tensor = self.fc8[dataset or next(iter(self.fc8))](hidden)
        return scores

    def train(self, mode: bool = True) -> Self:
        """As in torch; but of a frozen backbone only the dropout changes, and its statistics stay as they are."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            for layer in self.backbone.modules():
                layer.training = mode and isinstance(layer, nn.Dropout)
        return self


class SpatialNet(StreamNet):
    """Classifies one RGB frame (section 2.1 of the paper): input [N, 3, input_size, input_size].

    classes: number of classes, or that of each data set of a multi-task net, for instance
        {"ucf101": 101, "hmdb51": 51}.
    backbone: "cnn_m_2048", or the name of a net in the timm package (an optional extra; not of the paper), of which the
        features before its classifier are taken.
    dropout: of full6 and full7, or of timm's features; 0.5 or 0.9 in table 1a.
    width, input_size: see `CNNM2048`; width is 1 with timm's backbones.
    pretrained: start from timm's weights, see `TimmBackbone`; those of CNN-M-2048 come from a file by
        `load_pretrained`.
    """

    def __init__(
        self,
        classes: int | Mapping[str, int],
        *,
        backbone: str = "cnn_m_2048",
        dropout: float = 0.5,
        width: float = 1.0,
        input_size: int = 224,
        pretrained: bool = False,
    ) -> None:
        settings = NetSettings("spatial", _class_counts(classes), backbone, dropout, width, input_size)
        super().__init__(settings, in_channels=3, pretrained=pretrained)


class TemporalNet(StreamNet):
    """Classifies a stack of flow fields (section 3): input [N, 2 * length, input_size, input_size].

    CNN-M-2048 has no second normalisation here, as in the paper.

    classes, backbone, dropout, width, input_size, pretrained: as for `SpatialNet`; timm's weights are then made to take
        flow (cross-modality), which is not of the paper.
    length: L, flow fields in one stack.
    bidirectional: the stack is L/2 forward and L/2 backward fields. It changes no layer; the net
    remembers it for whoever prepares its inputs.
    """

    def __init__(
        self,
        classes: int | Mapping[str, int],
        *,
        length: int = 10,
        backbone: str = "cnn_m_2048",
        dropout: float = 0.9,
        width: float = 1.0,
        input_size: int = 224,
        bidirectional: bool = False,
        pretrained: bool = False,
    ) -> None:
        if length < 1 or (bidirectional and length % 2):
            raise SettingsError(f"length must be at least 1, and even for a bi-directional stack, got {length}")
        settings = NetSettings(
            "temporal",
            _class_counts(classes),
            backbone,
            dropout,
            width,
            input_size,
            length,
            bidirectional,
        )
        super().__init__(settings, in_channels=2 * length, pretrained=pretrained)


def build_net(settings: NetSettings) -> StreamNet:
    """The net that `settings` describes, with new weights."""
    if settings.stream == "spatial":
        net = SpatialNet(
            settings.classes,
            backbone=settings.backbone,
            dropout=settings.dropout,
            width=settings.width,
            input_size=settings.input_size,
        )
        if settings.mean_image:
            expect_mean_image(net)
        return net
    if settings.stream == "temporal":
        return TemporalNet(
            settings.classes,
            length=settings.length,
            backbone=settings.backbone,
            dropout=settings.dropout,
            width=settings.width,
            input_size=settings.input_size,
            bidirectional=settings.bidirectional,
        )
    if settings.channels:
        return StreamNet(settings, in_channels=settings.channels, pretrained=False)
    raise SettingsError(f"stream must be spatial or temporal, got {settings.stream!r}")


def build_unfilled_net(settings: NetSettings) -> StreamNet:
    """The net that `settings` describes, to be given all its weights by `load_state_dict(..., assign=True)`.

    No time is spent on first weights, except on timm's nets: some of those hold tensors that no file does.
    """
    with torch.device("meta") if settings.backbone == CNN_M_2048 else nullcontext():
        return build_net(settings)


def set_mean_image(net: StreamNet, image: Tensor | None) -> None:
    """Let a net with CNN-M-2048 subtract `image`, float [3, input_size, input_size], from its input; None: nothing."""
    place = next(net.backbone.parameters())
    net.backbone.mean_image = None if image is None else image.to(place.device, place.dtype)
    net.settings = replace(net.settings, mean_image=image is not None)


def expect_mean_image(net: StreamNet) -> None:
    """Give a net the place of a mean image, to be filled with the one of another net."""
    set_mean_image(net, torch.zeros(3, net.settings.input_size, net.settings.input_size))


def freeze_backbone(net: StreamNet) -> None:
    """Train only the heads from now on ("last layer only" of table 1a); everything below them keeps its bits.

    Dropout stays active in training; normalisation by batch statistics, which some of timm's nets have, goes by the
    statistics of its earlier training. `net.requires_grad_(True)` is the way back. Not kept in files of nets and
    checkpoints: call it again for a net that was read from one.
    """
    net.backbone.requires_grad_(False)
    net.train(net.training)


def copy_backbone(source: StreamNet, target: StreamNet) -> None:
    """Start `target` from all of `source` but its heads, as in fine-tuning on another data set (table 2, second row).

    SettingsError if the two differ in anything but their data sets, dropout and the direction of their flow.
    """
    for name in ("stream", "backbone", "width", "input_size", "length"):
        ours, theirs = getattr(target.settings, name), getattr(source.settings, name)
        if ours != theirs:
            raise SettingsError(f"copy_backbone: source and target must have the same {name}, got {theirs} and {ours}")
    if isinstance(source.backbone, CNNM2048):
        image = source.backbone.mean_image
        set_mean_image(target, None if image is None else image.clone())
    target.backbone.load_state_dict(source.backbone.state_dict())


def _backbone(settings: NetSettings, in_channels: int, pretrained: bool) -> CNNM2048 | TimmBackbone:
    spatial = settings.stream == "spatial"
    if settings.backbone == CNN_M_2048:
        if pretrained:
            raise SettingsError(f"pretrained weights of {CNN_M_2048} come from a file: use load_pretrained(net, path)")
        return CNNM2048(
            in_channels,
            width=settings.width,
            input_size=settings.input_size,
            dropout=settings.dropout,
            norm2=spatial,
        )
    if settings.width != 1:
        raise SettingsError(f"width must be 1 for backbones other than {CNN_M_2048}, got {settings.width}")
    return TimmBackbone(
        settings.backbone,
        in_channels,
        rgb=spatial,
        input_size=settings.input_size,
        dropout=settings.dropout,
        pretrained=pretrained,
    )


def _class_counts(classes: int | Mapping[str, int]) -> dict[str, int]:
    counts = {ONLY_DATASET: classes} if isinstance(classes, int) else dict(classes)
    if not counts or min(counts.values()) < 1:
        raise SettingsError(f"classes must be at least 1 for each data set, got {classes}")
    return counts


def _head(hidden: int, classes: int) -> nn.Linear:
    """A linear classifier with small weights, so that the first loss is near log(classes)."""
    layer = nn.Linear(hidden, classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
