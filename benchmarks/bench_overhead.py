# SPDX-License-Identifier: BSD-3-Clause
"""What one call costs before any pixel is touched: flow_stack of one 8x8 window, and the parts of that call."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from workloads import OURS, Call, Implementation, Move, Problem, Setting, Workload, describe

from twostream_ext import _C, ops


def problem(setting: Setting) -> Problem:
    """One stack of one 8x8 field, zero everywhere."""
    i = SimpleNamespace(flow=torch.zeros(1, 1, 8, 8, 2, device=setting.device), fields=[])
    i.windows = torch.zeros(1, 3, dtype=torch.int32, device=setting.device)
    i.out = torch.empty(1, 2, 8, 8, device=setting.device)
    i.fields = list(i.flow)
    return Problem(
        i,
        lambda: torch.zeros(1, 2, 8, 8),
        [0.0],
        describe(i.flow, i.out),
        512,
        512,
        "field read once, stack written once",
        (Move("fill", 512),),
    )


def _public(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.flow_stack(i.flow, i.windows, 8, out=i.out)


def _public_allocating(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.flow_stack(i.flow, i.windows, 8)


def _registered(problem: Problem) -> Call:
    i = problem.inputs
    operator = torch.ops.twostream.flow_stack.out
    return lambda: operator(i.fields, i.windows, None, None, False, None, out=i.out)


def _bare(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: _C.flow_stack(i.fields, i.windows, None, None, None, None, i.out)


def _empty(problem: Problem) -> Call:
    device = problem.inputs.flow.device
    return lambda: torch.empty(1, 2, 8, 8, device=device)


def _add(problem: Problem) -> Call:
    out = problem.inputs.out
    other = torch.zeros_like(out)
    return lambda: torch.add(other, other, out=out)


WORKLOADS = [
    Workload(
        "one call",
        problem,
        (
            Implementation(OURS, _public, devices=("cpu",)),
            Implementation("without out=", _public_allocating, devices=("cpu",), part=True),
            Implementation("registered operator", _registered, devices=("cpu",), part=True),
            Implementation("_C.flow_stack", _bare, devices=("cpu",), part=True),
            Implementation("torch.empty", _empty, devices=("cpu",), part=True),
            Implementation("torch.add(out=)", _add, devices=("cpu",), part=True),
        ),
        ("cpu",),
    )
]


def test_overhead(measure: Callable[[], None]) -> None:
    measure()
