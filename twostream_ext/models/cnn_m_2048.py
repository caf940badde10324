# SPDX-License-Identifier: BSD-3-Clause
"""CNN-M-2048, the network of both streams (Simonyan & Zisserman 2014, section 3 and figure 1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twostream_ext.errors import SettingsError
from twostream_ext.models.backbone_settings import BackboneSettings
from twostream_ext.models.response_norm import LocalResponseNorm

CNN_M_2048 = "cnn_m_2048"
"""Name of the paper's backbone."""
_POOL_WINDOW = 3
_STEM_LAYERS = 3  # conv1, relu1, norm1


class MapSides(NamedTuple):
    """Side in pixels of the square maps that the named layers give."""

    conv1: int
    pool1: int
    conv2: int
    pool2: int
    conv5: int
    pool5: int


def map_sides(input_size: int) -> MapSides:
    """Sides of the maps for a square input: 109, 54, 26, 13, 13, 6 for 224."""
    conv1 = (input_size - 7) // 2 + 1
    pool1 = _pooled(conv1)
    conv2 = (pool1 + 2 - 5) // 2 + 1
    pool2 = _pooled(conv2)
    return MapSides(conv1, pool1, conv2, pool2, pool2, _pooled(pool2))


def _pooled(side: int) -> int:
    return -((_POOL_WINDOW - side) // 2) + 1  # rounded up, as Caffe does


def _pools_fit(input_size: int) -> bool:
    sides = map_sides(input_size)
    return min(sides.conv1, sides.conv2, sides.conv5) >= _POOL_WINDOW


SMALLEST_INPUT = next(size for size in range(7, 225) if _pools_fit(size))
"""Side in pixels of the smallest square input whose maps are not smaller than pooling windows."""


class CNNM2048(nn.Sequential):
    """The layers of the released VGG_CNN_M_2048 up to full7, with the names of its prototxt.

    Float [N, in_channels, input_size, input_size] -> [N, hidden], non-negative; `hidden` is 2048 at
    width 1.

    width: factor of all layer widths (96, 256, 512, 512, 512, 4096, 2048), rounded to integers.
    input_size: side of the square input in pixels, at least `SMALLEST_INPUT`.
    dropout: probability of dropping a unit of full6 and full7 (0.9 in the paper's temporal net).
    norm2: the paper removes the second normalisation from the temporal net, to save memory.

    `mean_image`, float [in_channels, input_size, input_size], is subtracted from the input; it is None but for a net
    pre-trained with one (see `load_pretrained`). `load_state_dict` brings it with the weights that were trained on it,
    and takes it away with those that were not.

    Pooling rounds up as in Caffe; at 224 this matters for pool2 only (13, not 12). The paper does
    not state its initialisation: here all layers start with normal weights of variance 2 / fan-in
    (He et al. 2015) and zero biases.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: float = 1.0,
        input_size: int = 224,
        dropout: float = 0.9,
        norm2: bool = True,
    ) -> None:
        _check(width, input_size, dropout)
        c1, c2, c3, f6, f7 = (max(1, round(units * width)) for units in (96, 256, 512, 4096, 2048))
        side = map_sides(input_size).pool5
        layers = {
            "conv1": nn.Conv2d(in_channels, c1, 7, stride=2),
            "relu1": nn.ReLU(inplace=True),
            "norm1": LocalResponseNorm(),
            "pool1": _pool(),
            "conv2": nn.Conv2d(c1, c2, 5, stride=2, padding=1),
            "relu2": nn.ReLU(inplace=True),
            "norm2": LocalResponseNorm(),
            "pool2": _pool(),
            "conv3": nn.Conv2d(c2, c3, 3, padding=1),
            "relu3": nn.ReLU(inplace=True),
            "conv4": nn.Conv2d(c3, c3, 3, padding=1),
            "relu4": nn.ReLU(inplace=True),
            "conv5": nn.Conv2d(c3, c3, 3, padding=1),
            "relu5": nn.ReLU(inplace=True),
            "pool5": _pool(),
            "flatten": nn.Flatten(),
            "fc6": nn.Linear(c3 * side * side, f6),
            "relu6": nn.ReLU(inplace=True),
            "drop6": nn.Dropout(dropout),
            "fc7": nn.Linear(f6, f7),
            "relu7": nn.ReLU(inplace=True),
            "drop7": nn.Dropout(dropout),
        }
        if not norm2:
            del layers["norm2"]
        super().__init__(OrderedDict(layers))
        self.hidden = f7
        self._input_shape = (in_channels, input_size, input_size)
        self.mean_image: Tensor | None
        self.register_buffer("mean_image", None)
        self.apply(_initialise)

    @property
    def stem_stride(self) -> int | None:
        """Pixels that a step in the maps of `stem` is; None where these depend on where in the input a pixel is."""
        return 2 if self.mean_image is None else None

    def stem(self, x: Tensor) -> Tensor:
        """The first layers, of an input of any size: of a part of it they give that part of their maps."""
        for layer in list(self)[:_STEM_LAYERS]:
            x = layer(x)
        return x

    def above_stem(self, maps: Tensor) -> Tensor:
        """The other layers, of the maps that `stem` gives of an input."""
        for layer in list(self)[_STEM_LAYERS:]:
            maps = layer(maps)
        return maps

    def full6(self, x: Tensor) -> Tensor:
        """The outputs of fc6, after their ReLU, of inputs as of `forward`: float [N, 4096 * width]."""
        maps = self.stem(self._centred(x))
        names = [name for name, _ in self.named_children()]
        for layer in list(self)[_STEM_LAYERS : names.index("relu6") + 1]:
            maps = layer(maps)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.above_stem(self.stem(self._centred(x)))

    def _centred(self, x: Tensor) -> Tensor:
        return x if self.mean_image is None else x - self.mean_image

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # torch loads a buffer only where there is one, and misses it where the file has none.
        if f"{prefix}conv1.weight" in state_dict:
            has_image = state_dict.get(f"{prefix}mean_image") is not None
            self.mean_image = self.get_parameter("conv1.weight").new_empty(self._input_shape) if has_image else None
        super()._load_from_state_dict(state_dict, prefix, *rest)


def make_cnn_m_2048(settings: BackboneSettings) -> CNNM2048:
    """The backbone of both streams; the paper removes the second normalisation where it takes flow."""
    if settings.pretrained:
        raise SettingsError(f"pretrained weights of {CNN_M_2048} come from a file: use load_pretrained(net, path)")
    with torch.device("meta") if settings.unfilled else nullcontext():
        return CNNM2048(
            settings.channels,
            width=settings.width,
            input_size=settings.input_size,
            dropout=settings.dropout,
            norm2=not settings.takes_flow,
        )


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(_POOL_WINDOW, stride=2, ceil_mode=True)


def _initialise(layer: nn.Module) -> None:
    # Drawing weights on the device "meta", where they are nowhere, would import torch's compiler: more than a second.
    if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def _check(width: float, input_size: int, dropout: float) -> None:
    if not 0 < width < math.inf:
        raise SettingsError(f"CNNM2048: width must be above 0, got {width}")
    if input_size < SMALLEST_INPUT:
        raise SettingsError(
            f"CNNM2048: input_size must be at least {SMALLEST_INPUT} pixels for all layers to fit, got {input_size}"
        )
    if not 0 <= dropout < 1:
        raise SettingsError(f"CNNM2048: dropout must be in 0 .. 1 (below 1), got {dropout}")
