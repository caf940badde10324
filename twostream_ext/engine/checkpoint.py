# SPDX-License-Identifier: BSD-3-Clause
"""Files of nets: trained models for prediction, and checkpoints from which training goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from twostream_ext.engine.origin import NOTHING, Origin, unlike, weights_digest
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.errors import CheckpointError, SettingsError, describe
from twostream_ext.models import (
    NetSettings,
    StreamNet,
    build_unfilled_net,
    copy_backbone,
    load_pretrained,
)
from twostream_ext.noted import check_noted
from twostream_ext.tensor_files import read_description, read_tensors, write_tensors

_MODEL = "twostream model 1"
_CHECKPOINT = "twostream checkpoint 1"
_NET_SETTINGS = get_type_hints(NetSettings)
_NET = "net."  # before the name of a weight in a checkpoint
_MOMENTUM = "momentum."  # before the name of the weight that the buffer belongs to


class TrainedNet(NamedTuple):
    """A net in evaluation mode and the names of its classes, for each data set."""

    net: StreamNet
    classes: dict[str, list[str]]


def save_model(
    path: str | os.PathLike[str],
    net: StreamNet,
    classes: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    made_from: Origin = NOTHING,
) -> None:
    """Write weights and all that is needed to use them to one safetensors file.

    classes: names in the order of the net's scores; for a net of several data sets, those of each.
    made_from: plain values that tell by content what it was trained on; noted in the file.
    """
    names = _class_names(net, classes)
    description = {"net": asdict(net.settings), "classes": names, "made_from": dict(made_from)}
    write_tensors(path, _MODEL, net.state_dict(), description)


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> TrainedNet:
    """The net that `save_model` wrote, in evaluation mode.

    CheckpointError if the file is missing, damaged, or of something else, and if its backbone cannot be made here: one
    of the user's own must be registered before (`register_backbone`).
    """
    tensors, description = read_tensors(path, _MODEL)
    kinds = {"net": dict[str, Any], "classes": dict[str, list[str]]}
    classes: dict[str, list[str]] = check_noted(path, description, kinds, CheckpointError)["classes"]
    settings = _net_settings(path, description)
    counts = {dataset: len(names) for dataset, names in classes.items()}
    if counts != settings.classes:
        raise CheckpointError(f"{path}: has names of {counts} classes, its net has {settings.classes}")
    _bound_by_weights(path, settings, tensors)
    net = _built(path, settings)
    _load_weights(path, net, tensors, assign=True)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedNet(net.eval(), classes)


def model_digest(path: str | os.PathLike[str]) -> str:
    """`net_digest` of the net in a file of `save_model`, which is not built; CheckpointError as for `load_model`."""
    tensors, description = read_tensors(path, _MODEL)
    check_noted(path, description, {"net": dict[str, Any]}, CheckpointError)
    return weights_digest(_net_settings(path, description), tensors)


def model_origin(path: str | os.PathLike[str]) -> Origin:
    """What the net in a file of `save_model` was trained on, as far as it is noted; reads the header alone."""
    return _made_from(path, read_description(path, _MODEL))


def start_from(net: StreamNet, path: str | os.PathLike[str]) -> None:
    """Give a new net all layers but the last of a net in a file, to fine-tune it (section 5 of the paper).

    The last layer stays as it is, also where the file's has the same classes.

    path: a `.safetensors` file of `save_model`, of a net of the same stream, backbone, width, input size and length;
        or else a released CNN-M-2048, MatConvNet's or Caffe's (see `load_pretrained`). Those take RGB: in a net for
        flow the first layer gets the mean of their filters over RGB for each channel (cross-modality), which is not of
        the paper.

    CheckpointError if the file is missing, damaged or of something else; SettingsError if it is of another net.
    """
    if Path(path).suffix == ".safetensors":
        try:
            copy_backbone(load_model(path).net, net)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error
        return
    heads = {name: weight.clone() for name, weight in net.fc8.state_dict().items()}
    load_pretrained(net, path, cross_modality=net.settings.takes_flow)
    net.fc8.load_state_dict(heads)


def trained_parameters(net: StreamNet) -> int:
    """How many numbers training changes: all, or those of the last layer (`freeze_backbone`)."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def save_checkpoint(
    path: str | os.PathLike[str],
    net: StreamNet,
    optimizer: torch.optim.SGD,
    settings: TrainSettings,
    iteration: int,
    made_from: Origin = NOTHING,
) -> None:
    """Write the state before `iteration`: weights, momentum, settings of the net and of the run, what it learns from.

    The iteration is also the sampler's place and the random state: every draw is keyed by seed and iteration.
    """
    tensors = {_NET + name: tensor for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[_MOMENTUM + name] = buffer
    description = {
        "net": asdict(net.settings),
        "settings": asdict(settings),
        "trained_parameters": trained_parameters(net),
        "iteration": iteration,
        "made_from": dict(made_from),
    }
    write_tensors(path, _CHECKPOINT, tensors, description)


def load_checkpoint(
    path: str | os.PathLike[str],
    net: StreamNet,
    optimizer: torch.optim.SGD,
    settings: TrainSettings,
    made_from: Origin = NOTHING,
) -> int:
    """Bring net and optimizer to the state of the checkpoint; returns the iteration to go on with.

    CheckpointError if the file is damaged, or of another net, other settings (`checkpoint_every` aside, which changes
    no result) or other layers trained, or if it learnt from something else.
    """
    tensors, description = read_tensors(path, _CHECKPOINT)
    kinds = {"net": dict[str, Any], "settings": dict[str, Any], "iteration": int}
    check_noted(path, description, kinds, CheckpointError)
    _same(path, asdict(_net_settings(path, description)), asdict(net.settings))
    asked = json.loads(json.dumps(asdict(settings)))  # with lists where there are tuples, as in the file
    del asked["checkpoint_every"]
    _same(path, description["settings"], asked)
    _same(path, description, {"trained_parameters": trained_parameters(net)})
    other = unlike(_made_from(path, description), made_from)
    if other is not None:
        raise CheckpointError(f"{path}: learnt from {other}; train in another directory, or put back what it was")
    iteration: int = description["iteration"]
    if not 0 <= iteration <= settings.iterations:
        raise CheckpointError(f"{path}: is of iteration {iteration} of {settings.iterations}")
    parameters = dict(net.named_parameters())
    momenta = {n: tensors[_MOMENTUM + n] for n in parameters if _MOMENTUM + n in tensors}
    for name, momentum in momenta.items():
        wanted = list(parameters[name].shape)
        if list(momentum.shape) != wanted:
            raise CheckpointError(f"{path}: momentum of {name} must be {wanted}, got {list(momentum.shape)}")
    weights = {n.removeprefix(_NET): t for n, t in tensors.items() if n.startswith(_NET)}
    _load_weights(path, net, weights)
    for name, momentum in momenta.items():
        buffer = torch.empty_like(parameters[name]).copy_(momentum)
        optimizer.state[parameters[name]]["momentum_buffer"] = buffer
    return iteration


def _same(path: str | os.PathLike[str], written: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if written.get(name) != value:
            raise CheckpointError(f"{path}: made with {name} {written.get(name)!r}, now asked for {value!r}")


def _net_settings(path: str | os.PathLike[str], description: Mapping[str, Any]) -> NetSettings:
    """The settings of the net in a file; also as 0.1.0 wrote them, which knew the two streams of the paper alone."""
    written = dict(description["net"])
    written.pop("mean_image", None)  # said of weights that were there anyway
    if "channels" not in written:
        length = check_noted(path, written, {"length": int}, CheckpointError)["length"]  # 0 where frames are taken
        written |= {"channels": 2 * length or 3, "takes_flow": length > 0}
    unknown = written.keys() - _NET_SETTINGS.keys()
    if unknown:
        raise CheckpointError(f"{path}: its net has a setting {min(unknown)!r}, which this version does not know")
    needed = {each.name: _NET_SETTINGS[each.name] for each in fields(NetSettings) if each.default is MISSING}
    check_noted(path, written, needed | {name: _NET_SETTINGS[name] for name in written}, CheckpointError)
    try:
        return NetSettings(**written)
    except SettingsError as error:
        raise CheckpointError(f"{path}: of its net, {error}") from error


def _made_from(path: str | os.PathLike[str], description: Mapping[str, Any]) -> Origin:
    noted = {"made_from": {}, **description}  # 0.1.0 did not note it
    origin: Origin = check_noted(path, noted, {"made_from": dict[str, Any]}, CheckpointError)["made_from"]
    return origin


def _bound_by_weights(path: str | os.PathLike[str], settings: NetSettings, tensors: Mapping[str, Tensor]) -> None:
    """CheckpointError for a net that is larger than the file, before memory is taken for what the file claims.

    Each channel and each class has a weight at least.
    """
    weights = sum(tensor.numel() for tensor in tensors.values())
    for name, count in {"channels": settings.channels, **settings.classes}.items():
        if not 1 <= count <= weights:
            raise CheckpointError(f"{path}: claims {count} for {name}, and has {weights} weights")


def _built(path: str | os.PathLike[str], settings: NetSettings) -> StreamNet:
    """The net, still without its weights; CheckpointError if none can be made with these settings."""
    try:
        return build_unfilled_net(settings)
    except SettingsError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # settings were checked one by one; what they give together a backbone alone knows
        raise CheckpointError(f"{path}: no net can be made with its settings: {describe(error)}") from error


def _load_weights(
    path: str | os.PathLike[str], net: StreamNet, tensors: Mapping[str, Tensor], *, assign: bool = False
) -> None:
    """`load_state_dict`, which alone knows what the net can take; CheckpointError names a weight that does not fit."""
    try:
        net.load_state_dict(tensors, assign=assign)
    except RuntimeError as error:
        expected = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
        found = {name: list(tensor.shape) for name, tensor in tensors.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise CheckpointError(
                    f"{path}: weight {name} must be {expected.get(name)}, got {found.get(name)}"
                ) from error
        raise CheckpointError(f"{path}: {describe(error)}") from error


def _class_names(net: StreamNet, classes: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    counts = net.settings.classes
    if not isinstance(classes, Mapping):
        classes = dict.fromkeys(counts, classes)
    names = {dataset: list(values) for dataset, values in classes.items()}
    if {dataset: len(values) for dataset, values in names.items()} != counts:
        raise CheckpointError(f"the net has {counts} classes, got names {names}")
    return names
