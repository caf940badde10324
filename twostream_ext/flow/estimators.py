# SPDX-License-Identifier: BSD-3-Clause
"""Flow by a function: of the user's own, given as it is or by its name "module:function", or by a net (`nets`)."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext.errors import CheckpointError, SettingsError, VideoError, describe
from twostream_ext.flow.methods import ClipFlow
from twostream_ext.flow.net_libraries import LIBRARIES
from twostream_ext.flow.nets import NetEstimator, is_net, net_estimator

Estimator = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""A user's own flow: frames uint8 RGB [T, H, W, 3], T >= 2, to fields float32 [T - 1, H, W, 2], (x, y) in pixels, field
t from frame t to frame t + 1. Backward flow is its flow of the reversed frames. Two threads never call it at once."""


def estimator_name(estimator: Estimator | str) -> str:
    """What is noted of an estimator: "module:function", or of a net "library:net@digest"."""
    if isinstance(estimator, str):
        return estimator
    if isinstance(estimator, NetEstimator):
        return estimator.noted_name
    named: Any = estimator if hasattr(estimator, "__qualname__") else type(estimator)
    return f"{named.__module__}:{named.__qualname__}"


def estimator_parameters(estimator: Estimator | str) -> dict[str, Any]:
    """What the files made with an estimator note beside its name."""
    return dict(estimator.parameters) if isinstance(estimator, NetEstimator) else {}


def find_estimator(
    estimator: Estimator | str | None, weights: str | os.PathLike[str] | None, device: str
) -> Estimator | str | None:
    """The estimator that is meant: of the name of a net its `net_estimator`, all else as it is.

    SettingsError for weights of anything else; errors of `net_estimator`.
    """
    if isinstance(estimator, str) and is_net(estimator):
        return net_estimator(estimator, weights, device=device)
    if weights is not None:
        given = "none" if estimator is None else estimator_name(estimator)
        raise SettingsError(
            f"estimator_weights is {str(weights)!r}, which is for estimators of {', '.join(LIBRARIES)}, not for {given}"
        )
    return estimator


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
    """Flow of frames, uint8 RGB [T, H, W, 3], by an estimator.

    VideoError if it raises, or returns something else than finite float32 [T - 1, H, W, 2].
    """
    # A user's estimator need not bear several threads; a net sees to that itself.
    with nullcontext() if isinstance(estimator, NetEstimator) else _turn:
        forward = _checked(estimator, frames)
        if not backward:
            return ClipFlow(forward, None)
        reverse = _checked(estimator, np.ascontiguousarray(frames[::-1]))
        return ClipFlow(forward, reverse.flip(0))


def _checked(estimator: Estimator, frames: npt.NDArray[np.uint8]) -> Tensor:
    name = estimator_name(estimator)
    try:
        fields = np.asarray(estimator(frames))
    except (CheckpointError, SettingsError):  # no video's fault
        raise
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
