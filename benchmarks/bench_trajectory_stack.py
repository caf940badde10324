# SPDX-License-Identifier: BSD-3-Clause
"""trajectory_stack against remap and grid_sample chains. Bytes: as many codes as pixels of the stack once, the stack
once; the limit is filling the stack, though sampling, four neighbours a value, costs more than writing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bench_flow_stack
import numpy as np
import torch
import torch.nn.functional as F
from workloads import BOTH, OURS, Call, Growth, Implementation, Problem, Setting, Workload, compiled

from twostream_ext import ops


def problem(setting: Setting, count: int = 8, **options: Any) -> Problem:
    """The inputs of flow_stack, with another answer."""
    built = bench_flow_stack.problem(setting, count, **options)
    sizes = setting.sizes(count)
    built.reference = lambda: _with_numpy(bench_flow_stack.distinct(built.inputs, sizes))
    built.tolerances = [2e-2] if built.inputs.dtype == torch.float32 else [6e-2]
    built.counted = "one code for each value of the stack read once, stack written once"
    return built


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    windows, out = i.windows[:, 0], i.out[:, 0]
    return lambda: ops.trajectory_stack(i.flow, windows, i.size, lo=i.lo, step=i.step, mean=i.mean, out=out)


def _grid(inputs: SimpleNamespace, window: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[: inputs.size, : inputs.size].astype(np.float32)
    return rows + window[0], columns + window[1]


def _with_numpy(inputs: SimpleNamespace) -> torch.Tensor:
    """Bilinear sampling written out; positions advance by what was sampled and stay in the field."""
    flow, lo, step, mean = (each.cpu().numpy() for each in (inputs.flow, inputs.lo, inputs.step, inputs.mean))
    out = np.empty(inputs.out.shape, np.float32)
    height, width = flow.shape[2:4]
    for n, (window,) in enumerate(inputs.windows.tolist()):
        row, column = _grid(inputs, window)
        for k, field in enumerate(flow[n]):
            top = np.minimum(row.astype(np.int32), height - 2)
            left = np.minimum(column.astype(np.int32), width - 2)
            down, right = (row - top)[..., None], (column - left)[..., None]
            above = field[top, left] * (1 - right) + field[top, left + 1] * right
            below = field[top + 1, left] * (1 - right) + field[top + 1, left + 1] * right
            value = (above * (1 - down) + below * down) * step[n, k] + lo[n, k]
            row = np.clip(row + value[..., 1], 0, height - 1)
            column = np.clip(column + value[..., 0], 0, width - 1)
            stack = out[n, 0, 2 * k : 2 * k + 2]
            stack[...] = (value - mean[n, k]).transpose(2, 0, 1)
            if window[2]:
                stack[...] = stack[..., ::-1] * np.float32([-1, 1])[:, None, None]
    return torch.from_numpy(out)


def _start(inputs: SimpleNamespace) -> torch.Tensor:
    """Positions (x, y) of the windows' pixels: [N, h, w, 2] float32."""
    steps = torch.arange(inputs.size, device=inputs.device)
    rows, columns = inputs.windows[:, 0, 0, None] + steps, inputs.windows[:, 0, 1, None] + steps
    shape = (len(rows), inputs.size, inputs.size)
    return torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1).float()


def _turn(inputs: SimpleNamespace, out: torch.Tensor) -> torch.Tensor:
    """Mirror the flipped windows of [N, L, 2, h, w] and change the sign of their x."""
    flipped = inputs.windows[:, 0, 2, None, None, None, None] > 0
    sign = torch.tensor([-1.0, 1.0], device=out.device)[:, None, None]
    return torch.where(flipped, out.flip(-1) * sign, out)


def _grid_sample(problem: Problem) -> Call:
    i = problem.inputs
    height, width = i.flow.shape[2:4]
    last = torch.tensor([width - 1, height - 1], dtype=torch.float32, device=i.device)
    out = i.out[:, 0].unflatten(1, (-1, 2))
    zero = torch.zeros_like(last)
    fields = torch.empty(*i.flow.shape[:2], 2, height, width, device=i.device)

    def run() -> torch.Tensor:
        fields.copy_(i.flow.permute(0, 1, 4, 2, 3)).mul_(i.step[..., None, None]).add_(i.lo[..., None, None])
        position = _start(i)
        for k in range(fields.shape[1]):
            value = F.grid_sample(
                fields[:, k], position * (2 / last) - 1, mode="bilinear", padding_mode="border", align_corners=True
            )
            position = torch.minimum(torch.maximum(position + value.permute(0, 2, 3, 1), zero), last)
            torch.sub(value, i.mean[:, k, :, None, None], out=out[:, k])
        return out.copy_(_turn(i, out))

    return run


