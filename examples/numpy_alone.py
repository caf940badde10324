# SPDX-License-Identifier: BSD-3-Clause
"""The kernels on NumPy's arrays, without a tensor in sight: all is read where it lies, and written into `out=`.

python examples/numpy_alone.py
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from twostream_ext import ops


def stacks(flow: npt.NDArray[np.float32], side: int, seed: int) -> npt.NDArray[np.float32]:
    """Random crops, flipped or not, of stacks [N, L, H, W, 2], less their means: [N, 2L, side, side]."""
    samples, length, height, width, _ = flow.shape
    windows = np.empty((samples, 3), np.int32)
    ops.random_windows(np.tile([height, width], (samples, 1)), side, seed=seed, out=windows)
    made = np.empty((samples, 2 * length, side, side), np.float32)
    ops.flow_stack(flow, windows, side, subtract_mean=True, out=made)
    return made


if __name__ == "__main__":
    displacements = np.random.default_rng(0).normal(size=(8, 10, 256, 340, 2)).astype(np.float32)
    print(stacks(displacements, 224, seed=0).shape)
