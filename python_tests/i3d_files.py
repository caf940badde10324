# SPDX-License-Identifier: BSD-3-Clause
"""I3D's weights, random, by the names that the two repositories give them, and a plain forward by those names."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]

# As in the paper's figure and in Szegedy et al.'s table: 1x1; 3x3 reduced, 3x3; 5x5 reduced, 5x5; after the pool.
BRANCHES = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
# Names of a module's parts: pytorch-i3d, kinetics_i3d_pytorch.
PARTS = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1"}
PARTS |= {"b2a": "branch_2.0", "b2b": "branch_2.1", "b3b": "branch_3.1"}


def make_weights(channels: int = 3, classes: int = 400, *, seed: int = 0) -> Weights:
    """By the names of pytorch-i3d."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def add(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        deviation = math.sqrt(2 / (inputs * math.prod(kernel)))
        weights[f"{name}.conv3d.weight"] = deviation * torch.randn(outputs, inputs, *kernel, generator=generator)
        weights[f"{name}.bn.weight"] = 0.8 + 0.4 * torch.rand(outputs, generator=generator)
        weights[f"{name}.bn.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        weights[f"{name}.bn.running_mean"] = 0.1 * torch.randn(outputs, generator=generator)
        weights[f"{name}.bn.running_var"] = 0.5 + torch.rand(outputs, generator=generator)
        weights[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    add("Conv3d_1a_7x7", channels, 64, 7, 7, 7)
    add("Conv3d_2b_1x1", 64, 64, 1, 1, 1)
    add("Conv3d_2c_3x3", 64, 192, 3, 3, 3)
    width = 192
    for name, (one, reduce3, three, reduce5, five, pooled) in BRANCHES.items():
        add(f"Mixed_{name}.b0", width, one, 1, 1, 1)
        add(f"Mixed_{name}.b1a", width, reduce3, 1, 1, 1)
        add(f"Mixed_{name}.b1b", reduce3, three, 3, 3, 3)
        add(f"Mixed_{name}.b2a", width, reduce5, 1, 1, 1)
        add(f"Mixed_{name}.b2b", reduce5, five, 3, 3, 3)
        add(f"Mixed_{name}.b3b", width, pooled, 1, 1, 1)
        width = one + three + five + pooled
    weights["logits.conv3d.weight"] = torch.randn(classes, 1024, 1, 1, 1, generator=generator) / 32
    weights["logits.conv3d.bias"] = torch.randn(classes, generator=generator)
    return weights


def as_kinetics_i3d_pytorch(weights: Weights) -> Weights:
    """The same weights by the names of the other repository, which keeps no counters."""
    renamed = {}
    for name, tensor in weights.items():
        *layer, part, what = name.split(".")
        if what == "num_batches_tracked":
            continue
        if layer == ["logits"]:
            layer = ["conv3d_0c_1x1"]
        layer = [layer[0].lower(), *(PARTS[each] for each in layer[1:])]
        renamed[".".join([*layer, {"bn": "batch3d"}.get(part, part), what])] = tensor
    return renamed


def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float) -> Tensor:
    """TensorFlow's padding: out = ceil(in / stride), what is odd goes to the end."""
    for axis, (length, step) in enumerate(zip(kernel, stride, strict=True), 2):
        side = x.shape[axis]
        out = math.ceil(side / step)
        total = max(0, (out - 1) * step + length - side)
        for amount, at_end in ((total // 2, False), (total - total // 2, True)):
            shape = list(x.shape)
            shape[axis] = amount
            border = torch.full(shape, value, dtype=x.dtype)
            x = torch.cat([x, border] if at_end else [border, x], axis)
    return x


def forward(weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, 1024] and logits [N, classes] of inputs [N, channels, T, H, W], layer by layer."""

    def unit(name: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        kernel = weights[f"{name}.conv3d.weight"]
        x = functional.conv3d(same(x, kernel.shape[2:], stride, 0.0), kernel, stride=stride)
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (weights[f"{name}.bn.{each}"][:, None, None, None] for each in names)
        return ((x - mean) / torch.sqrt(variance + 1e-3) * scale + shift).clamp(min=0)

    def pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        return functional.max_pool3d(same(x, kernel, stride, -math.inf), kernel, stride)

    def mixed(name: str, x: Tensor) -> Tensor:
        name = f"Mixed_{name}"
        second = unit(f"{name}.b1b", unit(f"{name}.b1a", x))
        third = unit(f"{name}.b2b", unit(f"{name}.b2a", x))
        fourth = unit(f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([unit(f"{name}.b0", x), second, third, fourth], 1)

    x = pool(unit("Conv3d_1a_7x7", x, (2, 2, 2)), (1, 3, 3), (1, 2, 2))
    x = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), (1, 3, 3), (1, 2, 2))
    x = pool(mixed("3c", mixed("3b", x)), (3, 3, 3), (2, 2, 2))
    for name in ("4b", "4c", "4d", "4e", "4f"):
        x = mixed(name, x)
    x = mixed("5c", mixed("5b", pool(x, (2, 2, 2), (2, 2, 2))))
    in_space = x.mean((3, 4))  # [N, 1024, T / 8]
    pairs = (in_space[:, :, 1:] + in_space[:, :, :-1]) / 2
    top, bias = weights["logits.conv3d.weight"][:, :, 0, 0, 0], weights["logits.conv3d.bias"]
    logits = torch.einsum("nct,kc->nkt", pairs, top) + bias[:, None]
    return pairs.mean(2), logits.mean(2)
