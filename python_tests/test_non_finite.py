# SPDX-License-Identifier: BSD-3-Clause
"""NaN and infinities in float fields stay in their own pixels, and no number whatever stops an operator."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operators import CASES, COLOUR, flattened
from strategies import FLOATS

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
WILD = [math.nan, math.inf, -math.inf]
floats = pytest.mark.parametrize("dtype", FLOATS)
results = pytest.mark.parametrize("result", FLOATS)


def equal(got, expected):
    return torch.equal(got.isnan(), expected.isnan()) and torch.equal(got.nan_to_num(9), expected.nan_to_num(9))


def spoiled(shape, dtype, device):
    """Values, one in seven of which is not finite."""
    clean = torch.randn(shape).to(dtype)
    wild = clean.clone()
    flat = wild.view(-1)
    flat[::7] = torch.tensor(WILD, dtype=dtype).repeat(flat.numel())[: flat[::7].numel()]
    return clean.to(device), wild.to(device)


@floats
@results
@pytest.mark.parametrize("flip", [0, 1])
def test_stacks(device, dtype, result, flip):
    _, flow = spoiled((2, 2, 5, 41, 2), dtype, device)
    windows = torch.tensor([[1, 2, flip]] * 2, dtype=torch.int32, device=device)
    stack = ops.flow_stack(flow, windows, (3, 37), dtype=result)
    expected = flow[:, :, 1:4, 2:39].float()
    if flip:
        expected = expected.flip(3) * torch.tensor([-1.0, 1.0], device=device)
    assert equal(stack, expected.permute(0, 1, 4, 2, 3).reshape(2, 4, 3, 37).to(result))


@floats
@results
def test_frames(device, dtype, result):
    clean, frames = spoiled((2, 5, 41, 3), dtype, device)
    windows = torch.tensor([[1, 2, 0], [0, 1, 1]], dtype=torch.int32, device=device)
    crops = ops.crop_frames(frames, windows, (3, 37), dtype=result, **COLOUR)
    expected = ops.crop_frames(clean, windows, (3, 37), dtype=result, **COLOUR)
    place = ops.crop_frames(
        torch.arange(clean.numel()).view(clean.shape).float().to(device), windows, (3, 37), mean=[0] * 3, std=[1] * 3
    )
    values = frames.reshape(-1)[place.long()].float()
    assert torch.equal(crops.isnan(), values.isnan())
    assert torch.equal(crops == math.inf, values == math.inf)
    assert torch.equal(crops == -math.inf, values == -math.inf)
    finite = values.isfinite()
    assert torch.equal(crops[finite], expected[finite])


@floats
def test_means(device, dtype):
    clean, _ = spoiled((2, 3, 5, 41, 2), dtype, device)
    for value in WILD:
        flow = clean.clone()
        flow[1, 2, 3, 40, 0] = value
        got, expected = ops.mean_flow(flow), ops.mean_flow(clean)
        expected[1, 2, 0] = value
        assert equal(got, expected)


@floats
def test_camera_motion(device, dtype):
    clean, _ = spoiled((2, 3, 75, 91, 2), dtype, device)
    expected = ops.camera_motion(clean)
    assert expected.isfinite().all()
    expected[1, 2] = math.nan
    for value in WILD:
        for row, column in ((0, 0), (37, 45), (74, 90)):  # of the grid and not
            flow = clean.clone()
            flow[1, 2, row, column, 0] = value
            assert equal(ops.camera_motion(flow), expected)


@floats
@pytest.mark.parametrize("bound", [None, 2.0])
def test_codes(device, dtype, bound):
    _, flow = spoiled((1, 2, 5, 41, 2), dtype, device)
    codes, lo, step, mean = ops.quantize_flow(flow, bound=bound)
    assert all(torch.isfinite(each).all() for each in (lo, step, mean))
    finite = flow.isfinite()
    ranges = {"lo": lo, "step": step}
    decoded = ops.dequantize_flow(codes, **ranges)
    nearest = flow.float().clamp(-2, 2) if bound else flow.float()
    steps = step[:, :, None, None, :].expand_as(decoded)
    assert torch.all((decoded - nearest)[finite].abs() <= 0.501 * steps[finite])
    assert torch.all(codes[flow == math.inf] == 255)
    assert torch.all(codes[flow == -math.inf] == 0)
    zero = decoded[flow.isnan()].abs()
    assert torch.all(zero <= 0.501 * steps[flow.isnan()])


@results
@pytest.mark.parametrize("value", WILD)
def test_ranges(device, result, value):
    codes = torch.randint(1, 256, (2, 2, 5, 41, 2), dtype=torch.uint8, device=device)
    lo, step = torch.randn(2, 2, 2, 2, device=device)
    expected = ops.dequantize_flow(codes, lo, step, dtype=result)
    expected[1, 0, ..., 1] = value
    for spoil in (lo, step):
        kept = spoil[1, 0, 1].clone()
        spoil[1, 0, 1] = value
        assert equal(ops.dequantize_flow(codes, lo, step, dtype=result), expected)
        spoil[1, 0, 1] = kept


@per_device
@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
def test_no_bits_stop_an_operator(device, data, name):
    # Any bits in any float tensor: NaN with a payload, subnormals, the largest numbers.
    seed = data.draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)

    def noise(_, tensor):
        if not tensor.is_floating_point():
            return tensor.to(device)
        shape = (*tensor.shape, tensor.element_size())
        return (
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).view(tensor.dtype)[..., 0].to(device)
        )

    for result in flattened(CASES[name].moved(noise)()):
        assert result.device.type == device.type
