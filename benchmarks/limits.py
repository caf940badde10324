# SPDX-License-Identifier: BSD-3-Clause
"""What the machine can do at best: fill, read or copy as many bytes as the kernel must move, in the same run.

Of what torch and NumPy offer, these were the fastest with two threads at 128 MB: `fill_` (a two-thread memset is no
faster), the sum of int64 (faster than sums of floats, maxima or dot products), `copy_` (faster than memcpy in threads).
"""

from __future__ import annotations

from typing import Any

import torch
from timing import interleave
from workloads import Call, Move, Problem


def moves(problem: Problem, device: torch.device) -> tuple[Move, ...]:
    """On CUDA a copy that moves as many bytes as the kernel, since reads and writes cost alike; a launch stays one."""
    if device.type == "cpu" or problem.limit[0].kind == "launch":
        return problem.limit
    return (Move("copy", problem.bytes),)


def limit(problem: Problem, device: torch.device) -> Call:
    """Give a call that makes all the moves, one after another, on buffers of its own."""
    calls = [_MOVES[move.kind](move.bytes, device) for move in moves(problem, device)]

    def run() -> None:
        for call in calls:
            call()

    return run


def describe(problem: Problem, device: torch.device) -> str:
    return " + ".join(
        move.kind if move.kind == "launch" else f"{move.kind} of {move.bytes:,} bytes"
        for move in moves(problem, device)
    )


def speeds(device: torch.device, size: int, rounds: int) -> dict[str, Any]:
    """GB/s of a fill, a read and a copy (half read, half written) of `size` bytes, timed in turns: the medians."""
    calls = {kind: _MOVES[kind](size, device) for kind in ("fill", "read", "copy")}
    times = interleave(calls, device, rounds)
    return {
        "bytes": size,
        "gigabytes_per_second": {kind: size / each.median / 1e9 for kind, each in times.items()},
    }


def _fill(size: int, device: torch.device) -> Call:
    buffer = torch.zeros(max(size // 4, 1), dtype=torch.float32, device=device)
    return lambda: buffer.fill_(1.0)


def _read(size: int, device: torch.device) -> Call:
    buffer = torch.ones(max(size // 8, 1), dtype=torch.int64, device=device)
    total = torch.zeros((), dtype=torch.int64, device=device)
    return lambda: torch.sum(buffer, 0, out=total)


def _copy(size: int, device: torch.device) -> Call:
    source = torch.ones(max(size // 8, 1), dtype=torch.float32, device=device)  # half of the bytes are read
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def _launch(size: int, device: torch.device) -> Call:
    return _fill(4, device)  # one element: nothing but the launch


_MOVES = {"fill": _fill, "read": _read, "copy": _copy, "launch": _launch}