def _compile(problem: Problem) -> Call:
    """Gathers of codes at four neighbours, which the compiler fuses with the arithmetic of each step."""
    i = problem.inputs
    start = _start(i)

    def stack(flow, start, lo, step, mean, out):  # type: ignore[no-untyped-def]
        height, width = flow.shape[2:4]
        sample = torch.arange(len(flow), device=flow.device)[:, None, None]
        column, row = start.unbind(-1)
        values = []
        for k in range(flow.shape[1]):
            top = row.to(torch.int64).clamp_max(height - 2)
            left = column.to(torch.int64).clamp_max(width - 2)
            down, right = (row - top)[..., None], (column - left)[..., None]
            field = flow[:, k]
            above = field[sample, top, left] * (1 - right) + field[sample, top, left + 1] * right
            below = field[sample, top + 1, left] * (1 - right) + field[sample, top + 1, left + 1] * right
            value = (above * (1 - down) + below * down) * step[:, k, None, None] + lo[:, k, None, None]
            row = (row + value[..., 1]).clamp(0, height - 1)
            column = (column + value[..., 0]).clamp(0, width - 1)
            values.append((value - mean[:, k, None, None]).permute(0, 3, 1, 2))
        out.copy_(_turn(i, torch.stack(values, 1)))
        return out

    run = compiled(stack)
    out = i.out[:, 0].unflatten(1, (-1, 2))
    return lambda: run(i.flow, start, i.lo, i.step, i.mean, out)


def _opencv(problem: Problem) -> Call:
    """Decode each field with a look-up table, then remap at positions that advance by what was sampled."""
    import cv2

    i = problem.inputs
    flow, mean, out = i.flow.numpy(), i.mean.numpy(), i.out.numpy()
    tables = (i.step[..., None] * torch.arange(256.0) + i.lo[..., None]).numpy()
    height, width = flow.shape[2:4]
    listed = i.windows.tolist()

    def decode(field: np.ndarray, table: np.ndarray) -> np.ndarray:
        if i.planar:
            return cv2.merge([cv2.LUT(field[..., 0], table[0]), cv2.LUT(field[..., 1], table[1])])
        return cv2.LUT(field, np.ascontiguousarray(table.T)[None])

    def run() -> torch.Tensor:
        for n, (window,) in enumerate(listed):
            row, column = _grid(i, window)
            position = cv2.merge([column, row])
            for k, field in enumerate(flow[n]):
                value = cv2.remap(
                    decode(field, tables[n, k]), position, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                )
                position += value
                np.clip(position, 0, (width - 1, height - 1), out=position)
                cv2.subtract(value, (*mean[n, k].tolist(), 0, 0), dst=value)
                if window[2]:
                    value = cv2.multiply(cv2.flip(value, 1), (-1.0, 1.0, 0, 0))
                cv2.split(value, [out[n, 0, 2 * k], out[n, 0, 2 * k + 1]])
        return i.out

    return run


ours = Implementation(OURS, _ours)
numpy = Implementation("NumPy", lambda problem: lambda: _with_numpy(problem.inputs), devices=("cpu",))
eager = Implementation("torch grid_sample", _grid_sample)
inductor = Implementation("torch.compile", _compile)
# cv2.remap rounds positions to 1/32 of a pixel, and the trajectories drift apart a little.
opencv = Implementation("OpenCV remap", _opencv, needs="cv2", devices=("cpu",), tolerance=0.15)
PEERS = (numpy, eager, inductor, opencv)


def _workload(name: str, *others: Implementation, on: tuple[str, ...] = BOTH, **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), (ours, *others), on)


WORKLOADS = [
    _workload("interleaved codes", *PEERS),
    _workload("planar codes", *PEERS, planar=True),
    _workload("bfloat16", inductor, dtype=torch.bfloat16),
    _workload("256 samples", eager, inductor, on=("cuda",), count=256),
    _workload("256 samples, bfloat16", inductor, on=("cuda",), count=256, dtype=torch.bfloat16),
]


def _growing(*others: Implementation, **options: Any) -> Callable[[int], Workload]:
    return lambda count: _workload(f"{count} samples", *others, count=count, **options)


GROWTH = Growth((1, 2, 4, 8, 16, 32), {"float32": _growing(*PEERS), "bfloat16": _growing(dtype=torch.bfloat16)})


def test_trajectory_stack(measure: Callable[[], None]) -> None:
    measure()
