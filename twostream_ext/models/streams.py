# SPDX-License-Identifier: BSD-3-Clause
"""The spatial and the temporal net: a backbone and one linear classifier for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twostream_ext.errors import SettingsError
from twostream_ext.models.cnn_m_2048 import CNNM2048

BACKBONES = {"cnn_m_2048": CNNM2048}
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


class StreamNet(nn.Module):
    """What both nets share. Use `SpatialNet` or `TemporalNet`."""

    def __init__(self, settings: NetSettings, *, in_channels: int, norm2: bool) -> None:
        super().__init__()
        if settings.backbone not in BACKBONES:
            raise SettingsError(f"backbone must be one of {', '.join(BACKBONES)}, got {settings.backbone!r}")
        self.settings = settings
        self.backbone = BACKBONES[settings.backbone](
            in_channels,
            width=settings.width,
            input_size=settings.input_size,
            dropout=settings.dropout,
            norm2=norm2,
        )
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


class SpatialNet(StreamNet):
    """Classifies one RGB frame (section 2.1 of the paper): input [N, 3, input_size, input_size].

    classes: number of classes, or that of each data set of a multi-task net, for instance
        {"ucf101": 101, "hmdb51": 51}.
    dropout: 0.5 or 0.9 in table 1a.
    width, input_size: see `CNNM2048`.
    """

    def __init__(
        self,
        classes: int | Mapping[str, int],
        *,
        backbone: str = "cnn_m_2048",
        dropout: float = 0.5,
        width: float = 1.0,
        input_size: int = 224,
    ) -> None:
        settings = NetSettings("spatial", _class_counts(classes), backbone, dropout, width, input_size)
        super().__init__(settings, in_channels=3, norm2=True)


class TemporalNet(StreamNet):
    """Classifies a stack of flow fields (section 3): input [N, 2 * length, input_size, input_size].

    Has no second normalisation, as in the paper.

    classes, width, input_size: as for `SpatialNet`.
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
        super().__init__(settings, in_channels=2 * length, norm2=False)


def build_net(settings: NetSettings) -> StreamNet:
    """The net that `settings` describes, with new weights."""
    if settings.stream == "spatial":
        return SpatialNet(
            settings.classes,
            backbone=settings.backbone,
            dropout=settings.dropout,
            width=settings.width,
            input_size=settings.input_size,
        )
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
    raise SettingsError(f"stream must be spatial or temporal, got {settings.stream!r}")


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
