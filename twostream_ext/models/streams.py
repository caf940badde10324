# SPDX-License-Identifier: BSD-3-Clause
"""The spatial and the temporal net: a backbone and one linear classifier for each data set."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from twostream_ext.errors import SettingsError
from twostream_ext.models.backbone_settings import BackboneSettings
from twostream_ext.models.backbones import find_backbone
from twostream_ext.models.rgb import RGB_MEAN

if TYPE_CHECKING:
    from typing import Self

# Some nets make layers that they replace at once.
_SPARE_TIMES, _SPARE = 2, 1 << 24

ONLY_DATASET = "default"
"""Name of the head of a net that was given a plain number of classes."""

FLOW_INPUTS = ("stack", "trajectory")
"""How a temporal net's fields are sampled: at the same place, or along trajectories (the paper's equations 1 and 2)."""

LAYERS = ("fc6", "fc7", "scores")
"""What `StreamNet.activations` gives: the first full layer, the last hidden one of whatever backbone, the softmax."""

SUBTRACTIONS = ("none", "mean", "affine")
"""What is subtracted from each of its fields against camera motion: nothing, the field's mean displacement, or the
affine map that most of it follows (`ops.camera_motion`)."""


class TemporalInput(NamedTuple):
    """How the input of a temporal net is made of flow fields: what `TemporalNet` takes under these names."""

    length: int
    bidirectional: bool
    input: str
    subtract: str


@dataclass(frozen=True)
class NetSettings:
    """All that is needed to build a net again; plain values, so that JSON can hold it."""

    stream: str  # its name, for whoever prepares inputs: "spatial", "temporal"
    classes: dict[str, int]  # data set -> number of classes
    backbone: str
    dropout: float
    width: float
    input_size: int  # side of the square input in pixels
    channels: int  # of the input
    takes_flow: bool  # the input is flow and not RGB
    length: int = 0  # flow fields in one input; 0 for the spatial net
    bidirectional: bool = False
    input: str = "stack"  # one of FLOW_INPUTS; of a stack of flow fields, as bidirectional and subtract
    subtract: str = "mean"  # one of SUBTRACTIONS

    def __post_init__(self) -> None:
        """SettingsError for a value that has no meaning."""
        for name, values in (("input", FLOW_INPUTS), ("subtract", SUBTRACTIONS)):
            if getattr(self, name) not in values:
                raise SettingsError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(values)}")


class StreamNet(nn.Module):
    """A backbone (see `register_backbone`) and a linear classifier for each data set: the net of any stream.

    `SpatialNet` and `TemporalNet` are those of the paper; `build_net` makes one from its settings.
    """

    def __init__(self, settings: NetSettings, *, pretrained: bool = False, unfilled: bool = False) -> None:
        """Start with random weights; `pretrained`, `unfilled`: see `BackboneSettings`."""
        super().__init__()
        self.settings = settings
        self.backbone = _make_backbone(settings, pretrained, unfilled)
        hidden = _hidden(settings.backbone, self.backbone)
        with torch.device("meta") if unfilled else nullcontext():
            self.fc8 = nn.ModuleDict({name: _head(hidden, count) for name, count in settings.classes.items()})
        # A quarter to a third faster on the CPU than planes one after the other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, dataset: str | None = None) -> Tensor | dict[str, Tensor]:
        """Float [N, channels, input_size, input_size] -> scores before the softmax [N, classes].

        dataset: whose classes. Left out, a net with one head gives the scores of that, and a net with several the
        scores of each by name.
        """
        return self._classify(self.backbone(x), dataset)

    def activations(self, x: Tensor, layer: str) -> Tensor:
        """Of a layer, one of `LAYERS`, float [N, D], for inputs as of `forward`; after the ReLU, if it has one.

        "fc7": the `hidden` outputs of the backbone, whichever it is. "fc6": of a backbone that offers `full6`, as
        CNN-M-2048 does. "scores": the softmax of each data set's classes, one after the other.

        SettingsError if there is no such layer. Give it a net in evaluation mode, or dropout is in the values.
        """
        self.check_layer(layer)
        if layer == "fc6":
            return cast(Tensor, cast(Any, self.backbone).full6(x))
        hidden: Tensor = self.backbone(x)
        return hidden if layer == "fc7" else torch.cat([head(hidden).softmax(1) for head in self.fc8.values()], 1)

    def check_layer(self, layer: str) -> None:
        """SettingsError unless `activations` can give that layer."""
        if layer not in LAYERS:
            raise SettingsError(f"layer is {layer!r}, expected one of {', '.join(LAYERS)}")
        if layer == "fc6" and not hasattr(self.backbone, "full6"):
            raise SettingsError(f"layer is 'fc6', which {self.settings.backbone} does not have; expected fc7 or scores")

    @property
    def stem_stride(self) -> int | None:
        """Pixels that a step in the maps of the backbone's first layers is; None for one that does not offer `stem`."""
        return getattr(self.backbone, "stem_stride", None)

    def stem(self, x: Tensor) -> Tensor:
        """The backbone's first layers, of inputs [N, channels, height, width] of any size: see `register_backbone`."""
        return cast(Tensor, cast(Any, self.backbone).stem(x))

    def from_stem(self, maps: Tensor, dataset: str | None = None) -> Tensor | dict[str, Tensor]:
        """What `forward` gives, from the maps that `stem` gives of inputs of the net's size."""
        return self._classify(cast(Any, self.backbone).above_stem(maps), dataset)

    def _classify(self, hidden: Tensor, dataset: str | None) -> Tensor | dict[str, Tensor]:
        if dataset is not None and dataset not in self.fc8:
            raise SettingsError(f"dataset must be one of {', '.join(self.fc8)}, got {dataset!r}")
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
    """Classifies one RGB frame (section 2 of the paper): input [N, 3, input_size, input_size].

    classes: number of classes, or that of each data set of a multi-task net, for instance
        {"ucf101": 101, "hmdb51": 51}.
    backbone: "cnn_m_2048", a name given to `register_backbone`, or that of a net in the timm package (an optional
        extra; not of the paper), of which the features before its classifier are taken.
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
        settings = NetSettings(
            "spatial",
            _class_counts(classes),
            backbone,
            dropout,
            width,
            input_size,
            channels=len(RGB_MEAN),
            takes_flow=False,
        )
        super().__init__(settings, pretrained=pretrained)


class TemporalNet(StreamNet):
    """Classifies a stack of flow fields (section 3): input [N, 2 * length, input_size, input_size].

    CNN-M-2048 has no second normalisation here, as in the paper.

    classes, backbone, dropout, width, input_size, pretrained: as for `SpatialNet`; timm's weights are then made to take
        flow (cross-modality), which is not of the paper.
    length: L, flow fields in one stack.
    bidirectional: the stack is L/2 forward and L/2 backward fields.
    input: how fields are sampled, one of `FLOW_INPUTS`. subtract: what from each of them, one of `SUBTRACTIONS`.

    The last three change no layer; the net remembers them for whoever prepares its inputs.
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
        input: str = "stack",
        subtract: str = "mean",
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
            channels=2 * length,
            takes_flow=True,
            length=length,
            bidirectional=bidirectional,
            input=input,
            subtract=subtract,
        )
        super().__init__(settings, pretrained=pretrained)


