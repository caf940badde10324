# SPDX-License-Identifier: BSD-3-Clause
"""Flow of the tests' own, as a user would give it: named "estimators:constant"."""

from __future__ import annotations

import numpy as np

STEP = (0.5, -0.25)


def constant(frames: np.ndarray) -> np.ndarray:
    """The same displacement everywhere, and one corner pixel that tells the frames' brightness."""
    count, height, width, _ = frames.shape
    flow = np.empty((count - 1, height, width, 2), np.float32)
    flow[:] = STEP
    flow[:, 0, 0, 0] = frames[1:].mean((1, 2, 3)) - frames[:-1].mean((1, 2, 3))
    return flow


def of_wrong_shape(frames: np.ndarray) -> np.ndarray:
    return constant(frames)[:, :, :-1]


def of_wrong_type(frames: np.ndarray) -> np.ndarray:
    return constant(frames).astype(np.float64)


def not_finite(frames: np.ndarray) -> np.ndarray:
    return constant(frames) * np.float32("nan")


def failing(frames: np.ndarray) -> np.ndarray:
    raise RuntimeError("out of\nideas")
