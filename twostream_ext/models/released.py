# SPDX-License-Identifier: BSD-3-Clause
"""What a file of released weights holds, in one layout whatever its format."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twostream_ext.errors import CheckpointError
from twostream_ext.models.response_norm import ALPHA, BETA, SIZE, K

Array = npt.NDArray[np.floating]
AnyPath = str | os.PathLike[str]


class ReleasedLayer(NamedTuple):
    """Weights [out, in, height, width], or [out, in] of a full layer, and as many biases as outputs, in any shape."""

    weights: Array
    biases: Array


class ReleasedNet(NamedTuple):
    """Layers by their names in VGG_CNN_M_2048; the first takes RGB of 0 .. 255 less the mean.

    mean: RGB, [3] or [3, height, width]; None where the file has none.
    """

    layers: dict[str, ReleasedLayer]
    mean: Array | None


def check_response_norm(path: AnyPath, layer: str, *, size: float, alpha: float, beta: float, k: float) -> None:
    """CheckpointError unless the constants are those of CNN-M; `alpha` is divided by `size`, as in Caffe."""
    given, expected = (size, alpha, beta, k), (SIZE, ALPHA, BETA, K)
    if not all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(given, expected, strict=True)):
        got = tuple(float(f"{each:.6g}") for each in given)
        raise CheckpointError(f"{path}: {layer} must have size, alpha, beta and k {expected}, got {got}")
