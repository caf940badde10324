# SPDX-License-Identifier: BSD-3-Clause
"""random_windows: a few numbers for each sample. Draws of others differ, so that only their bounds are checked.
Bytes: the sizes once, the windows once. Limit: filling the windows; for one batch the call itself costs the most.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from workloads import OURS, Call, Implementation, Move, Problem, Setting, Workload, WrongResultError, describe, nbytes

from twostream_ext import ops


def problem(setting: Setting, count: int) -> Problem:
    """Samples of 256x340 and 240x320; the windows are there already."""
    sizes = torch.tensor([[256, 340], [240, 320]]).repeat(8 if setting.quick else count // 2, 1)
    inputs = SimpleNamespace(sizes=sizes.to(setting.device), size=224, device=setting.device)
    inputs.out = torch.empty(len(sizes), 3, dtype=torch.int32, device=setting.device)
    return Problem(
        inputs,
        lambda: torch.zeros(len(sizes)),
        [0.0],
        describe(sizes, inputs.out),
        nbytes(sizes),
        nbytes(inputs.out),
        "sizes read once, windows written once",
        (Move("fill", nbytes(inputs.out)),),
    )


def outside(problem: Problem, windows: torch.Tensor) -> torch.Tensor:
    """For each window 0 where it lies in its sample, 1 where not."""
    room = problem.inputs.sizes - problem.inputs.size
    fits = (windows[:, :2] >= 0).all(1) & (windows[:, :2] <= room).all(1) & (windows[:, 2] >> 1 == 0)
    if len(windows) >= 256:  # enough to tell that the places are spread over the room, and half of the windows flipped
        middle = 2 * windows.float().mean(0) / torch.cat([room.float().mean(0), torch.ones_like(room[0, :1])])
        if bool(((middle - 1).abs() > 0.25).any()):
            raise WrongResultError(f"windows are not spread evenly: {middle.tolist()} of the middle")
    return (~fits).float()


class _Draw:
    """A call whose windows are looked at only where `check` compares them, not while it is timed."""

    def __init__(self, problem: Problem, draw: Callable[[], torch.Tensor]) -> None:
        self.problem, self.draw = problem, draw

    def __call__(self) -> _Windows:
        return _Windows(self.problem, self.draw())


class _Windows:
    def __init__(self, problem: Problem, windows: torch.Tensor) -> None:
        self.problem, self.windows = problem, windows

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield outside(self.problem, self.windows)


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return _Draw(problem, lambda: ops.random_windows(i.sizes, i.size, seed=1, out=i.out))


def _numpy(problem: Problem) -> Call:
    i = problem.inputs
    room, out, source = i.sizes.numpy() - i.size + 1, i.out.numpy(), np.random.default_rng(1)

    def draw() -> torch.Tensor:
        out[:, :2] = source.integers(0, room)
        out[:, 2] = source.random(len(out)) < 0.5
        return i.out

    return _Draw(problem, draw)


def _eager(problem: Problem) -> Call:
    i = problem.inputs
    room = i.sizes - i.size + 1

    def draw() -> torch.Tensor:
        uniform = torch.rand(len(room), 3, device=i.device)
        i.out[:, :2] = (uniform[:, :2] * room).int()
        i.out[:, 2] = uniform[:, 2] < 0.5
        return i.out

    return _Draw(problem, draw)


IMPLEMENTATIONS = (
    Implementation(OURS, _ours),
    Implementation("NumPy", _numpy, devices=("cpu",)),
    Implementation("torch", _eager),
)
WORKLOADS = [
    Workload("256 samples", lambda setting: problem(setting, 256), IMPLEMENTATIONS),
    Workload("65536 samples", lambda setting: problem(setting, 65536), IMPLEMENTATIONS),
]


def test_random_windows(measure: Callable[[], None]) -> None:
    measure()
