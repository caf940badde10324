# SPDX-License-Identifier: BSD-3-Clause
"""Estimating optical flow between two frames."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import SettingsError, VideoError

PARAMETERS: dict[str, dict[str, Any]] = {
    "dis": {"preset": "medium"},
    "farneback": {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "flags": 0,
    },
}
"""The settings each method runs with, noted in the files made with it."""

METHODS = tuple(PARAMETERS)
"""Names of the methods: dense inverse search (Kroeger et al., 2016), and Farneback's (2003)."""

_local = threading.local()


def estimate_flow(
    previous: npt.NDArray[np.uint8], next: npt.NDArray[np.uint8], method: str = "dis"
) -> npt.NDArray[np.float32]:
    """Flow from one frame to another, float32 [H, W, 2]: (x, y) in pixels, x right, y down.

    previous, next: grey frames, uint8 [H, W]; the pixel of `previous` at p is at p + flow in
    `next`. method: one of `METHODS`. May be called from many threads at once.

    The paper uses Brox et al. (2004), which no package offers on the CPU. ValueError if the frames
    are not alike, SettingsError if there is no such method, VideoError if the method cannot take
    frames that small.
    """
    if method not in METHODS:
        raise SettingsError(f"flow method is {method!r}, expected one of {', '.join(METHODS)}")
    for name, frame in (("previous", previous), ("next", next)):
        if frame.dtype != np.uint8 or frame.ndim != 2:
            raise ValueError(f"estimate_flow: {name} is {frame.dtype} {list(frame.shape)}, expected uint8 [H, W]")
    if previous.shape != next.shape:
        raise ValueError(f"estimate_flow: next is {list(next.shape)}, previous is {list(previous.shape)}")
    try:
        flow = _run(previous, next, method)
    except cv2.error as error:
        height, width = previous.shape
        raise VideoError(f"frames of {width}x{height} pixels are too small for {method}") from error
    return np.asarray(flow, dtype=np.float32)


def _run(previous: npt.NDArray[np.uint8], next: npt.NDArray[np.uint8], method: str) -> cv2.typing.MatLike:
    fresh: Any = None  # an array would be taken for a first guess
    if method == "dis":
        return _dense_inverse_search().calc(previous, next, fresh)
    return cv2.calcOpticalFlowFarneback(previous, next, fresh, **PARAMETERS["farneback"])


def _dense_inverse_search() -> cv2.DISOpticalFlow:
    """This thread's own: it keeps its buffers from call to call."""
    if not hasattr(_local, "search"):
        _local.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        _local.finest_scale = _local.search.getFinestScale()
    search: cv2.DISOpticalFlow = _local.search
    search.setFinestScale(_local.finest_scale)  # small frames change it for those that follow
    return search
