# SPDX-License-Identifier: BSD-3-Clause
"""dequantize_flow: codes back to displacements. Bytes: the codes and the fields once. Limit: a copy of as many."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from workloads import (
    BOTH,
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
)

from twostream_ext import ops


def problem(setting: Setting, count: int = 8, planar: bool = False, dtype: torch.dtype = torch.float32) -> Problem:
    """Codes [N, L, H, W, 2]; the fields are there already, laid out as the codes."""
    sizes, device = setting.sizes(count), setting.device
    planes, lo, step, _ = coded_flow(sizes)
    whole = sizes.spread(planes, device)
    codes = whole.permute(0, 1, 3, 4, 2) if planar else interleaved(whole)
    inputs = SimpleNamespace(codes=codes, lo=sizes.spread(lo, device), step=sizes.spread(step, device))
    inputs.out = torch.empty_like(inputs.codes, dtype=dtype)
    inputs.planar = planar
    return Problem(
        inputs,
        lambda: torch.from_numpy(_reference(planes.permute(0, 1, 3, 4, 2).numpy(), lo.numpy(), step.numpy())),
        [1e-5 if dtype == torch.float32 else 4e-2],
        describe(codes, inputs.out),
        nbytes(codes),
        nbytes(inputs.out),
        "codes read once, fields written once",
        (Move("copy", nbytes(codes, inputs.out)),),
    )


def _reference(codes: np.ndarray, lo: np.ndarray, step: np.ndarray) -> np.ndarray:
    return _with_numpy(codes, lo, step, np.empty(codes.shape, np.float32))


def _with_numpy(codes: np.ndarray, lo: np.ndarray, step: np.ndarray, out: np.ndarray) -> np.ndarray:
    np.multiply(codes, step[:, :, None, None], out=out)
    out += lo[:, :, None, None]
    return out


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.dequantize_flow(i.codes, i.lo, i.step, out=i.out)


def _numpy(problem: Problem) -> Call:
    i = problem.inputs
    arrays = i.codes.numpy(), i.lo.numpy(), i.step.numpy(), i.out.numpy()
    return lambda: (_with_numpy(*arrays), i.out)[1]


def _eager(problem: Problem) -> Call:
    i = problem.inputs
    lo, step = i.lo[:, :, None, None], i.step[:, :, None, None]
    return lambda: i.out.copy_(i.codes).mul_(step).add_(lo)


def _compile(problem: Problem) -> Call:
    i = problem.inputs
    run = compiled(lambda codes, lo, step, out: out.copy_(codes * step + lo))
    return lambda: run(i.codes, i.lo[:, :, None, None], i.step[:, :, None, None], i.out)


def _opencv(problem: Problem) -> Call:
    """A look-up table for each field."""
    import cv2

    i = problem.inputs
    codes, out = i.codes.numpy(), i.out.numpy()

    def run() -> torch.Tensor:
        tables = (i.step[..., None] * torch.arange(256.0) + i.lo[..., None]).numpy()
        for n, k in np.ndindex(*codes.shape[:2]):
            if i.planar:
                for c in (0, 1):
                    cv2.LUT(codes[n, k, ..., c], tables[n, k, c], dst=out[n, k, ..., c])
            else:
                cv2.LUT(codes[n, k], np.ascontiguousarray(tables[n, k].T)[None], dst=out[n, k])
        return i.out

    return run


ours = Implementation(OURS, _ours)
eager = Implementation("torch", _eager)
inductor = Implementation("torch.compile", _compile)
PEERS = (
    Implementation("NumPy", _numpy, devices=("cpu",)),
    eager,
    inductor,
    Implementation("OpenCV", _opencv, needs="cv2", devices=("cpu",)),
)


def _workload(name: str, *others: Implementation, on: tuple[str, ...] = BOTH, **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), (ours, *others), on)


WORKLOADS = [
    _workload("interleaved", *PEERS),
    _workload("planar", *PEERS, planar=True),
    _workload("bfloat16", eager, inductor, dtype=torch.bfloat16),
    _workload("256 samples", *PEERS, on=("cuda",), count=256),
]


def test_dequantize_flow(measure: Callable[[], None]) -> None:
    measure()
