# SPDX-License-Identifier: BSD-3-Clause
"""Estimating optical flow by any method of a table, to which a user can add."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext import ops
from twostream_ext.errors import SettingsError, VideoError


class ClipFlow(NamedTuple):
    """The fields between neighbouring ones of T frames, float32 [T - 1, H, W, 2], on the device they were made on."""

    forward: Tensor  # field t from frame t to frame t + 1
    backward: Tensor | None  # field t from frame t + 1 to frame t, where it was asked for


class Method(NamedTuple):
    """One way to estimate flow; see `register_method`."""

    estimate: Callable[[Tensor, torch.device, bool], ClipFlow]
    """Takes grey frames uint8 [T, H, W] on the CPU, T >= 2, the device to compute on, and whether backward flow is
    wanted too."""
    summary: str
    """What it is, in some words, for the command's help."""
    parameters: dict[str, Any]
    """The settings it runs with, as JSON can hold them; noted in the files made with it."""
    runs_on_cuda: bool = False
    """Whether the device may be a GPU."""


def register_method(name: str, method: Method) -> None:
    """Let flow be estimated by a method of your own: `extract(..., method=name)`, `twostream extract --method`.

    ```python
    def still(frames, device, backward):
        flow = torch.zeros(len(frames) - 1, *frames.shape[1:], 2, dtype=torch.float32, device=device)
        return ClipFlow(flow, flow if backward else None)

    twostream_ext.flow.register_method("still", Method(still, "nothing moves", {}, runs_on_cuda=True))
    ```

    What estimates must

    - return float32 fields [T - 1, H, W, 2] on the device, (x, y) in pixels: see `ClipFlow`;
    - make each field of its two frames alone, so that it does not matter where a long video is cut;
    - bear to be called from many threads at once;
    - raise VideoError, in which the video need not be named, for frames that it cannot take: too small, say. (An error
      of OpenCV is taken for that.)

    A store notes the name, so whoever goes on with one must have registered it before, and so must the worker processes
    of an executor. A name registered again stands for the newer method. SettingsError for the names of our own methods,
    and for one with a colon, which would be taken for a user's estimator (see `extract`).
    """
    if name in _OURS or ":" in name:
        why = "holds a colon" if ":" in name else "is one of the package's own methods"
        raise SettingsError(f"register_method: the name {name!r} {why}; take another")
    METHODS[name] = method


def find_method(name: str) -> Method:
    """SettingsError if there is no such method."""
    if name not in METHODS:
        raise SettingsError(f"method is {name!r}, expected one of {', '.join(METHODS)}")
    return METHODS[name]


def estimate_flow(
    previous: npt.NDArray[np.uint8], next: npt.NDArray[np.uint8], method: str = "tvl1"
) -> npt.NDArray[np.float32]:
    """Flow from one frame to another, float32 [H, W, 2]: (x, y) in pixels, x right, y down.

    previous, next: grey frames, uint8 [H, W]; the pixel of `previous` at p is at p + flow in
    `next`. method: one of `METHODS`. May be called from many threads at once.

    The paper uses Brox et al. (2004), which no package offers on the CPU. ValueError if the frames
    are not alike, SettingsError if there is no such method, VideoError if the method cannot take
    frames that small.
    """
    for name, frame in (("previous", previous), ("next", next)):
        if frame.dtype != np.uint8 or frame.ndim != 2:
            raise ValueError(f"estimate_flow: {name} is {frame.dtype} {list(frame.shape)}, expected uint8 [H, W]")
    if previous.shape != next.shape:
        raise ValueError(f"estimate_flow: next is {list(next.shape)}, previous is {list(previous.shape)}")
    frames = torch.from_numpy(np.stack([previous, next]))
    return estimate_clip_flow(frames, method).forward[0].numpy()


