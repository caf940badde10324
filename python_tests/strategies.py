# SPDX-License-Identifier: BSD-3-Clause
"""Hypothesis strategies: batches of any shape, stride and dtype, and windows on every border."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


class Batch(NamedTuple):
    """The same samples as the operators take them, and as float64 arrays."""

    given: torch.Tensor | list[torch.Tensor]
    samples: list[torch.Tensor]  # contiguous, each [(L,) H, W, C]
    lo: torch.Tensor | None
    step: torch.Tensor | None

    @property
    def values(self):
        if self.lo is None:
            return [sample.double().numpy() for sample in self.samples]
        return [
            low.double().numpy()[:, None, None, :] + steps.double().numpy()[:, None, None, :] * sample.double().numpy()
            for sample, low, steps in zip(self.samples, self.lo, self.step, strict=True)
        ]

    def to(self, device):
        given = self.given
        moved = [g.to(device) for g in given] if isinstance(given, list) else keep_strides(given, device)
        lo, step = (None if t is None else t.to(device) for t in (self.lo, self.step))
        return moved, lo, step


def keep_strides(tensor, device):
    """`tensor.to(device)`, but with the strides of `tensor` also when they overlap."""
    if device.type == "cpu":
        return tensor
    storage = torch.tensor([], dtype=tensor.dtype).set_(tensor.untyped_storage()).to(device)
    return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


@st.composite
def layouts(draw, tensor):
    """The same values with other strides and a storage offset: permuted, with gaps."""
    order = draw(st.permutations(range(tensor.dim())))
    gaps = [draw(st.integers(0, 2)) for _ in order]
    offset = draw(st.integers(0, 3))
    padded = torch.zeros([tensor.shape[d] + gap for d, gap in zip(order, gaps, strict=True)], dtype=tensor.dtype)
    flat = torch.zeros(padded.numel() + offset, dtype=tensor.dtype)[offset:].view(padded.shape)
    view = flat[tuple(slice(0, tensor.shape[d]) for d in order)]
    view = view.permute([order.index(d) for d in range(tensor.dim())])
    view.copy_(tensor)
    return view


def random_values(shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return (torch.randn(shape, generator=generator) * 5).to(dtype)


@st.composite
def flow_batches(draw, dtypes=(torch.uint8, *FLOATS)):
    """N stacks of L fields: one tensor or a list of different sizes."""
    dtype = draw(st.sampled_from(list(dtypes)))
    count, length = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    extents = st.tuples(st.integers(1, 19), st.integers(1, 23))
    seed = draw(st.integers(0, 2**31))
    if draw(st.booleans()):
        tensor = random_values((count, length, *draw(extents), 2), dtype, seed)
        given = draw(layouts(tensor))
        samples = list(tensor)
    else:
        samples = [random_values((length, *draw(extents), 2), dtype, seed + n) for n in range(count)]
        given = [draw(layouts(sample)) for sample in samples]
    lo = step = None
    if dtype == torch.uint8:
        lo = random_values((count, length, 2), torch.float32, seed + 1)
        step = random_values((count, length, 2), torch.float32, seed + 2).abs() / 50
    return Batch(given, samples, lo, step)


@st.composite
def camera_maps(draw, batch):
    """A map of its own for each field, float32 [N, L, 2, 3]."""
    seed = draw(st.integers(0, 2**31))
    maps = random_values((len(batch.samples), batch.samples[0].shape[0], 2, 3), torch.float32, seed)
    return maps * torch.tensor([0.01, 0.01, 1.0])


@st.composite
def frame_batches(draw):
    """N frames: one tensor or a list of different sizes."""
    dtype = draw(st.sampled_from([torch.uint8, *FLOATS]))
    count = draw(st.integers(1, 4))
    extents = st.tuples(st.integers(1, 19), st.integers(1, 23))
    seed = draw(st.integers(0, 2**31))
    if draw(st.booleans()):
        tensor = random_values((count, *draw(extents), 3), dtype, seed)
        return Batch(draw(layouts(tensor)), list(tensor), None, None)
    samples = [random_values((*draw(extents), 3), dtype, seed + n) for n in range(count)]
    return Batch([draw(layouts(sample)) for sample in samples], samples, None, None)


@st.composite
def crops(draw, batch, rows_axis):
    """A window size that fits every sample, and windows [N, K, 3] that also lie on the borders."""
    heights = [sample.shape[rows_axis] for sample in batch.samples]
    widths = [sample.shape[rows_axis + 1] for sample in batch.samples]
    size = draw(st.integers(1, min(heights))), draw(st.integers(1, min(widths)))
    places = draw(st.integers(1, 3))
    windows = np.zeros((len(heights), places, 3), dtype=np.int32)
    for sample, (height, width) in enumerate(zip(heights, widths, strict=True)):
        for place in range(places):
            windows[sample, place] = (
                draw(st.sampled_from([0, height - size[0]]) | st.integers(0, height - size[0])),
                draw(st.sampled_from([0, width - size[1]]) | st.integers(0, width - size[1])),
                draw(st.integers(0, 1)),
            )
    return size, windows
