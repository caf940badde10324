# SPDX-License-Identifier: BSD-3-Clause
"""mean_flow: a reduction over whole fields. Bytes: the fields once. Limit: the sum of as many bytes as int64."""

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
    coded_flow,
    compiled,
    describe,
    interleaved,
    nbytes,
    smooth_flow,
)

from twostream_ext import ops


def problem(setting: Setting, count: int = 8, codes: bool = False, planar: bool = False) -> Problem:
    """Fields [N, L, H, W, 2] in float32 or in codes."""
    sizes, device = setting.sizes(count), setting.device
    flow = smooth_flow(sizes)
    lo = step = None
    if codes:
        flow, lo, step, _ = coded_flow(sizes)
    whole = sizes.spread(flow, device)
    fields = whole.permute(0, 1, 3, 4, 2) if planar else interleaved(whole)
    inputs = SimpleNamespace(flow=fields, planar=planar)
    inputs.lo, inputs.step = (None if each is None else sizes.spread(each, device) for each in (lo, step))
    inputs.out = torch.empty(*fields.shape[:2], 2, device=device)

    def reference() -> torch.Tensor:
        mean = flow.numpy().mean((3, 4), dtype=np.float64)
        return torch.from_numpy(mean if lo is None or step is None else lo.numpy() + step.numpy() * mean)

    return Problem(
        inputs,
        reference,
        [1e-4],
        describe(fields, inputs.out),
        nbytes(fields),
        nbytes(inputs.out),
        "fields read once, means written once",
        (Move("read", nbytes(fields)),),
    )


def _decode(inputs: SimpleNamespace, mean: torch.Tensor) -> torch.Tensor:
    return mean if inputs.lo is None else torch.addcmul(inputs.lo, inputs.step, mean, out=inputs.out)


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.mean_flow(i.flow, lo=i.lo, step=i.step, out=i.out)


def _numpy(problem: Problem) -> Call:
    i = problem.inputs
    flow = i.flow.numpy()
    return lambda: _decode(i, torch.from_numpy(flow.mean((2, 3), dtype=np.float32)))


def _eager(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: _decode(i, torch.mean(i.flow, (2, 3), dtype=torch.float32))


def _compile(problem: Problem) -> Call:
    i = problem.inputs
    run = compiled(lambda flow: flow.mean((2, 3), dtype=torch.float32))
    return lambda: _decode(i, run(i.flow))


def _opencv(problem: Problem) -> Call:
    import cv2

    i = problem.inputs
    flow = i.flow.numpy()

    def of(field: np.ndarray) -> list[float]:
        if i.planar:
            return [cv2.mean(field[..., 0])[0], cv2.mean(field[..., 1])[0]]
        return list(cv2.mean(field)[:2])

    return lambda: _decode(i, torch.tensor([[of(field) for field in sample] for sample in flow]))


IMPLEMENTATIONS = (
    Implementation(OURS, _ours),
    Implementation("NumPy", _numpy, devices=("cpu",)),
    Implementation("torch", _eager),
    Implementation("torch.compile", _compile),
    Implementation("OpenCV", _opencv, needs="cv2", devices=("cpu",)),
)


def _workload(name: str, devices: tuple[str, ...] = ("cpu", "cuda"), **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), IMPLEMENTATIONS, devices)


WORKLOADS = [
    _workload("float32"),
    _workload("interleaved codes", count=32, codes=True),
    _workload("planar codes", count=32, codes=True, planar=True),
    _workload("256 samples, planar codes", ("cuda",), count=256, codes=True, planar=True),
]


def test_mean_flow(measure: Callable[[], None]) -> None:
    measure()
