# SPDX-License-Identifier: BSD-3-Clause
"""ten_crop_windows: ten windows for each sample. Bytes: the sizes and the windows once. Limit: filling the windows."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from workloads import OURS, Call, Implementation, Move, Problem, Setting, Workload, describe, nbytes

from twostream_ext import ops

# Of five places, how many halves of the free room lie above and to the left.
HALVES = ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))


def problem(setting: Setting, count: int) -> Problem:
    """Samples of 256x340 and 240x320; the windows are there already."""
    sizes = torch.tensor([[256, 340], [240, 320]]).repeat(8 if setting.quick else count // 2, 1)
    inputs = SimpleNamespace(sizes=sizes.to(setting.device), size=224, device=setting.device)
    inputs.out = torch.empty(len(sizes), 10, 3, dtype=torch.int32, device=setting.device)
    return Problem(
        inputs,
        lambda: torch.from_numpy(_with_numpy(sizes.numpy(), 224, np.empty(inputs.out.shape, np.int32))),
        [0.0],
        describe(sizes, inputs.out),
        nbytes(sizes),
        nbytes(inputs.out),
        "sizes read once, windows written once",
        (Move("fill", nbytes(inputs.out)),),
    )


def _with_numpy(sizes: np.ndarray, size: int, out: np.ndarray) -> np.ndarray:
    places = (sizes - size)[:, None] * np.array(HALVES) // 2
    out[:, :5, :2] = out[:, 5:, :2] = places
    out[:, :5, 2], out[:, 5:, 2] = 0, 1
    return out


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.ten_crop_windows(i.sizes, i.size, out=i.out)


def _numpy(problem: Problem) -> Call:
    i = problem.inputs
    arrays = i.sizes.numpy(), i.size, i.out.numpy()
    return lambda: (_with_numpy(*arrays), i.out)[1]


def _eager(problem: Problem) -> Call:
    i = problem.inputs
    halves = torch.tensor(HALVES, device=i.device)
    flips = torch.tensor([[0], [1]], dtype=torch.int32, device=i.device)

    def run() -> torch.Tensor:
        places = ((i.sizes - i.size)[:, None] * halves).div_(2, rounding_mode="floor")
        pairs = i.out.unflatten(1, (2, 5))
        pairs[..., :2] = places[:, None]
        pairs[..., 2] = flips
        return i.out

    return run


IMPLEMENTATIONS = (
    Implementation(OURS, _ours),
    Implementation("NumPy", _numpy, devices=("cpu",)),
    Implementation("torch", _eager),
)
WORKLOADS = [
    Workload("256 samples", lambda setting: problem(setting, 256), IMPLEMENTATIONS),
    Workload("65536 samples", lambda setting: problem(setting, 65536), IMPLEMENTATIONS),
]


def test_ten_crop_windows(measure: Callable[[], None]) -> None:
    measure()
