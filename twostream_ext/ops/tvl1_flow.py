# SPDX-License-Identifier: BSD-3-Clause
"""TV-L1 optical flow (Zach, Pock and Bischof, 2007), with which most two-stream nets are fed."""

from __future__ import annotations

from typing import Any

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration

_MOST_WORKSPACE = 1 << 30  # bytes, beside the frames' pyramids
_PIXELS_WORTH_SHARING = 1 << 19  # of a frame; csrc/cpu/tvl1_flow.cpp tells why
_MOST_CONCURRENT = 64  # pairs in one launch


def tvl1_flow(
    prev: registration.Arrays,
    next: registration.Arrays,
    *,
    tau: float = 0.25,
    lambda_: float = 0.15,
    theta: float = 0.3,
    scales: int = 5,
    scale_step: float = 0.8,
    warps: int = 5,
    epsilon: float = 0.01,
    iterations: int = 300,
    median: int = 0,
    median_every: int = 30,
    init: registration.Arrays | None = None,
    out: registration.Arrays | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Optical flow from each frame of `prev` to the one of `next`.

    The defaults are those with which action-recognition flow is made (OpenCV's on CUDA: 300 iterations, no median
    filter). `median=5` with `median_every=30` is OpenCV's on the CPU, which filters the flow before each of ten rounds
    of 30 iterations. Where OpenCV's two differ otherwise (cubic kernel, border, test of convergence), this is its CPU
    one; both backends here give the same bits. Not differentiable.

    The work is bound by arithmetic: about 50 operations a pixel, iteration and level (benchmarks/bench_tvl1_flow.py).
    Temporary memory: 10 bytes a pixel of every frame, and 70 bytes a pixel for each thread on the CPU, for each of up
    to 64 pairs at a time on a GPU.

    Args:
        prev, next: grey frames, uint8 or float32 with values 0 to 255: `[N, H, W]`, any strides, or lists of N frames
            `[H_i, W_i]` of different sizes. At least 16 pixels a side are needed for a second level.
        tau: time step of the dual variables.
        lambda_: weight of the images' likeness; less makes the flow smoother.
        theta: how tightly likeness and smoothness are coupled.
        scales, scale_step: levels of the pyramid, at most, and the size of each relative to the next finer one.
        warps: linearisations of the images a level.
        epsilon: a warp ends when an iteration changes the flow by this much or less, in pixels of its level (root mean
            square); 0 does all iterations.
        iterations: of a warp, at most.
        median: side of a median filter of the flow, 3 or 5; 0 for none.
        median_every: iterations between two uses of it.
        init: flow to start from, float32 `[N, H, W, 2]` (or a list), say that of the pair before; 0 without it.
        out: fill and return this tensor, or these.

    Returns:
        float32 `[N, H, W, 2]`, or a list of `[H_i, W_i, 2]`: displacements (x, y) in pixels, x right, y down; the pixel
        of `prev` at p is at p + flow in `next`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value; names it.
    """
    options = (tau, lambda_, theta, scales, scale_step, warps, epsilon, iterations, median, median_every)
    if not isinstance(prev, (list, tuple)):
        return _between(registration.to_tensor(prev), registration.to_tensor(next), init, options, out)
    lists = [prev, next, [None] * len(prev) if init is None else init, [None] * len(prev) if out is None else out]
    if len({len(each) for each in lists}) != 1:
        raise ValueError(f"tvl1_flow: prev, next, init and out must be as many, got {[len(each) for each in lists]}")
    return [_between_two(*each, options=options) for each in zip(*lists, strict=True)]


def tvl1_clip_flow(
    clip: registration.Arrays,
    *,
    backward: bool = False,
    tau: float = 0.25,
    lambda_: float = 0.15,
    theta: float = 0.3,
    scales: int = 5,
    scale_step: float = 0.8,
    warps: int = 5,
    epsilon: float = 0.01,
    iterations: int = 300,
    median: int = 0,
    median_every: int = 30,
) -> torch.Tensor:
    """Optical flow between the neighbouring frames of a clip, each of whose pyramids is built once.

    Args:
        clip: grey frames `[T, H, W]`, T at least 1, as for `tvl1_flow`.
        backward: the flow of every frame to the one before as well.
        The others: as for `tvl1_flow`.

    Returns:
        float32 `[T - 1, H, W, 2]`: field t takes frame t to frame t + 1. With `backward`, `[2, T - 1, H, W, 2]`: the
        second part's field t takes frame t + 1 back to frame t.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value; names it.
    """
    frames = registration.to_tensor(clip)
    if frames.dim() != 3 or frames.shape[0] < 1:
        raise ValueError(f"tvl1_flow: clip must be of shape [T, H, W], got {list(frames.shape)}")
    registration.refuse_gradient("tvl1_flow", frames)
    first = torch.arange(frames.shape[0] - 1, dtype=torch.int32, device=frames.device)
    pairs = torch.stack([first, first + 1], dim=1)
    if backward:
        pairs = torch.cat([pairs, pairs.flip(1)])
    options = (tau, lambda_, theta, scales, scale_step, warps, epsilon, iterations, median, median_every)
    flow: torch.Tensor = torch.ops.twostream.tvl1_flow(frames, pairs, None, *options)
    return flow.view(2, -1, *flow.shape[1:]) if backward else flow


def _between_two(prev: Any, next: Any, init: Any, out: Any, *, options: tuple[Any, ...]) -> torch.Tensor:
    """Of two frames `[H, W]`."""
    batches = [None if each is None else registration.to_tensor(each)[None] for each in (prev, next, init, out)]
    flow = _between(batches[0], batches[1], batches[2], options, batches[3])  # type: ignore[arg-type]
    return registration.to_tensor(out) if out is not None else flow[0]


def _between(prev: torch.Tensor, next: torch.Tensor, init: Any, options: tuple[Any, ...], out: Any) -> torch.Tensor:
    start = None if init is None else registration.to_tensor(init)
    registration.refuse_gradient("tvl1_flow", prev, next, start)
    if prev.dim() != 3 or next.shape != prev.shape or next.dtype != prev.dtype or next.device != prev.device:
        words = [f"{list(each.shape)} {each.dtype} on {each.device}" for each in (prev, next)]
        raise ValueError(f"tvl1_flow: prev and next must be alike, [N, H, W], got {words[0]} and {words[1]}")
    first = torch.arange(prev.shape[0], dtype=torch.int32, device=prev.device)
    pairs = torch.stack([first, first + prev.shape[0]], dim=1)
    frames = torch.cat([prev, next])
    if out is None:
        flow: torch.Tensor = torch.ops.twostream.tvl1_flow(frames, pairs, start, *options)
        return flow
    target = registration.to_target("tvl1_flow", out, False)
    torch.ops.twostream.tvl1_flow.out(frames, pairs, start, *options, out=target)
    return target


def _concurrency(frames: torch.Tensor, pairs: int, scales: int, scale_step: float) -> tuple[int, bool]:
    """How many pairs to compute at a time, and whether the CPU's threads share the rows of each."""
    if frames.device.type == "cpu":
        threads = torch.get_num_threads()
        if pairs < threads and frames.shape[1] * frames.shape[2] >= _PIXELS_WORTH_SHARING:
            return 1, True
        return max(1, min(pairs, threads)), False
    one, two = (_C.tvl1_flow_workspace(frames, scales, scale_step, count) for count in (1, 2))
    return max(1, min(pairs, _MOST_CONCURRENT, _MOST_WORKSPACE // (two - one))), False


def _fill(
    frames: torch.Tensor,
    pairs: torch.Tensor,
    init: torch.Tensor | None,
    tau: float,
    lambda_: float,
    theta: float,
    scales: int,
    scale_step: float,
    warps: int,
    epsilon: float,
    iterations: int,
    median: int,
    median_every: int,
    *,
    out: torch.Tensor,
) -> None:
    concurrent, share_rows = _concurrency(frames, pairs.shape[0], scales, scale_step)
    size = _C.tvl1_flow_workspace(frames, scales, scale_step, concurrent)
    workspace = torch.empty(size, dtype=torch.uint8, device=frames.device)
    weights = (tau, lambda_, theta, scales, scale_step, warps, epsilon, iterations, median, median_every)
    _C.tvl1_flow(frames, pairs.contiguous(), init, *weights, concurrent, share_rows, workspace, out)


def _allocate(frames: torch.Tensor, pairs: torch.Tensor, *_: object) -> torch.Tensor:
    return frames.new_empty([pairs.shape[0], *frames.shape[1:], 2], dtype=torch.float32)


def _compute(frames: torch.Tensor, pairs: torch.Tensor, *others: Any) -> torch.Tensor:
    out = _allocate(frames, pairs)
    _fill(frames, pairs, *others, out=out)
    return out


_PARAMETERS = (
    "Tensor frames, Tensor pairs, Tensor? init, float tau, float lambda_, float theta, int scales, float scale_step,"
    " int warps, float epsilon, int iterations, int median, int median_every"
)

registration.register(f"tvl1_flow({_PARAMETERS}) -> Tensor", _compute, _allocate)
registration.register(f"tvl1_flow.out({_PARAMETERS}, *, Tensor(a!) out) -> ()", _fill, registration.nothing)
