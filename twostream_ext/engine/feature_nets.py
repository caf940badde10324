# SPDX-License-Identifier: BSD-3-Clause
"""Which nets make the vectors of windows, and what they see of a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from twostream_ext.engine.checkpoint import load_model
from twostream_ext.engine.pipeline import flow_device
from twostream_ext.engine.predict import load_run
from twostream_ext.engine.window_nets import I3DWindows, ImageWindows, Sight, StreamWindows, WindowNet
from twostream_ext.errors import SettingsError
from twostream_ext.flow import find_method
from twostream_ext.media import check_smallest_side
from twostream_ext.models import (
    I3D_KINDS,
    LAYERS,
    SpatialNet,
    TimmBackbone,
    backbone_names,
    i3d_files,
    load_i3d,
    load_timm_weights,
    timm_input_size,
)

_TIMM = "timm:"

AnyPath = str | os.PathLike[str]

_DEFAULT = Sight("tvl1", 256, 90)  # as of `extract`


@dataclass(frozen=True)
class FeatureNets:
    """Nets whose vectors of a window are put one after the other; `load_feature_nets` makes them."""

    nets: tuple[WindowNet, ...]
    layer: str
    sight: Sight
    device: torch.device

    @property
    def takes_flow(self) -> bool:
        return any(net.takes_flow for net in self.nets)

    @property
    def takes_backward(self) -> bool:
        return any(net.takes_backward for net in self.nets)

    @property
    def flow_device(self) -> str:
        """Where flow is computed."""
        return flow_device(self.sight.method, self.device)

    def noted(self) -> dict[str, Any]:
        """What decides the vectors, as JSON."""
        return {
            "nets": [net.name for net in self.nets],
            "weights": [net.digest for net in self.nets],
            "layer": self.layer,
            "method": self.sight.method if self.takes_flow else None,
            "smallest_side": self.sight.smallest_side,
            "quality": self.sight.quality if any(isinstance(net, StreamWindows) for net in self.nets) else None,
        }


def load_feature_nets(
    model: str | os.PathLike[str] | None = None,
    *,
    net: str | Sequence[str] = (),
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    stream: str | None = None,
    layer: str = "fc7",
    method: str | None = None,
    smallest_side: int | None = None,
    device: torch.device | str = "cpu",
) -> FeatureNets:
    """The nets that `window_features` and `features` make vectors with: those of a model, or some that have a name.

    Args:
        model: directory of a finished run, of which both streams are taken; or the file of one net (`save_model`).
        net: in place of a model: "i3d-rgb", "i3d-flow", or "timm:NAME" for an image net of timm; or several of them.
        weights: a file for each of these, see `load_i3d` and `load_timm_weights`. Nets of timm alone can do without,
            and then fetch what timm knows.
        stream: of a run, this one alone.
        layer: one of `LAYERS`. "fc7" is the last hidden layer of any net: full7 of CNN-M-2048, the 1024 features of
            I3D, the features of timm's nets; "fc6" is of CNN-M-2048 alone, "scores" (softmax) of all but timm's.
        method: how flow is estimated; of a run as it was there, else "tvl1".
        smallest_side: of the frames in pixels; of a run as it was there, else 256. For the file of a net both should be
            what it was trained on.
        device: where nets and, if its method can, flow are computed.

    SettingsError for an option that cannot be, or contradicts the run; CheckpointError for a file or a directory that
    is missing, damaged or of something else.
    """
    names = [net] if isinstance(net, str) else list(net)
    files = [weights] if isinstance(weights, str | os.PathLike) else list(weights)
    _check_choice(model, names, files, stream, layer)
    device = torch.device(device)
    given = Sight(
        _DEFAULT.method if method is None else method,
        _DEFAULT.smallest_side if smallest_side is None else smallest_side,
        _DEFAULT.quality,
    )
    find_method(given.method)
    check_smallest_side(given.smallest_side)
    if model is None:
        sight = given
        nets = [_named_net(*each, layer, device) for each in _paired(names, files)]
    elif Path(model).is_dir():
        nets, sight = _nets_of_run(model, stream, layer, method, smallest_side, device)
    else:
        sight = given
        nets = [StreamWindows(load_model(model, device).net, layer, sight)]
    for each in nets:
        if sight.smallest_side < each.input_size:
            raise SettingsError(
                f"smallest side is {sight.smallest_side} pixels, {each.name} needs at least {each.input_size}"
            )
    return FeatureNets(tuple(nets), layer, sight, device)


def _check_choice(model: object, names: Sequence[str], files: Sequence[object], stream: str | None, layer: str) -> None:
    """SettingsError for arguments of `load_feature_nets` that do not go together."""
    if layer not in LAYERS:
        raise SettingsError(f"layer is {layer!r}, expected one of {', '.join(LAYERS)}")
    if (model is None) == (not names):
        raise SettingsError("features are of a model or of nets by name: give one of the two")
    if model is not None and files:
        raise SettingsError(f"{files[0]}: weights are of a net by name, a model has its own")
    if stream is not None and not (model is not None and Path(str(model)).is_dir()):
        raise SettingsError(f"stream is {stream!r}, but only the directory of a run has streams to choose from")
    if files and len(files) != len(names):
        raise SettingsError(f"there are {len(names)} nets and {len(files)} files of weights; give one for each net")


def _paired(names: Sequence[str], files: Sequence[AnyPath]) -> list[tuple[str, AnyPath | None]]:
    return [(name, files[number] if files else None) for number, name in enumerate(names)]


def _nets_of_run(
    model: AnyPath, stream: str | None, layer: str, method: str | None, smallest_side: int | None, device: torch.device
) -> tuple[list[WindowNet], Sight]:
    run = load_run(model, device)
    settings = run.settings
    for name, value in (("flow_method", method), ("smallest_side", smallest_side)):
        if value is not None and value != settings[name]:
            raise SettingsError(f"{model}: was made with {name} {settings[name]}, not {value}")
    if stream is not None and stream not in run.nets:
        raise SettingsError(f"stream is {stream!r}, expected one of {', '.join(run.nets)}")
    sight = Sight(settings["flow_method"], settings["smallest_side"], settings["jpeg_quality"])
    chosen = run.nets if stream is None else {stream: run.nets[stream]}
    return [StreamWindows(trained.net, layer, sight) for trained in chosen.values()], sight


def _named_net(name: str, weights: AnyPath | None, layer: str, device: torch.device) -> WindowNet:
    if name.startswith(_TIMM):
        return _timm_net(name, weights, layer, device)
    if name not in I3D_KINDS:
        raise SettingsError(f"net is {name!r}, expected {', '.join(I3D_KINDS)} or timm:NAME, resnet50 say")
    if weights is None:
        raise SettingsError(f"{i3d_files(name)}; name that file as its weights")
    return I3DWindows(name, load_i3d(name, weights), layer, device)


def _timm_net(name: str, weights: AnyPath | None, layer: str, device: torch.device) -> ImageWindows:
    if layer != "fc7":
        raise SettingsError(f"layer is {layer!r}, {name} has fc7, its features before the classifier")
    backbone = name.removeprefix(_TIMM)
    if backbone in backbone_names():
        raise SettingsError(f"net is {name!r}, but {backbone} is a backbone of ours: give the file of a trained net")
    size = timm_input_size(backbone)
    net = SpatialNet(1, backbone=backbone, dropout=0.0, input_size=size, pretrained=weights is None)
    if weights is not None:
        assert isinstance(net.backbone, TimmBackbone)
        load_timm_weights(net.backbone, weights)
    return ImageWindows(name, net.to(device).eval())
