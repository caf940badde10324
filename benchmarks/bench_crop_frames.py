# SPDX-License-Identifier: BSD-3-Clause
"""crop_frames against the usual ways to crop, flip and normalise. Bytes: the windows' pixels once, the batch once.
Limit: filling the batch.
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
    Implementation,
    Move,
    Problem,
    Setting,
    Workload,
    compiled,
    describe,
    generator,
    nbytes,
    some_windows,
)

from twostream_ext import ops

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def problem(setting: Setting, count: int = 128, dtype: torch.dtype = torch.float32) -> Problem:
    """Frames [N, H, W, 3], random windows (every second one flipped); the output is there already."""
    sizes, device = setting.sizes(count), setting.device
    shape = (sizes.distinct, sizes.height, sizes.width, 3)
    frames = torch.randint(0, 256, shape, generator=generator(), dtype=torch.uint8)
    inputs = SimpleNamespace(size=sizes.crop, dtype=dtype, device=device, frames=sizes.spread(frames, device))
    windows = some_windows(sizes.distinct, 1, sizes.height, sizes.width, sizes.crop)[:, 0]
    inputs.windows = sizes.spread(windows, device)
    inputs.out = torch.empty(sizes.count, 3, sizes.crop, sizes.crop, dtype=dtype, device=device)
    return Problem(
        inputs,
        lambda: _with_numpy(frames, windows, torch.empty(sizes.distinct, *inputs.out.shape[1:])),
        [1e-5 if dtype == torch.float32 else 1e-2],
        describe(inputs.frames, inputs.out),
        inputs.out.numel(),
        nbytes(inputs.out),
        "pixels of the windows read once, batch written once",
        (Move("fill", nbytes(inputs.out)),),
    )


def _ours(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: ops.crop_frames(i.frames, i.windows, i.size, mean=MEAN, std=STD, out=i.out)


def _with_numpy(frames: torch.Tensor, windows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    mean, scale = (np.float32(each)[:, None, None] for each in (MEAN, 1 / np.float32(STD)))
    size = out.shape[-1]
    for frame, (top, left, flip), image in zip(frames.numpy(), windows.tolist(), out.numpy(), strict=True):
        crop = frame[top : top + size, left : left + size].transpose(2, 0, 1)
        np.subtract(crop[..., ::-1] if flip else crop, mean, out=image)
        np.multiply(image, scale, out=image)
    return out


def _numpy(problem: Problem) -> Call:
    i = problem.inputs
    return lambda: _with_numpy(i.frames, i.windows, i.out)


def _eager(problem: Problem) -> Call:
    i = problem.inputs
    mean, std = (torch.tensor(each, device=i.device)[:, None, None] for each in (MEAN, STD))

    def run() -> torch.Tensor:
        for frame, (top, left, flip), image in zip(i.frames, i.windows.tolist(), i.out, strict=True):
            crop = frame[top : top + i.size, left : left + i.size].permute(2, 0, 1)
            image.copy_(crop.flip(-1) if flip else crop).sub_(mean).div_(std)
        return i.out

    return run


def _compile(problem: Problem) -> Call:
    i = problem.inputs
    mean, std = (torch.tensor(each, device=i.device)[:, None, None] for each in (MEAN, STD))

    def crop(frames, windows, out):  # type: ignore[no-untyped-def]
        top, left, flip = windows.long().unbind(-1)
        steps = torch.arange(i.size, device=frames.device)
        rows = top[:, None] + steps
        columns = left[:, None] + torch.where(flip[:, None] > 0, i.size - 1 - steps, steps)
        sample = torch.arange(len(frames), device=frames.device)[:, None, None]
        picked = frames[sample, rows[:, :, None], columns[:, None, :]]
        out.copy_((picked.permute(0, 3, 1, 2) - mean) / std)
        return out

    run = compiled(crop)
    return lambda: run(i.frames, i.windows, i.out)


def _opencv(problem: Problem) -> Call:
    """Flip, subtract, multiply and split into the planes of the batch."""
    import cv2

    i = problem.inputs
    frames, listed, out = i.frames.numpy(), i.windows.tolist(), i.out.numpy()
    scale = (*(1 / each for each in STD), 0)

    def run() -> torch.Tensor:
        for frame, (top, left, flip), planes in zip(frames, listed, out, strict=True):
            crop = frame[top : top + i.size, left : left + i.size]
            crop = cv2.flip(crop, 1) if flip else crop
            centred = cv2.subtract(crop, (*MEAN, 0), dtype=cv2.CV_32F)
            cv2.split(cv2.multiply(centred, scale, dst=centred), list(planes))
        return i.out

    return run


def _torchvision(problem: Problem) -> Call:
    from torchvision.transforms.v2 import functional as transforms

    i = problem.inputs
    frames = i.frames.permute(0, 3, 1, 2)

    def run() -> torch.Tensor:
        for frame, (top, left, flip), image in zip(frames, i.windows.tolist(), i.out, strict=True):
            crop = transforms.crop(frame, top, left, i.size, i.size)
            crop = transforms.horizontal_flip(crop) if flip else crop
            image.copy_(transforms.normalize(transforms.to_dtype(crop, torch.float32), MEAN, STD, inplace=True))
        return i.out

    return run


def _kornia(problem: Problem) -> Call:
    """kornia works on float images; it crops by indices and normalises the batch."""
    from kornia.enhance import normalize
    from kornia.geometry.transform import crop_by_indices, hflip

    i = problem.inputs
    mean, std = torch.tensor(MEAN, device=i.device), torch.tensor(STD, device=i.device)
    top, left, flip = i.windows.unbind(-1)
    right, bottom, flipped = left + i.size - 1, top + i.size - 1, flip.bool()
    corners = [torch.stack(each, -1) for each in ((left, top), (right, top), (right, bottom), (left, bottom))]
    boxes = torch.stack(corners, 1)

    def run() -> torch.Tensor:
        crops = crop_by_indices(i.frames.permute(0, 3, 1, 2), boxes, (i.size, i.size)).float()
        crops[flipped] = hflip(crops[flipped])
        return normalize(crops, mean, std)

    return run


def _dali(problem: Problem) -> Call:
    i = problem.inputs
    top, left, flip = i.windows.numpy().T
    count, height, width, _ = i.frames.shape
    every = np.ones((count, 1), np.float32)
    return dali.crop_mirror_normalize(
        i.frames.numpy(),
        "HWC",
        (i.size, i.size),
        top / max(height - i.size, 1),
        left / max(width - i.size, 1),
        flip,
        every * np.float32(MEAN),
        every * np.float32(STD),
    )


ours = Implementation(OURS, _ours)
eager = Implementation("torch", _eager)
inductor = Implementation("torch.compile", _compile)
PEERS = (
    Implementation("NumPy", _numpy, devices=("cpu",)),
    eager,
    inductor,
    Implementation("OpenCV", _opencv, needs="cv2", devices=("cpu",)),
    Implementation("torchvision", _torchvision, needs="torchvision.transforms.v2"),
    Implementation("kornia", _kornia, needs="kornia"),
    Implementation("DALI", _dali, needs="nvidia.dali", devices=("cpu",)),
)


def _workload(name: str, *others: Implementation, on: tuple[str, ...] = BOTH, **options: Any) -> Workload:
    return Workload(name, lambda setting: problem(setting, **options), (ours, *others), on)


WORKLOADS = [
    _workload("128 frames", *PEERS),
    _workload("128 frames, bfloat16", eager, inductor, dtype=torch.bfloat16),
    _workload("32 frames", *PEERS, on=("cuda",), count=32),
    _workload("256 frames", *PEERS, on=("cuda",), count=256),
]


def test_crop_frames(measure: Callable[[], None]) -> None:
    measure()