def estimate_clip_flow(
    frames: Tensor, method: str = "tvl1", *, device: torch.device | str = "cpu", backward: bool = False
) -> ClipFlow:
    """Flow between neighbouring ones of T frames, forward and, if asked for, backward.

    frames: grey, uint8 [T, H, W] on the CPU, T >= 2. method: one of `METHODS`. device: where to compute, and where the
    fields will be.

    SettingsError if there is no such method, VideoError if it cannot take frames that small.
    """
    chosen = find_method(method)
    try:
        return chosen.estimate(frames, torch.device(device), backward)
    except cv2.error as error:
        height, width = frames.shape[1:]
        raise VideoError(f"frames of {width}x{height} pixels are too small for {method}") from error


_Pair = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], cv2.typing.MatLike]


def _pair_by_pair(estimate: _Pair, frames: Tensor, backward: bool) -> ClipFlow:
    count, height, width = frames.shape
    grey = frames.numpy()

    def fields(pairs: list[tuple[int, int]]) -> Tensor:
        flow = torch.empty(count - 1, height, width, 2, dtype=torch.float32, device="cpu")
        for field, (one, other) in zip(flow.numpy(), pairs, strict=True):
            field[:] = estimate(grey[one], grey[other])
        return flow

    ahead = [(t, t + 1) for t in range(count - 1)]
    back = [(t + 1, t) for t in range(count - 1)]
    return ClipFlow(fields(ahead), fields(back) if backward else None)


_NO_GUESS: Any = None  # OpenCV starts from zero; its type stubs ask for an array
_local = threading.local()


def _dis(frames: Tensor, device: torch.device, backward: bool) -> ClipFlow:
    """Dense inverse search (Kroeger et al., 2016)."""
    return _pair_by_pair(lambda one, other: _dense_inverse_search().calc(one, other, _NO_GUESS), frames, backward)


def _dense_inverse_search() -> cv2.DISOpticalFlow:
    """This thread's own: it keeps its buffers from call to call."""
    if not hasattr(_local, "search"):
        _local.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        _local.finest_scale = _local.search.getFinestScale()
    search: cv2.DISOpticalFlow = _local.search
    search.setFinestScale(_local.finest_scale)  # after small frames OpenCV leaves it raised
    return search


_FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def _farneback(frames: Tensor, device: torch.device, backward: bool) -> ClipFlow:
    """Farneback's (2003)."""

    def pair(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> cv2.typing.MatLike:
        return cv2.calcOpticalFlowFarneback(one, other, _NO_GUESS, **_FARNEBACK)  # type: ignore[call-overload,no-any-return]

    return _pair_by_pair(pair, frames, backward)


_TVL1 = {
    "tau": 0.25,
    "lambda_": 0.15,
    "theta": 0.3,
    "scales": 5,
    "scale_step": 0.8,
    "warps": 5,
    "epsilon": 0.01,
    "iterations": 300,
}


_TVL1_FAST = dict(ops.TVL1_FAST)


def _tvl1_with(settings: dict[str, Any], frames: Tensor, device: torch.device, backward: bool) -> ClipFlow:
    """TV-L1 (Zach, Pock and Bischof, 2007), by our own kernels."""
    flow = ops.tvl1_clip_flow(frames.to(device), backward=backward, **settings)
    return ClipFlow(flow[0], flow[1]) if backward else ClipFlow(flow, None)


METHODS: dict[str, Method] = {
    "tvl1": Method(
        partial(_tvl1_with, _TVL1), "TV-L1 (Zach, Pock and Bischof, 2007), by our own kernels", _TVL1, runs_on_cuda=True
    ),
    "tvl1-fast": Method(
        partial(_tvl1_with, _TVL1_FAST),
        "TV-L1 in a tenth of the time, with settings of ours",
        _TVL1_FAST,
        runs_on_cuda=True,
    ),
    "dis": Method(_dis, "dense inverse search (Kroeger et al., 2016), by OpenCV", {"preset": "medium"}),
    "farneback": Method(_farneback, "polynomial expansion (Farneback, 2003), by OpenCV", _FARNEBACK),
}
"""The methods by name; `register_method` adds to them."""

_OURS = frozenset(METHODS)
