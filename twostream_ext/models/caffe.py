# SPDX-License-Identifier: BSD-3-Clause
"""Caffe's files: weights (.caffemodel) and mean images (.binaryproto).

The messages are declared here, with the few fields that are read and their numbers in caffe.proto, and built by the
protobuf package at run time: a generated file would tie this package to some versions of protobuf.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from twostream_ext.errors import CheckpointError
from twostream_ext.models.released import AnyPath, Array, ReleasedLayer, ReleasedNet, check_response_norm
from twostream_ext.models.response_norm import ALPHA, BETA, SIZE, K
from twostream_ext.optional_packages import need_packages

# Name, number and type of each field; a capital is another message, brackets mean repeated.
# Packed numbers lie in a file as bytes do, and as bytes they need not become a hundred million Python floats.
_MESSAGES = {
    "BlobShape": (("dim", 1, "[int64]"),),
    "Blob": (
        ("num", 1, "int64"),
        ("channels", 2, "int64"),
        ("height", 3, "int64"),
        ("width", 4, "int64"),
        ("data", 5, "[bytes]"),  # of float32
        ("shape", 7, "BlobShape"),  # instead of fields 1 to 4, since 2015
        ("double_data", 8, "[bytes]"),  # of float64
    ),
    "ResponseNorm": (("local_size", 1, "uint32"), ("alpha", 2, "float"), ("beta", 3, "float"), ("k", 5, "float")),
    "OldLayer": (("name", 4, "bytes"), ("blobs", 6, "[Blob]"), ("lrn_param", 18, "ResponseNorm")),
    "Layer": (("name", 1, "bytes"), ("blobs", 7, "[Blob]"), ("lrn_param", 118, "ResponseNorm")),
    "Net": (("layers", 2, "[OldLayer]"), ("layer", 100, "[Layer]")),
}


def read_caffemodel(path: AnyPath) -> ReleasedNet:
    """Read the weights of a `.caffemodel`, `layers` of 2014 or newer `layer`; CheckpointError if it is none.

    Caffe's nets take BGR; the first layer's weights are turned round to RGB.
    """
    net = _parse(path, "Net", "neither a MATLAB 5 file nor a whole Caffe model")
    layers = {}
    for layer in [*net.layers, *net.layer]:
        name = layer.name.decode(errors="replace")
        if layer.HasField("lrn_param"):
            _check_response_norm(path, name, layer.lrn_param)
        if len(layer.blobs) == 2:
            weights, biases = (_array(path, name, blob) for blob in layer.blobs)
            layers[name] = ReleasedLayer(weights, biases)
    if not layers:
        raise CheckpointError(f"{path}: neither a MATLAB 5 file nor a Caffe model with weights")
    if "conv1" in layers:
        weights, biases = layers["conv1"]
        layers["conv1"] = ReleasedLayer(weights[:, ::-1] if weights.ndim == 4 else weights, biases)
    return ReleasedNet(layers, None)


def read_binaryproto(path: AnyPath) -> Array:
    """Read a mean image, RGB [3, height, width]; CheckpointError if it is none."""
    image = _array(path, "mean image", _parse(path, "Blob", "not a whole Caffe mean image"))
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise CheckpointError(f"{path}: mean image must be [1, 3, height, width], got {list(image.shape)}")
    return image[0, ::-1]


def _check_response_norm(path: AnyPath, name: str, constants: Any) -> None:
    """Check what the file states; a field that was not written says nothing."""
    released = {"local_size": SIZE, "alpha": ALPHA, "beta": BETA, "k": K}
    size, alpha, beta, k = (
        getattr(constants, field) if constants.HasField(field) else value for field, value in released.items()
    )
    check_response_norm(path, name, size=size, alpha=alpha, beta=beta, k=k)


def _array(path: AnyPath, name: str, blob: Any) -> Array:
    doubles = bool(blob.double_data)
    chunks = blob.double_data if doubles else blob.data
    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    dtype = np.dtype("<f8" if doubles else "<f4")
    # A side of 0 would let the others be anything.
    possible = min(shape, default=1) >= 0 and max(shape, default=0) <= len(data)
    if not possible or len(data) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise CheckpointError(f"{path}: {name} of shape {shape} has {len(data) / dtype.itemsize:g} values")
    return np.frombuffer(data, dtype).reshape(shape)


def _parse(path: AnyPath, message: str, otherwise: str) -> Any:
    need_packages("a .caffemodel", "train", ("google.protobuf",))
    from google.protobuf.message import DecodeError

    try:
        return _classes()[message].FromString(Path(path).read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise CheckpointError(f"{path}: {otherwise}") from error


@cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = "twostream_ext.caffe"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, written in fields:
            field = declared.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if written.startswith("[") else field.LABEL_OPTIONAL
            kind = written.strip("[]")
            if kind in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in _MESSAGES
    }
