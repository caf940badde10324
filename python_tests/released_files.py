# SPDX-License-Identifier: BSD-3-Clause
"""Files of CNN-M-2048 as Caffe and MatConvNet write them, and what the net in them computes, in float64 NumPy.

Everything starts from `caffe_net`: blobs as Caffe lays them out, for BGR. The writers turn them into each format's own
layout; `run_caffe` and `run_matconvnet` evaluate the net on pixels, each in the conventions of its format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.io

Array = npt.NDArray[np.float64]
Blobs = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
CONVOLUTIONS = {"conv1": (2, 0), "conv2": (2, 1), "conv3": (1, 1), "conv4": (1, 1), "conv5": (1, 1)}  # stride, padding
FULL = ("fc6", "fc7", "fc8")


def caffe_net(classes: int, width: float, seed: int = 0) -> Blobs:
    """Random weights [out, in, h, w] or [out, in] and biases.

    The first layer gives responses that LRN matters for, the last gives scores of some units, as after training.
    """
    random = np.random.default_rng(seed)
    c1, c2, c3, f6, f7 = (round(units * width) for units in (96, 256, 512, 4096, 2048))
    shapes: dict[str, tuple[int, ...]] = {
        "conv1": (c1, 3, 7, 7),
        "conv2": (c2, c1, 5, 5),
        "conv3": (c3, c2, 3, 3),
        "conv4": (c3, c3, 3, 3),
        "conv5": (c3, c3, 3, 3),
        "fc6": (f6, c3 * 6 * 6),
        "fc7": (f7, f6),
        "fc8": (classes, f7),
    }
    blobs = {}
    for name, shape in shapes.items():
        deviation = {"conv1": 0.1, "fc8": 0.1 / np.sqrt(f7)}.get(name, np.sqrt(2 / np.prod(shape[1:])))
        weights = random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        blobs[name] = (weights, random.standard_normal(shape[0], dtype=np.float32))
    return blobs


def mean_image(seed: int = 0) -> npt.NDArray[np.float32]:
    """BGR [3, 224, 224], brighter at the top left."""
    fall = np.linspace(20, -20, 224, dtype=np.float32)
    colour = np.array([104, 117, 124], dtype=np.float32).reshape(3, 1, 1)
    return colour + fall[:, None] + 0.5 * fall + np.random.default_rng(seed).random((3, 224, 224), dtype=np.float32)


# ---- Caffe ---------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | float | bytes) -> bytes:
    """One field of a protobuf message: an integer, a float32, or anything with a length."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def blob(values: npt.NDArray[np.floating], *, old: bool) -> bytes:
    """A BlobProto: old ones have four dimensions, ones in front."""
    if old:
        shape = (1,) * (4 - values.ndim) + values.shape
        head = b"".join(field(number, size) for number, size in enumerate(shape, start=1))
    else:
        head = field(7, field(1, b"".join(varint(size) for size in values.shape)))
    return head + field(8 if values.dtype == np.float64 else 5, values.tobytes())


def caffemodel(blobs: Blobs, *, old: bool, lrn: tuple[int, float, float, float] | None = (5, 5e-4, 0.75, 2.0)) -> bytes:
    """A NetParameter with V1 `layers` (old) or `layer`, with the fields that Caffe writes besides."""
    name_at, type_at, blobs_at, lrn_at, bottom_at, net_at = (4, 5, 6, 18, 2, 2) if old else (1, 2, 7, 118, 3, 100)

    def layer(name: str, kind: tuple[int, bytes], body: bytes = b"") -> bytes:
        head = field(bottom_at, b"below") + field(name_at, name.encode()) + field(type_at, kind[0] if old else kind[1])
        return field(net_at, head + body)

    out = field(1, b"VGG_CNN_M_2048")
    for name, pair in blobs.items():
        convolution = name in CONVOLUTIONS
        kind = (4, b"Convolution") if convolution else (14, b"InnerProduct")
        out += layer(name, kind, b"".join(field(blobs_at, blob(values, old=old)) for values in pair))
        out += layer(f"relu{name[-1]}", (18, b"ReLU"))
        if name in ("conv1", "conv2"):
            size, alpha, beta, k = lrn or (0, 0.0, 0.0, 0.0)
            constants = field(1, size) + field(2, alpha) + field(3, beta) + field(5, k)
            out += layer(f"norm{name[-1]}", (15, b"LRN"), field(lrn_at, constants) if lrn else b"")
    return out


def binaryproto(image: npt.NDArray[np.floating]) -> bytes:
    return blob(image, old=True)


def run_caffe(blobs: Blobs, pixels: npt.NDArray[np.uint8], mean: npt.NDArray[np.floating]) -> Array:
    """Outputs of the net for RGB pixels [224, 224, 3]; mean BGR [3, 224, 224] or [3, 1, 1]."""
    x = pixels[..., ::-1].transpose(2, 0, 1).astype(np.float64) - mean
    for name, (stride, padding) in CONVOLUTIONS.items():
        weights, biases = blobs[name]
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        windows = np.lib.stride_tricks.sliding_window_view(x, weights.shape[2:], (1, 2))[:, ::stride, ::stride]
        x = np.einsum("cyxij,ocij->oyx", windows, weights.astype(np.float64), optimize=True) + biases.reshape(-1, 1, 1)
        x = np.maximum(x, 0)
        if name in ("conv1", "conv2"):
            squares = np.pad(x**2, ((2, 2), (0, 0), (0, 0)))
            x = x / (2 + 5e-4 / 5 * sum(squares[j : j + len(x)] for j in range(5))) ** 0.75
        if name in ("conv1", "conv2", "conv5"):
            x = _pool_and_round_up(x)
    x = x.reshape(-1)  # channels, then rows, then columns
    for name in FULL:
        weights, biases = blobs[name]
        x = weights.astype(np.float64) @ x + biases
        x = x if name == "fc8" else np.maximum(x, 0)
    return x


