# SPDX-License-Identifier: BSD-3-Clause
"""Flow by a function of the user's own, given as it is or by its name "module:function"."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext.errors import SettingsError, VideoError, describe
from twostream_ext.flow.methods import ClipFlow

Estimator = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""A user's own flow: frames uint8 RGB [T, H, W, 3], T >= 2, to fields float32 [T - 1, H, W, 2], (x, y) in pixels, field
t from frame t to frame t + 1. Backward flow is its flow of the reversed frames. Two threads never call it at once."""


def estimator_name(estimator: Estimator | str) -> str:
    """What is noted of a user's estimator: "module:function"."""
    if isinstance(estimator, str):
        return estimator
    named: Any = estimator if hasattr(estimator, "__qualname__") else type(estimator)
    return f"{named.__module__}:{named.__qualname__}"


def load_estimator(estimator: Estimator | str) -> Estimator:
    """The function of a name "module:function"; SettingsError if there is none."""
    if not isinstance(estimator, str):
        return estimator
    module, colon, function = estimator.partition(":")
    if not (module and colon and function):
        raise SettingsError(f"estimator is {estimator!r}, expected module:function")
    try:
        found: Any = reduce(getattr, function.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"estimator {estimator}: {error}") from error
    if not callable(found):
        raise SettingsError(f"estimator {estimator}: is not a function")
    named: Estimator = found
    return named


_turn = threading.Lock()


def run_estimator(estimator: Estimator, frames: npt.NDArray[np.uint8], backward: bool) -> ClipFlow:
    """Flow of frames, uint8 RGB [T, H, W, 3], by a user's estimator.

    VideoError if it raises, or returns something else than finite float32 [T - 1, H, W, 2].
    """
    with _turn:
        forward = _checked(estimator, frames)
        if not backward:
            return ClipFlow(forward, None)
        reverse = _checked(estimator, np.ascontiguousarray(frames[::-1]))
        return ClipFlow(forward, reverse.flip(0))


def _checked(estimator: Estimator, frames: npt.NDArray[np.uint8]) -> Tensor:
    name = estimator_name(estimator)
    try:
        fields = np.asarray(estimator(frames))
    except Exception as error:
        raise VideoError(f"estimator {name} failed: {describe(error)}") from error
    expected = (len(frames) - 1, *frames.shape[1:3], 2)
    if fields.dtype != np.float32 or fields.shape != expected:
        raise VideoError(
            f"estimator {name} returned {fields.dtype} {list(fields.shape)}, expected float32 {list(expected)}"
        )
    if not np.isfinite(fields).all():
        raise VideoError(f"estimator {name} returned values that are not finite")
    return torch.from_numpy(np.ascontiguousarray(fields))
