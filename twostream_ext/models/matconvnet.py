# SPDX-License-Identifier: BSD-3-Clause
"""MatConvNet's nets: MATLAB 5 files of its "simplenn" form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from twostream_ext.errors import CheckpointError
from twostream_ext.models.matlab import MatlabError, read_matlab
from twostream_ext.models.released import AnyPath, Array, ReleasedLayer, ReleasedNet, check_response_norm


def read_matconvnet(path: AnyPath) -> ReleasedNet:
    """Read weights and mean of a `.mat` file; CheckpointError if it is damaged or of another form.

    Layers hold `weights{1}`, `weights{2}`, or in older files `filters` and `biases`; filters are [height, width, in,
    out], full layers are convolutions too, and the first takes RGB.
    """
    try:
        file = read_matlab(Path(path))  # all of it, so that a cut is noticed wherever it is
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MatlabError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(file.get("layers"), list):
        raise CheckpointError(f"{path}: has no cell array `layers`, as nets of MatConvNet's simplenn form have")
    layers = {}
    for layer in file["layers"]:
        name = _text(_field(layer, "name"))
        if _text(_field(layer, "type")) in ("normalize", "lrn"):  # the older and the newer name
            _check_response_norm(path, name, _field(layer, "param"))
        filters, biases = _weights(layer)
        if isinstance(filters, np.ndarray) and isinstance(biases, np.ndarray):
            layers[name] = ReleasedLayer(_outputs_first(filters), biases)
    if not layers:
        raise CheckpointError(f"{path}: no layer has weights, as those of MatConvNet's simplenn form have")
    return ReleasedNet(layers, _mean(path, file))


def _weights(layer: Any) -> tuple[Any, Any]:
    pair = _field(layer, "weights")
    if pair is None:
        return _field(layer, "filters"), _field(layer, "biases")
    return (pair[0], pair[1]) if isinstance(pair, list) and len(pair) == 2 else (None, None)


def _outputs_first(filters: Array) -> Array:
    """[height, width, in, out], where MATLAB leaves out last dimensions of 1 -> [out, in, height, width]."""
    filters = filters.reshape(filters.shape + (1,) * (4 - filters.ndim))
    turned: Array = np.moveaxis(filters, (-1, -2), (0, 1))
    return turned


def _mean(path: AnyPath, file: dict[str, Any]) -> Array | None:
    """Find `meta.normalization.averageImage`, in older files without `meta`: [height, width, 3] or 3 numbers."""
    normalization = _field(file.get("meta"), "normalization")
    image = _field(file.get("normalization") if normalization is None else normalization, "averageImage")
    if image is None or (isinstance(image, np.ndarray) and not image.size):
        return None
    is_array = isinstance(image, np.ndarray)
    if not is_array or not (image.size == 3 or (image.ndim == 3 and image.shape[2] == 3)):
        got = list(image.shape) if is_array else f"a {type(image).__name__}"
        raise CheckpointError(f"{path}: averageImage must be [height, width, 3] or 3 numbers, got {got}")
    mean: Array = image.reshape(3) if image.size == 3 else image.transpose(2, 0, 1)
    return mean


def _check_response_norm(path: AnyPath, name: str, constants: Any) -> None:
    """MatConvNet's are size, kappa, alpha and beta, of which alpha is that of one square."""
    if not isinstance(constants, np.ndarray) or constants.size != 4:
        raise CheckpointError(f"{path}: {name} has no four constants `param`")
    size, k, alpha, beta = (float(each) for each in constants.flat)
    check_response_norm(path, name, size=size, alpha=alpha * size, beta=beta, k=k)


def _field(struct: Any, name: str) -> Any:
    """Read a field of a struct; None where there is no such field, or no struct."""
    return struct.get(name) if isinstance(struct, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
