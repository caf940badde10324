# SPDX-License-Identifier: BSD-3-Clause
"""Files of nets: trained models for prediction, and checkpoints from which training goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twostream_ext.engine.settings import TrainSettings
from twostream_ext.errors import CheckpointError
from twostream_ext.models import NetSettings, StreamNet, build_unfilled_net
from twostream_ext.tensor_files import read_tensors, write_tensors

_MODEL = "twostream model 1"
_CHECKPOINT = "twostream checkpoint 1"
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
) -> None:
    """Write weights and all that is needed to use them to one safetensors file.

    classes: names in the order of the net's scores; for a net of several data sets, those of each.
    """
    names = _class_names(net, classes)
    description = {"net": asdict(net.settings), "classes": names}
    write_tensors(path, _MODEL, net.state_dict(), description)


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> TrainedNet:
    """The net that `save_model` wrote, in evaluation mode.

    CheckpointError if the file is missing, damaged, or of something else.
    """
    tensors, description = read_tensors(path, _MODEL)
    net = build_unfilled_net(NetSettings(**description["net"]))
    _check_weights(path, net, tensors)
    net.load_state_dict(tensors, assign=True)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedNet(net.eval(), description["classes"])


def save_checkpoint(
    path: str | os.PathLike[str],
    net: StreamNet,
    optimizer: torch.optim.SGD,
    settings: TrainSettings,
    iteration: int,
) -> None:
    """Write the state before `iteration`: weights, momentum, settings of the net and of the run.

    No state of a random generator is needed: every draw is keyed by seed and iteration.
    """
    tensors = {_NET + name: tensor for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[_MOMENTUM + name] = buffer
    description = {
        "net": asdict(net.settings),
        "settings": asdict(settings),
        "iteration": iteration,
    }
    write_tensors(path, _CHECKPOINT, tensors, description)


def load_checkpoint(
    path: str | os.PathLike[str],
    net: StreamNet,
    optimizer: torch.optim.SGD,
    settings: TrainSettings,
) -> int:
    """Bring net and optimizer to the state of the checkpoint; returns the iteration to go on with.

    CheckpointError if the file is damaged, or of another net or other settings (`checkpoint_every`
    aside, which changes no result).
    """
    tensors, description = read_tensors(path, _CHECKPOINT)
    _same(path, description["net"], asdict(net.settings))
    _same(path, description["settings"], asdict(settings) | _only_speed(description["settings"]))
    weights = {n.removeprefix(_NET): t for n, t in tensors.items() if n.startswith(_NET)}
    _check_weights(path, net, weights)
    net.load_state_dict(weights)
    for name, parameter in net.named_parameters():
        if _MOMENTUM + name in tensors:
            buffer = torch.empty_like(parameter).copy_(tensors[_MOMENTUM + name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    iteration: int = description["iteration"]
    return iteration


def _only_speed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"checkpoint_every": settings["checkpoint_every"]}


def _same(path: str | os.PathLike[str], written: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if written.get(name) != value:
            raise CheckpointError(f"{path}: made with {name} {written.get(name)!r}, now asked for {value!r}")


def _check_weights(path: str | os.PathLike[str], net: StreamNet, tensors: Mapping[str, Tensor]) -> None:
    expected = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(f"{path}: weight {name} must be {expected.get(name)}, got {found.get(name)}")


def _class_names(net: StreamNet, classes: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    counts = net.settings.classes
    if not isinstance(classes, Mapping):
        classes = dict.fromkeys(counts, classes)
    names = {dataset: list(values) for dataset, values in classes.items()}
    if {dataset: len(values) for dataset, values in names.items()} != counts:
        raise CheckpointError(f"the net has {counts} classes, got names {names}")
    return names