def _pool_and_round_up(x: Array) -> Array:
    """Caffe's: windows of 3 at every second pixel, the last of which may stick out."""
    outputs = -(-(x.shape[1] - 3) // 2) + 1
    rows = [x[:, 2 * i : 2 * i + 3].max(1) for i in range(outputs)]
    return np.stack([np.stack([row[:, 2 * j : 2 * j + 3].max(1) for j in range(outputs)], 1) for row in rows], 1)


# ---- MatConvNet ----------------------------------------------------------------------------------------------------


def matconvnet_layers(blobs: Blobs, *, old: bool, lrn: Sequence[float] = (5, 2, 1e-4, 0.75)) -> list[dict[str, object]]:
    """Its `layers`: [height, width, in, out] for RGB, full layers as convolutions; old ones have no `weights`."""
    layers: list[dict[str, object]] = []
    for name, (given, biases) in blobs.items():
        weights = given[:, ::-1] if name == "conv1" else given
        if name == "fc6":
            weights = weights.reshape(len(weights), -1, 6, 6)
        weights = weights.reshape(*weights.shape, *(1,) * (4 - weights.ndim)).transpose(2, 3, 1, 0)
        pair = np.empty((1, 2), dtype=object)
        pair[0, 0], pair[0, 1] = weights, biases.reshape(1, -1)
        values = {"filters": pair[0, 0], "biases": pair[0, 1]} if old else {"weights": pair}
        stride, padding = CONVOLUTIONS.get(name, (1, 0))
        row = {"pad": [float(padding)] * 4, "stride": [float(stride)] * 2}
        layers.append({"name": name, "type": "conv", **values, **row})
        if name != "fc8":
            layers.append({"name": f"relu{name[-1]}", "type": "relu"})
        if name in ("conv1", "conv2"):
            kind = "normalize" if old else "lrn"
            layers.append({"name": f"norm{name[-1]}", "type": kind, "param": np.array([lrn], dtype=np.float64)})
        if name in ("conv1", "conv2", "conv5"):
            pad = [0.0, 1.0, 0.0, 1.0] if name == "conv2" else [0.0] * 4
            pool = {"method": "max", "pool": [3.0, 3.0], "stride": [2.0, 2.0], "pad": pad}
            layers.append({"name": f"pool{name[-1]}", "type": "pool", **pool})
    layers.append({"name": "prob", "type": "softmax"})
    return layers


def save_matconvnet(
    path: Path, layers: Sequence[Mapping[str, object]], average: npt.NDArray[np.floating] | None, *, old: bool
) -> None:
    """average: RGB [224, 224, 3] or [1, 1, 3]; older files have no `meta` around it."""
    cells = np.empty((1, len(layers)), dtype=object)
    cells[0, :] = layers
    image = {"imageSize": [224.0, 224.0, 3.0], "keepAspect": 1.0, "border": [32.0, 32.0], "interpolation": "bicubic"}
    normalization = image if average is None else {**image, "averageImage": average}
    classes = {"name": np.array([["a", "b"]], dtype=object), "description": "none"}
    about = {"normalization": normalization, "classes": classes}
    scipy.io.savemat(path, {"layers": cells, **(about if old else {"meta": about})}, do_compression=not old)


def run_matconvnet(
    layers: Sequence[Mapping[str, object]], pixels: npt.NDArray[np.uint8], average: npt.NDArray[np.floating]
) -> Array:
    """Scores before the softmax for RGB pixels [224, 224, 3], layer by layer on [height, width, channels]."""
    x = pixels.astype(np.float64) - average
    for layer in layers:
        kind = layer["type"]
        if kind == "conv":
            filters, biases = layer["weights"].flat if "weights" in layer else (layer["filters"], layer["biases"])
            x = _padded(x, layer["pad"], 0)
            stride = int(layer["stride"][0])
            windows = np.lib.stride_tricks.sliding_window_view(x, filters.shape[:2], (0, 1))[::stride, ::stride]
            x = np.einsum("yxcij,ijco->yxo", windows, filters.astype(np.float64), optimize=True) + biases.reshape(-1)
        elif kind == "relu":
            x = np.maximum(x, 0)
        elif kind in ("normalize", "lrn"):
            size, kappa, alpha, beta = layer["param"][0]
            half = int(size) // 2
            near = np.lib.stride_tricks.sliding_window_view(np.pad(x**2, ((0, 0), (0, 0), (half, half))), int(size), 2)
            x = x * (kappa + alpha * near.sum(-1)) ** -beta
        elif kind == "pool":
            x = np.lib.stride_tricks.sliding_window_view(_padded(x, layer["pad"], -np.inf), (3, 3), (0, 1))
            x = x[::2, ::2].max((-2, -1))
    return x.reshape(-1)


def _padded(x: Array, pad: Sequence[float], value: float) -> Array:
    top, bottom, left, right = (int(each) for each in pad)
    return np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=value)
