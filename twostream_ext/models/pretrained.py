# SPDX-License-Identifier: BSD-3-Clause
"""Weights of VGG_CNN_M_2048 as released, trained on ImageNet, into nets that take our inputs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.models.caffe import read_binaryproto, read_caffemodel
from twostream_ext.models.cnn_m_2048 import CNN_M_2048, CNNM2048
from twostream_ext.models.matconvnet import read_matconvnet
from twostream_ext.models.released import AnyPath, Array, ReleasedLayer, ReleasedNet
from twostream_ext.models.rgb import RGB_MEAN, RGB_STD
from twostream_ext.models.streams import StreamNet

_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
_MEAN = (123.659, 116.766, 103.932)  # RGB; of the mean image that was released beside the weights
_OUR_MEAN, _OUR_STD = (np.array(each).reshape(3, 1, 1) for each in (RGB_MEAN, RGB_STD))
_HDF5 = b"\x89HDF\r\n\x1a\n"


class Pretrained(NamedTuple):
    """Names of layers, those of heads with their data set: `fc8.ucf101`."""

    taken: tuple[str, ...]
    """Have the file's weights now."""
    kept: tuple[str, ...]
    """Heads that keep the weights they had: their number of classes is not the file's."""


def load_pretrained(
    net: StreamNet, path: AnyPath, *, mean_file: AnyPath | None = None, cross_modality: bool = False
) -> Pretrained:
    """Put the weights of a released CNN-M-2048 into a net with that backbone (section 5: "pre-trained on ILSVRC").

    path: `imagenet-vgg-m-2048.mat` of MatConvNet or `VGG_CNN_M_2048.caffemodel` of Caffe; which of the two is found
        from its content. Both give the same net.
    mean_file: Caffe's mean image, `VGG_mean.binaryproto`. Without it the mean is that in the `.mat` file; beside a
        `.caffemodel`, which has none, the mean colour of that image.
    cross_modality: needed for a net that takes flow, whose first layer then gets the mean of the RGB filters for each
        of its channels. Not of the paper, which trains that net from scratch and calls for nothing of the kind; and
        since that net has no second normalisation, its deeper layers meet larger values than they were trained on.

    The released net takes RGB (MatConvNet) or BGR (Caffe) of 0 .. 255 less its mean. All this is folded into the first
    layer, so that the net takes what all spatial nets here take: (frame - RGB_MEAN) / RGB_STD. A mean that is an image
    becomes a buffer of the backbone, subtracted from its input. Heads with as many classes as the file get its
    classifier; the others keep their weights. On an error the net is as it was.

    CheckpointError if a file is missing, damaged or of another net; SettingsError if this net cannot take it.
    """
    backbone = _checked_backbone(net, mean_file, cross_modality)
    released = _read(path)
    shapes = {name: list(backbone.get_parameter(f"{name}.weight").shape) for name in _LAYERS}
    shapes["conv1"][1] = len(RGB_MEAN)
    layers = {name: _fitted(path, name, released, shape) for name, shape in shapes.items()}
    heads = {name: head for name, head in net.fc8.items() if _has_classes(released, head)}
    head_shapes = {name: list(net.fc8.get_parameter(f"{name}.weight").shape) for name in heads}
    classifiers = {name: _fitted(path, "fc8", released, shape) for name, shape in head_shapes.items()}
    image = None
    if cross_modality:
        layers["conv1"] = _for_flow(layers["conv1"], net.settings.channels)
    else:
        mean = _mean(path, released, mean_file, net.settings.input_size)
        image = _mean_image(mean)
        layers["conv1"] = _for_frames(layers["conv1"], mean)

    for name, layer in layers.items():
        _fill(backbone.get_submodule(name), layer)
    for name, layer in classifiers.items():
        _fill(heads[name], layer)
    backbone.mean_image = None if image is None else image.to(backbone.get_parameter("conv1.weight"))
    kept = tuple(f"fc8.{name}" for name in net.fc8 if name not in heads)
    return Pretrained((*_LAYERS, *(f"fc8.{name}" for name in heads)), kept)


