# SPDX-License-Identifier: BSD-3-Clause
"""pytest-benchmark over the declarations of bench_*.py: every workload with every implementation.

    pytest benchmarks [-k "flow_stack and planar"] [--device cuda] [--quick]

Bytes, GB/s and the fraction of the limit stand in `extra_info`. Absent peers are skipped with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import limits
import pytest
import torch
from workloads import Implementation, Problem, Setting, UnavailableError, Workload


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"], help="where the benchmarks run")
    parser.addoption("--quick", action="store_true", help="tiny shapes, only to see that the benchmarks work")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "measure" in metafunc.fixturenames:
        device = torch.device(metafunc.config.getoption("device"))
        pairs = [
            pytest.param((workload, implementation), id=f"{workload.name}-{implementation.name}")
            for workload in metafunc.module.WORKLOADS
            if device.type in workload.devices
            for implementation in workload.those_on(device)
        ]
        metafunc.parametrize("measure", pairs, indirect=True)


@pytest.fixture
def setting(request: pytest.FixtureRequest) -> Setting:
    device = torch.device(request.config.getoption("device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return Setting(device, request.config.getoption("quick"))


_last: dict[tuple[str, Workload, Setting], Problem] = {}  # neighbouring tests share inputs and the reference's answer


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any, setting: Setting) -> Callable[[], None]:
    """Check one implementation on one workload, then time it and note what it reached."""
    workload, implementation = request.param
    key = (request.module.__name__, workload, setting)
    if key not in _last:
        _last.clear()
        _last[key] = workload.build(setting)
    return lambda: _measure(benchmark, _last[key], implementation, setting)


def _measure(benchmark: Any, problem: Problem, implementation: Implementation, setting: Setting) -> None:
    try:
        call = implementation.call(problem)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    synchronize = torch.cuda.synchronize if setting.device.type == "cuda" else lambda: None
    benchmark(lambda: (call(), synchronize()))
    best = benchmark.stats.stats.min
    limit = _fastest(limits.limit(problem, setting.device), synchronize)
    benchmark.extra_info.update(
        shapes=problem.shapes,
        bytes=problem.bytes,
        counted=problem.counted,
        gigabytes_per_second=problem.bytes / best / 1e9,
        limit=limits.describe(problem, setting.device),
        fraction_of_limit=limit / best,
    )


def _fastest(call: Callable[[], Any], synchronize: Callable[[], None], rounds: int = 7) -> float:
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        synchronize()
        taken.append(time.perf_counter() - begin)
    return min(taken)
