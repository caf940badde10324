# SPDX-License-Identifier: BSD-3-Clause
"""The kernels between arrays of JAX or CuPy: DLPack takes them in and hands the stacks back, and nothing is copied.

python examples/dlpack_arrays.py jax        (or cupy, on a GPU: not yet run on one; or numpy)

An array of CuPy or NumPy may be written into as well, as `out=`; one of JAX never changes, so the result comes back.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from twostream_ext import ops

NAMESPACES = {"jax": "jax.numpy", "cupy": "cupy", "numpy": "numpy"}


def stacks(xp: Any, flow: Any, side: int, seed: int) -> Any:
    """Random crops, flipped or not, of stacks [N, L, H, W, 2], less their means: [N, 2L, side, side].

    xp: the namespace of the array `flow`, whose device is that of all else.
    """
    samples, _, height, width, _ = flow.shape
    sizes = xp.asarray([[height, width]] * samples)
    windows = ops.random_windows(sizes, side, seed=seed)
    return xp.from_dlpack(ops.flow_stack(flow, windows, side, subtract_mean=True))


def main(library: str) -> None:
    xp = importlib.import_module(NAMESPACES[library])
    flow = xp.linspace(-3, 3, 8 * 10 * 256 * 340 * 2, dtype=xp.float32).reshape(8, 10, 256, 340, 2)
    made = stacks(xp, flow, 224, seed=0)
    print(type(made), made.shape, xp.abs(made).max())


if __name__ == "__main__":
    main(sys.argv[1])
