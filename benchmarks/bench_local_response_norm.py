# SPDX-License-Identifier: BSD-3-Clause
"""local_response_norm against PyTorch's. Bytes forward: the input once, the output once; backward besides: the input
and the output's gradient once, the input's gradient once. Limit: a copy that moves as many bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from workloads import (
    BOTH,
    OURS,
    Call,
    Implementation,
    Move,
    Problem,
    Setting,
    Workload,
    compiled,
    describe,
    generator,
    nbytes,
)

from twostream_ext import ops

SIZE, ALPHA, BETA, K = 5, 5e-4, 0.75, 2.0


def problem(setting: Setting, backward: bool = False, dtype: torch.dtype = torch.float32, count: int = 16) -> Problem:
    """Activations as after the first layer of CNN-M-2048."""
    sizes, device = setting.sizes(count), setting.device
    shape = (sizes.distinct, 8, 9, 9) if setting.quick else (sizes.distinct, 96, 109, 109)
    x = (torch.rand(shape, generator=generator()) * 20).to(dtype)
    gradient = torch.rand(shape, generator=generator(1)).to(dtype)
    inputs = SimpleNamespace(x=sizes.spread(x, device), gradient=sizes.spread(gradient, device))
    inputs.out = torch.empty_like(inputs.x)
    inputs.differentiable = inputs.x.clone().requires_grad_()
    tensors = 5 if backward else 2
    size = nbytes(inputs.x)
    return Problem(
        inputs,
        lambda: _reference(x.double().numpy(), gradient.double().numpy() if backward else None),
        [1e-5 if dtype == torch.float32 else 2e-2],
        describe(inputs.x, inputs.out),
        size * (3 if backward else 1),
        size * (2 if backward else 1),
        "input read, output written" + ("; input and gradient read, gradient written" if backward else ""),
        (Move("copy", tensors * size),),
    )


def _reference(x: np.ndarray, gradient: np.ndarray | None) -> torch.Tensor:
    base = K + ALPHA / SIZE * _window_sum(x * x)
    if gradient is None:
        return torch.from_numpy(x / base**BETA)
    outer = _window_sum(gradient * x / base ** (BETA + 1))
    return torch.from_numpy(gradient / base**BETA - 2 * ALPHA * BETA / SIZE * x * outer)


def _window_sum(values: np.ndarray) -> np.ndarray:
    half = SIZE // 2
    padded = np.pad(values, ((0, 0), (half, half), (0, 0), (0, 0)))
    return sum(padded[:, j : j + values.shape[1]] for j in range(SIZE))


def _both_ways(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Problem], Call]:
    def prepare(problem: Problem) -> Call:
        i = problem.inputs
        return lambda: torch.autograd.grad(function(i.differentiable), i.differentiable, i.gradient)

    return prepare


def _plain(x: torch.Tensor) -> torch.Tensor:
    return ops.local_response_norm(x, SIZE, ALPHA, BETA, K)


def _of_torch(x: torch.Tensor) -> torch.Tensor:
    return F.local_response_norm(x, SIZE, ALPHA, BETA, K)


def _written_out(x: torch.Tensor) -> torch.Tensor:
    squares = F.pad((x * x).float(), (0, 0, 0, 0, SIZE // 2, SIZE // 2))
    total = sum(squares[:, j : j + x.shape[1]] for j in range(SIZE))
    return (x / (K + ALPHA / SIZE * total) ** BETA).to(x.dtype)


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.local_response_norm(i.x, SIZE, ALPHA, BETA, K, out=i.out)


def _numpy(problem: Problem) -> Call:
    x, out = problem.inputs.x.numpy(), problem.inputs.out.numpy()

    def run() -> torch.Tensor:
        np.divide(x, (K + ALPHA / SIZE * _window_sum(x * x)) ** np.float32(BETA), out=out)
        return problem.inputs.out

    return run


def _compile(problem: Problem) -> Call:
    i = problem.inputs
    run = compiled(lambda x, out: out.copy_(_written_out(x)))
    return lambda: run(i.x, i.out)


def _compile_both_ways(problem: Problem) -> Call:
    return _both_ways(compiled(_written_out))(problem)


forward = (
    Implementation(OURS, _ours),
    Implementation("NumPy", _numpy, devices=("cpu",)),
    Implementation("torch", lambda problem: lambda: _of_torch(problem.inputs.x)),
    Implementation("torch.compile", _compile),
)
backward = (
    Implementation(OURS, _both_ways(_plain)),
    Implementation("torch", _both_ways(_of_torch)),
    Implementation("torch.compile", _compile_both_ways),
)


def _workload(name: str, by: tuple[Implementation, ...], on: tuple[str, ...] = BOTH, **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), by, on)


WORKLOADS = [
    _workload("forward", forward),
    _workload("forward and backward", backward, backward=True),
    _workload("256 samples, bfloat16", (forward[0], *forward[2:]), ("cuda",), dtype=torch.bfloat16, count=256),
]


def test_local_response_norm(measure: Callable[[], None]) -> None:
    measure()
