# SPDX-License-Identifier: BSD-3-Clause
"""Rows longer than a vector register and longer than a block of threads, at any place of any window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operators import COLOUR
from placement import embedded_copy
from reference import crop_frames as reference_crop
from reference import flow_stack as reference_stack
from strategies import FLOATS, Batch, crops, random_values

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@st.composite
def long_rows(draw, tallest, dtype, leading, components):
    """One or two samples of up to `tallest` x 700 pixels, anywhere in memory."""
    shape = (draw(st.integers(1, 2)), *leading, draw(st.integers(1, tallest)), draw(st.integers(1, 700)), components)
    tensor = random_values(shape, dtype, draw(st.integers(0, 2**31)))
    planar = draw(st.booleans())
    order = list(range(len(shape)))
    if planar:
        order.insert(-3, order.pop())
    gaps = [0] * (len(shape) - 2) + [draw(st.integers(0, 3)), 0]
    given = embedded_copy(tensor, order=order, gaps=gaps, offset=draw(st.integers(0, 63)))
    lo = step = None
    if dtype == torch.uint8 and components == 2:
        lo = random_values((shape[0], *leading, 2), torch.float32, 1)
        step = random_values((shape[0], *leading, 2), torch.float32, 2).abs() / 50
    return Batch(given, list(tensor), lo, step)


@pytest.fixture
def tallest(request):
    return 24 if "cuda_on_host" in request.node.name else 300  # the emulated kernels are slow


def assert_close(result, expected, dtype):
    error = np.abs(result.double().cpu().numpy() - expected) / (np.abs(expected) + 5)
    assert error.max() <= TOLERANCE[dtype]


@per_device
@given(data=st.data(), dtype=st.sampled_from([torch.uint8, *FLOATS]), result=st.sampled_from(FLOATS))
def test_flow_stack(device, tallest, data, dtype, result):
    batch = data.draw(long_rows(tallest, dtype, (data.draw(st.integers(1, 2)),), 2))
    size, windows = data.draw(crops(batch, rows_axis=1))
    flow, lo, step = batch.to(device)
    places = torch.from_numpy(windows).to(device)
    options = {"lo": lo, "step": step, "dtype": result, "channels_last": data.draw(st.booleans())}
    stack = ops.flow_stack(flow, places, size, **options)
    assert_close(stack, reference_stack(batch.values, windows, size), result)


@per_device
@given(data=st.data(), dtype=st.sampled_from([torch.uint8, *FLOATS]), result=st.sampled_from(FLOATS))
def test_crop_frames(device, tallest, data, dtype, result):
    batch = data.draw(long_rows(tallest, dtype, (), 3))
    size, windows = data.draw(crops(batch, rows_axis=0))
    frames, _, _ = batch.to(device)
    places = torch.from_numpy(windows).to(device)
    channels_last = data.draw(st.booleans())
    crop = ops.crop_frames(frames, places, size, dtype=result, channels_last=channels_last, **COLOUR)
    shift = np.zeros((len(batch.samples), 3))
    assert_close(crop, reference_crop(batch.values, windows, size, **COLOUR, shift=shift), result)


@pytest.mark.parametrize("width", [*range(1, 40), 63, 64, 65, 127, 129, 255, 256, 257, 511, 513])
def test_every_width(device, width):
    # Each width has its own remainder after whole registers; both ends of the row are the field's.
    flow = random_values((1, 1, 2, width, 2), torch.float32, width).to(device)
    codes = random_values((1, 1, 2, width, 2), torch.uint8, width).to(device)
    lo, step = random_values((2, 1, 1, 2), torch.float32, width).to(device)
    decoded = torch.addcmul(lo[:, :, None, None].double(), step[:, :, None, None].double(), codes.double()).float()
    mirror = torch.tensor([-1.0, 1.0], device=device)
    for flip in (0, 1):
        windows = torch.tensor([[0, 0, flip]], dtype=torch.int32, device=device)
        for pixels, values, coding in ((flow, flow, {}), (codes, decoded, {"lo": lo, "step": step})):
            expected = values.flip(3) * mirror if flip else values
            stack = ops.flow_stack(pixels, windows, (2, width), **coding)
            assert torch.equal(stack, expected.permute(0, 1, 4, 2, 3).reshape(1, 2, 2, width))