def _checked_backbone(net: StreamNet, mean_file: AnyPath | None, cross_modality: bool) -> CNNM2048:
    if not isinstance(net.backbone, CNNM2048):
        raise SettingsError(f"load_pretrained: the net's backbone must be {CNN_M_2048}, got {net.settings.backbone!r}")
    takes_flow, channels = net.settings.takes_flow, net.settings.channels
    if takes_flow and not cross_modality:
        raise SettingsError(
            "load_pretrained: a net for flow takes weights trained on RGB only with cross_modality=True, which is not "
            "of the paper"
        )
    if cross_modality and not takes_flow:
        raise SettingsError("load_pretrained: cross_modality is for nets that take flow, got one that takes frames")
    if cross_modality and mean_file is not None:
        raise SettingsError("load_pretrained: mean_file is of frames, a net for flow has no use for it")
    if not takes_flow and channels != len(RGB_MEAN):
        raise SettingsError(f"load_pretrained: released weights take 3 channels, the net's input has {channels}")
    return net.backbone


def _read(path: AnyPath) -> ReleasedNet:
    """Read either format; the first bytes tell them apart."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(520)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if start.startswith((b"MATLAB 7.3", _HDF5)) or start[512:].startswith(_HDF5):
        raise CheckpointError(
            f"{path}: a MATLAB 7.3 file (HDF5), which SciPy cannot read; in MATLAB, load it and save it with -v7"
        )
    return read_matconvnet(path) if start.startswith(b"MATLAB 5.0") else read_caffemodel(path)


def _has_classes(released: ReleasedNet, head: nn.Module) -> bool:
    assert isinstance(head, nn.Linear)
    return "fc8" in released.layers and released.layers["fc8"].biases.size == head.out_features


def _fitted(path: AnyPath, name: str, released: ReleasedNet, shape: list[int]) -> ReleasedLayer:
    """The layer with weights of `shape`, that of torch's layer; CheckpointError if it cannot have it."""
    if name not in released.layers:
        raise CheckpointError(f"{path}: has no layer {name} with weights and biases, only {', '.join(released.layers)}")
    weights, biases = released.layers[name]
    if biases.size != shape[0]:
        raise CheckpointError(
            f"{path}: {name} must have {shape[0]} biases, got {biases.size}: it is of another width than the net"
        )
    given = list(weights.shape)
    if len(shape) == 2 and len(given) == 4:  # as a convolution, or in Caffe's older form with ones in front
        weights = weights.reshape(given[2:] if given == [1, 1, *shape] else (given[0], math.prod(given[1:])))
    if list(weights.shape) != shape:
        raise CheckpointError(f"{path}: weights of {name} must be {shape}, got {given}")
    return ReleasedLayer(weights, biases.reshape(-1))


def _mean(path: AnyPath, released: ReleasedNet, mean_file: AnyPath | None, size: int) -> Array:
    """RGB [3, 1, 1] or [3, size, size], float64."""
    mean = released.mean if mean_file is None else read_binaryproto(mean_file)
    mean = np.array(_MEAN if mean is None else mean, dtype=np.float64)
    mean = mean.reshape(3, 1, 1) if mean.size == 3 else mean
    if mean.shape[1:] not in ((1, 1), (size, size)):
        raise CheckpointError(
            f"{mean_file or path}: mean image must have the net's input size {[size, size]}, got {list(mean.shape[1:])}"
        )
    return mean


def _for_frames(conv1: ReleasedLayer, mean: Array) -> ReleasedLayer:
    """Fold our normalisation into the first layer, and the mean with it if it is a colour."""
    weights, biases = conv1.weights.astype(np.float64), conv1.biases.astype(np.float64)
    if mean.size == 3:  # the layer has no padding, so that a constant input is a constant output
        biases = biases + (weights * (_OUR_MEAN - mean)).sum((1, 2, 3))
    return ReleasedLayer(weights * _OUR_STD, biases)


def _mean_image(mean: Array) -> Tensor | None:
    """What remains of a mean image after our normalisation; None if it is a colour."""
    return None if mean.size == 3 else torch.from_numpy((mean - _OUR_MEAN) / _OUR_STD).float()


def _for_flow(conv1: ReleasedLayer, channels: int) -> ReleasedLayer:
    """Give each channel the mean over RGB of the filters for inputs of unit deviation."""
    grey = (conv1.weights.astype(np.float64) * _OUR_STD).mean(1, keepdims=True)
    return ReleasedLayer(grey.repeat(channels, axis=1), conv1.biases)


def _fill(layer: nn.Module, values: ReleasedLayer) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    assert layer.bias is not None
    with torch.no_grad():
        for parameter, array in ((layer.weight, values.weights), (layer.bias, values.biases)):
            parameter.copy_(torch.tensor(np.ascontiguousarray(array, dtype=np.float32)))
