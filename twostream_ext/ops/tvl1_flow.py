# SPDX-License-Identifier: BSD-3-Clause
"""TV-L1 optical flow (Zach, Pock and Bischof, 2007), with which most two-stream nets are fed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops._door import Displacements, GreyClip, GreyFrames
from twostream_ext.ops._operator import Operator

TVL1_FAST: Mapping[str, Any] = MappingProxyType(
    {
        "tau": 0.27,
        "lambda_": 0.25,
        "theta": 0.36,
        "scales": 6,
        "scale_step": 0.7,
        "finest_scale": 1,
        "warps": 2,
        "epsilon": 0.0,
        "iterations": 18,
    }
)
"""Settings for `tvl1_flow(prev, next, **TVL1_FAST)` and `tvl1_clip_flow`, those of the flow method tvl1-fast: a tenth
of the default's time, the same whatever frames show (benchmarks/flow_error.py, which also searches such settings)."""

_WHITE = 255.0  # what the kernels take for white
_MOST_WORKSPACE = 1 << 30  # bytes, beside the frames' pyramids
_PIXELS_WORTH_SHARING = 1 << 19  # of a frame; csrc/cpu/tvl1_rows.h tells why
_MOST_CONCURRENT = 64  # pairs in one launch


def tvl1_flow(
    prev: GreyFrames,
    next: GreyFrames,
    *,
    tau: float = 0.25,
    lambda_: float = 0.15,
    theta: float = 0.3,
    scales: int = 5,
    scale_step: float = 0.8,
    finest_scale: int = 0,
    warps: int = 5,
    epsilon: float = 0.01,
    iterations: int = 300,
    median: int = 0,
    median_every: int = 30,
    range: float = 255.0,
    init: Displacements | None = None,
    out: torch.Tensor | list[torch.Tensor] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Optical flow from each frame of `prev` to the one of `next`.

    The defaults are those with which action-recognition flow is made (OpenCV's on CUDA: 300 iterations, no median
    filter). `median=5` with `median_every=30` is OpenCV's on the CPU, which filters the flow before each of ten rounds
    of 30 iterations. Where OpenCV's two differ otherwise (cubic kernel, border, test of convergence), this is its CPU
    one; both backends here give the same bits. `**TVL1_FAST` takes a tenth of the time. Not differentiable.

    The work is bound by arithmetic: about 50 operations a pixel, iteration and level (benchmarks/bench_tvl1_flow.py).
    Temporary memory: 10 bytes a pixel of every frame, and 70 bytes a pixel for each thread on the CPU, for each of up
    to 64 pairs at a time on a GPU.

    Args:
        prev, next: grey frames, uint8 or float32: `[N, H, W]`, any strides, or lists of N frames `[H_i, W_i]` of
            different sizes. At least 16 pixels a side are needed for a second level. Where a value is NaN or infinite,
            the flow of that pair is NaN everywhere.
        tau: time step of the dual variables.
        lambda_: weight of the images' likeness; less makes the flow smoother.
        theta: how tightly likeness and smoothness are coupled.
        scales, scale_step: levels of the pyramid, at most, and the size of each relative to the next finer one.
        finest_scale: the level after which to stop, 0 for the full size. The flow of a coarser one is enlarged, which
            saves the most expensive levels. Where there are fewer levels, the coarsest is worked on.
        warps: linearisations of the images a level.
        epsilon: a warp ends when an iteration changes the flow by this much or less, in pixels of its level (root mean
            square); 0 does all iterations, on the CPU in half the time each.
        iterations: of a warp, at most.
        median: side of a median filter of the flow, 3 or 5; 0 for none.
        median_every: iterations between two uses of it.
        range: the value of white: 255 for uint8; frames with values from 0 to 1 take 1. Float frames on the CPU that
            lie within 0 to 1 while `range` is 255 bring a UserWarning: their flow is next to nothing.
        init: flow to start from, float32 `[N, H, W, 2]` (or a list), say that of the pair before; 0 without it.
        out: fill and return this tensor, or these, which share no memory with the others.

    Returns:
        float32 `[N, H, W, 2]`, or a list of `[H_i, W_i, 2]`: displacements (x, y) in pixels, x right, y down; the pixel
        of `prev` at p is at p + flow in `next`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value; names it.
    """
    return _operator.call(
        prev,
        next,
        tau,
        lambda_,
        theta,
        scales,
        scale_step,
        finest_scale,
        warps,
        epsilon,
        iterations,
        median,
        median_every,
        range,
        init,
        out=out,
    )


def tvl1_clip_flow(
    clip: GreyClip,
    *,
    backward: bool = False,
    tau: float = 0.25,
    lambda_: float = 0.15,
    theta: float = 0.3,
    scales: int = 5,
    scale_step: float = 0.8,
    finest_scale: int = 0,
    warps: int = 5,
    epsilon: float = 0.01,
    iterations: int = 300,
    median: int = 0,
    median_every: int = 30,
    range: float = 255.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Optical flow between the neighbouring frames of a clip, each of whose pyramids is built once.

    Args:
        clip: grey frames `[T, H, W]`, T at least 1, as for `tvl1_flow`.
        backward: the flow of every frame to the one before as well.
        The others: as for `tvl1_flow`.
        out: fill and return this tensor.

    Returns:
        float32 `[T - 1, H, W, 2]`: field t takes frame t to frame t + 1. With `backward`, `[2, T - 1, H, W, 2]`: the
        second part's field t takes frame t + 1 back to frame t.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value; names it.
    """
    return _clip_operator.call(
        clip,
        backward,
        tau,
        lambda_,
        theta,
        scales,
        scale_step,
        finest_scale,
        warps,
        epsilon,
        iterations,
        median,
        median_every,
        range,
        out=out,
    )


def _allocate(prev: list[Tensor], next: list[Tensor]) -> list[Tensor]:
    _check_alike(prev, next)
    return [frames.new_empty([*frames.shape, 2], dtype=torch.float32) for frames in prev]


def _fill(prev: list[Tensor], next: list[Tensor], *options: Any, out: list[Tensor]) -> None:
    _check_alike(prev, next)
    *weights, white, init = options
    starts = init or [None] * len(prev)
    for name, given in (("init", starts), ("out", out)):
        if len(given) != len(prev):
            raise ValueError(f"tvl1_flow: {name} must be as many tensors as prev, {len(prev)}, got {len(given)}")
    for place, (one, other, start, flow) in enumerate(zip(prev, next, starts, out, strict=True)):
        name = "prev" if len(prev) == 1 else f"prev[{place}]"
        _C.check_apart("tvl1_flow", one, name, flow)  # the kernel sees a copy of both
        _C.check_apart("tvl1_flow", other, name.replace("prev", "next"), flow)
        several = one.dim() == 3
        frames = torch.cat([one, other]) if several else torch.stack([one, other])
        pairs = _pairs(one.shape[0] if several else 1, one.device)
        init_fields = start if several or start is None else start[None]
        _fill_pairs("tvl1_flow", name, frames, pairs, init_fields, weights, white, flow if several else flow[None])


def _check_alike(prev: list[Tensor], next: list[Tensor]) -> None:
    if len(prev) != len(next):
        raise ValueError(f"tvl1_flow: prev and next must be as many frames, got {len(prev)} and {len(next)}")
    dimensions = (2, 3) if len(prev) == 1 else (2,)
    for one, other in zip(prev, next, strict=True):
        alike = other.shape == one.shape and other.dtype == one.dtype and other.device == one.device
        if one.dim() not in dimensions or not alike:
            words = [f"{list(each.shape)} {each.dtype} on {each.device}" for each in (one, other)]
            wanted = "alike, [N, H, W] or lists of [H, W]"
            raise ValueError(f"tvl1_flow: prev and next must be {wanted}, got {words[0]} and {words[1]}")


def _pairs(count: int, device: torch.device) -> Tensor:
    """Pair each of `count` frames with the one that lies as many further on."""
    first = torch.arange(count, dtype=torch.int32, device=device)
    return torch.stack([first, first + count], dim=1)


def _shape_of_clip_flow(clip: Tensor, backward: bool) -> list[int]:
    if clip.dim() != 3 or clip.shape[0] < 1:
        raise ValueError(f"tvl1_clip_flow: clip must be of shape [T, H, W], T at least 1, got {list(clip.shape)}")
    return [*([2] if backward else []), clip.shape[0] - 1, *clip.shape[1:], 2]


def _allocate_of_clip(clip: Tensor, backward: bool) -> Tensor:
    return clip.new_empty(_shape_of_clip_flow(clip, backward), dtype=torch.float32)


def _fill_of_clip(clip: Tensor, backward: bool, *options: Any, out: Tensor) -> None:
    *weights, white = options
    shape = _shape_of_clip_flow(clip, backward)
    if list(out.shape) != shape:
        raise ValueError(f"tvl1_clip_flow: out must be of shape {shape}, got {list(out.shape)}")
    first = torch.arange(clip.shape[0] - 1, dtype=torch.int32, device=clip.device)
    pairs = torch.stack([first, first + 1], dim=1)
    if not backward:
        _fill_pairs("tvl1_clip_flow", "clip", clip, pairs, None, weights, white, out)
        return
    both = out.flatten(0, 1)  # both directions in one call, which builds each pyramid once
    _fill_pairs("tvl1_clip_flow", "clip", clip, torch.cat([pairs, pairs.flip(1)]), None, weights, white, both)
    if both.data_ptr() != out.data_ptr():  # out has strides that cannot be flattened
        out.copy_(both.view(shape))


def _fill_pairs(
    operator: str,
    argument: str,
    frames: Tensor,
    pairs: Tensor,
    init: Tensor | None,
    weights: Sequence[Any],
    white: float,
    out: Tensor,
) -> None:
    """Compute the flow of pairs of `frames`, which the caller of `operator` knows as `argument`."""
    _C.check_apart(operator, frames, argument, out)  # the kernel may see a copy
    given = (operator, argument, _scaled(operator, argument, frames, white))
    _, _, _, scales, scale_step, *_ = weights
    concurrent, share_rows = _concurrency(given, pairs.shape[0], scales, scale_step)
    size = _C.tvl1_flow_workspace(*given, scales, scale_step, concurrent)
    workspace = torch.empty(size, dtype=torch.uint8, device=frames.device)
    _C.tvl1_flow(*given, pairs, init, *weights, concurrent, share_rows, workspace, out)
    if frames.dtype.is_floating_point and frames.numel() > 0:
        low, high = frames.flatten(1).aminmax(dim=1)
        _spread_spoilt(low, high, pairs, out)
        if frames.device.type == "cpu" and white == _WHITE and low.amin() >= 0 and 0 < high.amax() <= 1:
            warnings.warn(
                f"{operator}: {argument} has values from 0 to 1, which is next to black where white is range=255; give "
                "range=1.0",
                stacklevel=2,
            )


def _scaled(operator: str, argument: str, frames: Tensor, white: float) -> Tensor:
    """Give frames with 255 for white."""
    if not 0 < white < math.inf:
        raise ValueError(f"{operator}: range must be a positive number, got {white}")
    if white == _WHITE:
        return frames
    if not frames.dtype.is_floating_point:
        raise ValueError(f"{operator}: range must be 255 where {argument} is {frames.dtype}, got {white}")
    return frames * (_WHITE / white)


def _spread_spoilt(low: Tensor, high: Tensor, pairs: Tensor, flow: Tensor) -> None:
    """Make all flow NaN of a pair that has a value that is not finite, which would become finite nonsense.

    `low` and `high` are those of each frame, NaN if the frame has one. Subtracting 0 leaves every other bit as it is.
    """
    spoilt = (low - low) + (high - high)  # 0, or NaN
    flow.sub_(spoilt[pairs.long()].sum(1)[:, None, None, None])


def _concurrency(given: tuple[str, str, Tensor], pairs: int, scales: int, scale_step: float) -> tuple[int, bool]:
    """How many pairs to compute at a time, and whether the CPU's threads share the rows of each."""
    _, _, frames = given
    if frames.device.type == "cpu":
        threads = torch.get_num_threads()
        if pairs < threads and frames.shape[1] * frames.shape[2] >= _PIXELS_WORTH_SHARING:
            return 1, True
        return max(1, min(pairs, threads)), False
    one, two = (_C.tvl1_flow_workspace(*given, scales, scale_step, count) for count in (1, 2))
    return max(1, min(pairs, _MOST_CONCURRENT, _MOST_WORKSPACE // (two - one))), False


_operator: Operator[Tensor | list[Tensor]] = Operator(tvl1_flow, allocate=_allocate, fill=_fill)
_clip_operator: Operator[Tensor] = Operator(tvl1_clip_flow, allocate=_allocate_of_clip, fill=_fill_of_clip)
