# SPDX-License-Identifier: BSD-3-Clause
"""quantize_flow: range, mean and codes of each field. Bytes: the fields once (a field fits in the cache, so that its
second reading need not come from memory), the codes once. Limit: a copy that moves as many bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from workloads import (
    OURS,
    Call,
    Implementation,
    Move,
    Problem,
    Setting,
    Workload,
    compiled,
    describe,
    interleaved,
    nbytes,
    smooth_flow,
)

from twostream_ext import ops


def problem(setting: Setting, count: int = 8, planar: bool = False) -> Problem:
    """float32 fields [N, L, H, W, 2]; codes, lo, step and mean are there already."""
    sizes = setting.sizes(count)
    smooth = smooth_flow(sizes)
    whole = sizes.spread(smooth, setting.device)
    fields = whole.permute(0, 1, 3, 4, 2) if planar else interleaved(whole)
    inputs = SimpleNamespace(flow=fields, planar=planar)
    codes = torch.empty_like(inputs.flow, dtype=torch.uint8)  # of the same layout
    lo, step, mean = torch.empty(3, *fields.shape[:2], 2, device=setting.device)
    inputs.out = ops.QuantizedFlow(codes, lo, step, mean)
    return Problem(
        inputs,
        lambda: _with_numpy(smooth.permute(0, 1, 3, 4, 2).numpy()),
        [1.0, 1e-5, 1e-5, 1e-4],  # one code, where rounding falls to the other side
        describe(fields, codes),
        nbytes(fields),
        nbytes(codes),
        "fields read once, codes written once",
        (Move("copy", nbytes(fields, codes)),),
    )


def _with_numpy(flow: np.ndarray) -> list[np.ndarray]:
    lo, high = flow.min((2, 3)), flow.max((2, 3))
    step = (high - lo) / np.float32(255)
    scaled = flow - lo[:, :, None, None]
    scaled *= (1 / step)[:, :, None, None]
    codes = np.rint(scaled, out=scaled).astype(np.uint8)
    return [codes, lo, step, flow.mean((2, 3), dtype=np.float32)]


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.quantize_flow(i.flow, out=i.out)


def _in_torch(flow: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    lo, high = flow.amin((2, 3)), flow.amax((2, 3))
    step = (high - lo) / 255
    codes.copy_(((flow - lo[:, :, None, None]) * (1 / step)[:, :, None, None]).round())
    return codes, lo, step, flow.mean((2, 3))


def _eager(problem: Problem) -> Call:
    i = problem.inputs
    scaled = torch.empty_like(i.flow)

    def run() -> tuple[torch.Tensor, ...]:
        lo, high = torch.amin(i.flow, (2, 3)), torch.amax(i.flow, (2, 3))
        step = (high - lo) / 255
        torch.sub(i.flow, lo[:, :, None, None], out=scaled).mul_((1 / step)[:, :, None, None]).round_()
        return i.out.codes.copy_(scaled), lo, step, i.flow.mean((2, 3))

    return run


def _compile(problem: Problem) -> Call:
    i = problem.inputs
    run = compiled(_in_torch)
    return lambda: run(i.flow, i.out.codes)


def _opencv(problem: Problem) -> Call:
    """Range, mean and scaled conversion, plane by plane."""
    import cv2

    i = problem.inputs
    flow, codes = i.flow.numpy(), i.out.codes.numpy()
    lo, step, mean = (np.empty((*flow.shape[:2], 2), np.float32) for _ in range(3))

    def run() -> list[np.ndarray]:
        for n, k in np.ndindex(*flow.shape[:2]):
            field = flow[n, k]
            planes = (field[..., 0], field[..., 1]) if i.planar else cv2.split(field)
            coded = []
            for c, plane in enumerate(planes):
                low, high, _, _ = cv2.minMaxLoc(plane)
                scale = 255 / (high - low)
                lo[n, k, c], step[n, k, c], mean[n, k, c] = low, 1 / scale, cv2.mean(plane)[0]
                target = codes[n, k, ..., c] if i.planar else None
                coded.append(cv2.convertScaleAbs(plane, dst=target, alpha=scale, beta=-low * scale))
            if not i.planar:
                cv2.merge(coded, codes[n, k])
        return [codes, lo, step, mean]

    return run


IMPLEMENTATIONS = (
    Implementation(OURS, _ours),
    Implementation("NumPy", lambda problem: lambda: _with_numpy(problem.inputs.flow.numpy()), devices=("cpu",)),
    Implementation("torch", _eager),
    Implementation("torch.compile", _compile),
    Implementation("OpenCV", _opencv, needs="cv2", devices=("cpu",)),
)


def _workload(name: str, devices: tuple[str, ...] = ("cpu", "cuda"), **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), IMPLEMENTATIONS, devices)


WORKLOADS = [
    _workload("interleaved"),
    _workload("planar", planar=True),
    _workload("256 samples", ("cuda",), count=256),
]


def test_quantize_flow(measure: Callable[[], None]) -> None:
    measure()