def build_net(settings: NetSettings) -> StreamNet:
    """The net that `settings` describes, with new weights."""
    return StreamNet(settings)


def build_unfilled_net(settings: NetSettings, weights: int) -> StreamNet:
    """The net that `settings` describes, to be given all its weights by `load_state_dict(..., assign=True)`.

    Where the backbone knows how to, no time is spent on first weights.

    weights: how many numbers there are for it. SettingsError as soon as it is seen to need far more, before memory is
    taken for them: settings out of a file may name any net.
    """
    with _bounded(_SPARE_TIMES * weights + _SPARE):
        return StreamNet(settings, unfilled=True)


@contextmanager
def _bounded(most: int) -> Iterator[None]:
    """SettingsError where this thread makes modules of more weights in all: at their registration, not yet filled."""
    thread, seen, total = threading.get_ident(), set[int](), 0

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is None or id(parameter) in seen or threading.get_ident() != thread:
            return
        seen.add(id(parameter))
        total += parameter.numel()
        if total > most:
            raise SettingsError(f"the net has more than {most} weights, and there are not so many in the file")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def freeze_backbone(net: StreamNet) -> None:
    """Train only the heads from now on ("last layer only" of table 1a); everything below them keeps its bits.

    Dropout stays active in training; normalisation by batch statistics, which some of timm's nets have, goes by the
    statistics of its earlier training. `net.requires_grad_(True)` is the way back. Not kept in files of nets and
    checkpoints: call it again for a net that was read from one.
    """
    net.backbone.requires_grad_(False)
    net.train(net.training)


def first_filters(net: StreamNet) -> Tensor | None:
    """Weights [filters, channels, h, w] of the convolution that sees the net's input; None if it has none."""
    for layer in net.backbone.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == net.settings.channels and layer.groups == 1:
            return layer.weight.detach()
    return None


def copy_backbone(source: StreamNet, target: StreamNet) -> None:
    """Start `target` from all of `source` but its heads, as in fine-tuning on another data set (table 2, second row).

    SettingsError if the two differ in anything but their data sets, dropout and how their flow is prepared.
    """
    for name in ("stream", "backbone", "width", "input_size", "length", "channels"):
        ours, theirs = getattr(target.settings, name), getattr(source.settings, name)
        if ours != theirs:
            raise SettingsError(f"copy_backbone: source and target must have the same {name}, got {theirs} and {ours}")
    target.backbone.load_state_dict(source.backbone.state_dict())


def _make_backbone(settings: NetSettings, pretrained: bool, unfilled: bool) -> nn.Module:
    make = find_backbone(settings.backbone)
    return make(
        BackboneSettings(
            channels=settings.channels,
            takes_flow=settings.takes_flow,
            input_size=settings.input_size,
            dropout=settings.dropout,
            width=settings.width,
            pretrained=pretrained,
            unfilled=unfilled,
        )
    )


def _hidden(name: str, backbone: nn.Module) -> int:
    hidden = getattr(backbone, "hidden", None)
    if not isinstance(hidden, int) or hidden < 1:
        raise SettingsError(
            f"backbone {name!r}: its attribute `hidden` must be the size of its last hidden layer, got {hidden!r}"
        )
    return hidden


def _class_counts(classes: int | Mapping[str, int]) -> dict[str, int]:
    counts = {ONLY_DATASET: classes} if isinstance(classes, int) else dict(classes)
    if not counts or min(counts.values()) < 1:
        raise SettingsError(f"classes must be at least 1 for each data set, got {classes}")
    for name in counts:
        if not name or "." in name or hasattr(nn.ModuleDict, name):  # which torch has names of its own for
            raise SettingsError(f"a data set cannot be called {name!r}, as no layer can; choose another name")
    return counts


def _head(hidden: int, classes: int) -> nn.Linear:
    """A linear classifier with small weights, so that the first loss is near log(classes)."""
    layer = nn.Linear(hidden, classes)
    if not layer.weight.is_meta:  # see CNNM2048's
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return layer
