# SPDX-License-Identifier: BSD-3-Clause
"""flow_stack against what one would write otherwise. Bytes: the windows' codes once (the whole fields, where the mean
is computed) and the stack once. Limit: filling the stack, and reading the fields where the mean is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import dali
import numpy as np
import torch
from workloads import (
    BOTH,
    OURS,
    Call,
    Growth,
    Implementation,
    Move,
    Problem,
    Setting,
    Sizes,
    Workload,
    coded_flow,
    compiled,
    describe,
    generator,
    interleaved,
    nbytes,
    some_windows,
)

from twostream_ext import ops


def problem(
    setting: Setting,
    count: int = 32,
    *,
    planar: bool = False,
    per_sample: int = 1,
    given_mean: bool = True,
    camera: bool = False,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    ragged: bool = False,
) -> Problem:
    """Codes, random windows (every second one flipped), ranges and means, or maps; the output is there already."""
    sizes, device = setting.sizes(count), setting.device
    codes, lo, step, mean = (sizes.spread(each, device) for each in coded_flow(sizes))
    flow = codes.permute(0, 1, 3, 4, 2) if planar else interleaved(codes)
    samples = list(flow)
    if ragged:  # every second field is 4 rows lower and 8 columns narrower
        samples = [each[:, 4:, 8:].contiguous() if n % 2 else each for n, each in enumerate(samples)]
    smallest = samples[-1].shape
    inputs = SimpleNamespace(planar=planar, size=sizes.crop, dtype=dtype, device=device)
    inputs.samples, inputs.flow = samples, samples if ragged else flow
    windows = some_windows(sizes.distinct, per_sample, smallest[1], smallest[2], sizes.crop)
    inputs.windows = sizes.spread(windows, device)
    inputs.lo, inputs.step, inputs.mean = lo, step, mean if given_mean and not camera else None
    maps = torch.randn(sizes.distinct, sizes.length, 2, 3, generator=generator(4)) * torch.tensor([0.01, 0.01, 2.0])
    inputs.camera = sizes.spread(maps, device) if camera else None
    shape = (sizes.count * per_sample, 2 * sizes.length, sizes.crop, sizes.crop)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(shape, dtype=dtype, device=device, memory_format=layout)
    inputs.out = out.unflatten(0, (sizes.count, per_sample))  # [N, K, 2L, h, w]
    read = sum(map(nbytes, samples)) if not given_mean else nbytes(inputs.out) // inputs.out.element_size()
    fill = Move("fill", nbytes(inputs.out))
    return Problem(
        inputs,
        lambda: _with_numpy(distinct(inputs, sizes), torch.empty(sizes.distinct, *inputs.out.shape[1:])),
        [4e-3 if dtype == torch.float32 else 4e-2],
        describe(inputs.flow, inputs.out),
        read,
        nbytes(inputs.out),
        f"codes of the {'windows' if given_mean else 'whole fields'} read once, stack written once",
        (fill,) if given_mean else (fill, Move("read", read)),
    )


def distinct(inputs: SimpleNamespace, sizes: Sizes) -> SimpleNamespace:
    """The inputs without repetitions, on the CPU."""
    first = {
        name: value[: sizes.distinct].cpu() for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)
    }
    samples = [each.cpu() for each in inputs.samples[: sizes.distinct]]
    return SimpleNamespace(**{**vars(inputs), **first, "samples": samples})


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    windows, out = (i.windows, i.out) if i.windows.shape[1] > 1 else (i.windows[:, 0], i.out[:, 0])
    ranges = {"lo": i.lo, "step": i.step}
    if i.camera is not None:
        return lambda: ops.flow_stack(i.flow, windows, i.size, camera=i.camera, out=out, **ranges)
    return lambda: ops.flow_stack(i.flow, windows, i.size, mean=i.mean, subtract_mean=True, out=out, **ranges)


def _windows(inputs: SimpleNamespace) -> list[tuple[int, int, int, int, int]]:
    """(sample, window, top, left, flip) of every window."""
    listed = inputs.windows.tolist()
    return [(n, k, *window) for n, per_sample in enumerate(listed) for k, window in enumerate(per_sample)]


def _numpy(problem: Problem) -> Call:
    return lambda: _with_numpy(problem.inputs, problem.inputs.out)


def _with_numpy(inputs: SimpleNamespace, out: torch.Tensor) -> torch.Tensor:
    lo, step, stacks = inputs.lo.numpy(), inputs.step.numpy(), out.numpy()
    samples = [each.numpy() for each in inputs.samples]
    if inputs.camera is not None:
        mean = np.zeros_like(lo)
    elif inputs.mean is None:
        mean = np.stack([each.mean((1, 2), dtype=np.float32) for each in samples]) * step + lo
    else:
        mean = inputs.mean.numpy()
    for n, k, top, left, flip in _windows(inputs):
        crop = samples[n][:, top : top + inputs.size, left : left + inputs.size].transpose(0, 3, 1, 2)
        crop, sign = (crop[..., ::-1], [-1, 1]) if flip else (crop, [1, 1])
        stack = stacks[n, k].reshape(crop.shape)
        np.multiply(crop, (step[n] * np.float32(sign))[..., None, None], out=stack)
        stack += ((lo[n] - mean[n]) * np.float32(sign))[..., None, None]
        if inputs.camera is not None:
            moved = _of_camera(inputs.camera[n].numpy(), top, left, inputs.size)
            stack -= (moved[..., ::-1] if flip else moved) * np.float32(sign)[:, None, None]
    return out


def _of_camera(maps: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """What maps [L, 2, 3] say in a window: [L, 2, size, size]."""
    rows, columns = (np.arange(start, start + size, dtype=np.float32) for start in (top, left))
    across, down = maps[..., 0, None, None] * columns, maps[..., 1, None, None] * rows[:, None]
    return across + (down + maps[..., 2, None, None])


def _torch_mean(samples: list[torch.Tensor], lo: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return torch.stack([each.mean((1, 2), dtype=torch.float32) for each in samples]) * step + lo


def _eager(problem: Problem) -> Call:
    i = problem.inputs
    signs = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], device=i.device)

    def run() -> torch.Tensor:
        mean = _torch_mean(i.samples, i.lo, i.step) if i.mean is None else i.mean
        for n, k, top, left, flip in _windows(i):
            crop = i.samples[n][:, top : top + i.size, left : left + i.size].permute(0, 3, 1, 2)
            crop = crop.flip(-1) if flip else crop
            stack = i.out[n, k].unflatten(0, (-1, 2))
            # Converting first is up to five times faster than a product of uint8 and float32.
            stack.copy_(crop).mul_((i.step[n] * signs[flip])[..., None, None])
            stack.add_(((i.lo[n] - mean[n]) * signs[flip])[..., None, None])
        return i.out

    return run


def _compile(problem: Problem) -> Call:
    """One gather, which the compiler fuses with the arithmetic."""
    i = problem.inputs

    def stack(flow, windows, lo, step, mean, out):  # type: ignore[no-untyped-def]
        if mean is None:
            mean = flow.mean((2, 3), dtype=torch.float32) * step + lo
        top, left, flip = windows.long().unbind(-1)  # [N, K]
        steps = torch.arange(i.size, device=flow.device)
        rows = top[..., None] + steps
        columns = left[..., None] + torch.where(flip[..., None] > 0, i.size - 1 - steps, steps)
        sign = torch.stack([1.0 - 2.0 * flip, torch.ones_like(flip)], -1)[:, :, None]  # [N, K, 1, 2]
        sample = torch.arange(len(flow), device=flow.device)[:, None, None, None]
        picked = flow.permute(0, 2, 3, 1, 4)[sample, rows[..., :, None], columns[..., None, :]]  # [N, K, h, w, L, 2]
        value = picked.permute(0, 1, 4, 5, 2, 3) * (step[:, None] * sign)[..., None, None]
        value = value + ((lo - mean)[:, None] * sign)[..., None, None]
        out.copy_(value.flatten(2, 3))
        return out

    run = compiled(stack)
    return lambda: run(i.flow, i.windows, i.lo, i.step, i.mean, i.out)


def _opencv(problem: Problem) -> Call:
    """A look-up table turns codes into displacements; the table holds range, mean and sign."""
    import cv2

    i = problem.inputs
    codes = torch.arange(256, dtype=torch.float32)
    samples, stacks = [each.numpy() for each in i.samples], i.out.numpy()

    def mean_of(sample: np.ndarray) -> torch.Tensor:
        if i.planar:
            return torch.tensor([[cv2.mean(field[..., c])[0] for c in (0, 1)] for field in sample])
        return torch.tensor([cv2.mean(field)[:2] for field in sample])

    def run() -> torch.Tensor:
        mean = torch.stack([mean_of(each) for each in samples]) * i.step + i.lo if i.mean is None else i.mean
        tables = i.step[..., None] * codes + (i.lo - mean)[..., None]  # [N, L, 2, 256]
        for n, k, top, left, flip in _windows(i):
            table = tables[n] * torch.tensor([[-1.0], [1.0]]) if flip else tables[n]
            for field, look_up, planes in zip(
                samples[n], table.numpy(), stacks[n, k].reshape(-1, 2, i.size, i.size), strict=True
            ):
                crop = field[top : top + i.size, left : left + i.size]
                if i.planar:
                    for c in (0, 1):
                        plane = cv2.flip(crop[..., c], 1) if flip else crop[..., c]
                        cv2.LUT(plane, look_up[c], dst=planes[c])
                else:
                    crop = cv2.flip(crop, 1) if flip else crop
                    cv2.split(cv2.LUT(crop, np.ascontiguousarray(look_up.T)[None]), [planes[0], planes[1]])
        return i.out

    return run


def _dali(problem: Problem) -> Call:
    """crop_mirror_normalize over N x L fields: (code - mean) / std, std negative where x changes its sign."""
    i = problem.inputs
    _, length, height, width, _ = i.flow.shape
    top, left, flip = (i.windows[:, 0, c].numpy().repeat(length) for c in range(3))
    sign = np.where(flip[:, None] > 0, np.float32([-1, 1]), np.float32([1, 1]))
    step, middle = i.step.reshape(-1, 2).numpy(), (i.mean - i.lo).reshape(-1, 2).numpy()
    fields = i.flow.permute(0, 1, 4, 2, 3) if i.planar else i.flow
    return dali.crop_mirror_normalize(
        fields.flatten(0, 1).numpy(),
        "CHW" if i.planar else "HWC",
        (i.size, i.size),
        top / max(height - i.size, 1),
        left / max(width - i.size, 1),
        flip,
        middle / step,
        sign / step,
    )


ours = Implementation(OURS, _ours)
numpy = Implementation("NumPy", _numpy, devices=("cpu",))
eager = Implementation("torch", _eager)
inductor = Implementation("torch.compile", _compile)
opencv = Implementation("OpenCV", _opencv, needs="cv2", devices=("cpu",))
pipeline = Implementation("DALI", _dali, needs="nvidia.dali", devices=("cpu",))


def _workload(name: str, *others: Implementation, on: tuple[str, ...] = BOTH, **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), (ours, *others), on)


BF16 = torch.bfloat16
WORKLOADS = [
    _workload("planar codes", numpy, eager, inductor, opencv, pipeline, planar=True),
    _workload("interleaved codes", numpy, eager, inductor, opencv, pipeline),
    _workload("mean computed", numpy, eager, inductor, opencv, given_mean=False),
    _workload("a camera", numpy, planar=True, camera=True),
    _workload("bfloat16", eager, inductor, planar=True, dtype=BF16),
    _workload("channels last", numpy, eager, inductor, channels_last=True),
    _workload("ten crops", numpy, eager, inductor, opencv, count=3, per_sample=10, planar=True),
    _workload("fields of two sizes", numpy, eager, opencv, ragged=True),
    _workload("256 samples", eager, inductor, on=("cuda",), count=256, planar=True),
    _workload("256 samples, bfloat16", eager, inductor, on=("cuda",), count=256, planar=True, dtype=BF16),
]


def _small(setting: Setting) -> Problem:
    built = problem(setting, 8, planar=True)
    built.limit = (Move("launch"),)
    return built


WORKLOADS.append(Workload("8 samples against an empty launch", _small, (ours, inductor), ("cuda",)))


def _growing(*others: Implementation, **options: Any) -> Callable[[int], Workload]:
    return lambda count: _workload(f"{count} samples", *others, count=count, planar=True, **options)


GROWTH = Growth(
    (1, 2, 4, 8, 16, 32, 64),
    {
        "float32": _growing(numpy, eager, inductor, opencv, pipeline),
        "bfloat16": _growing(dtype=BF16),
    },
)


def test_flow_stack(measure: Callable[[], None]) -> None:
    measure()
