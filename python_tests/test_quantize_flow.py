# SPDX-License-Identifier: BSD-3-Clause
"""quantize_flow and its inverse, dequantize_flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import dequantize
from strategies import FLOATS, flow_batches

from twostream_ext import ops
from twostream_ext.ops import QuantizedFlow

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_list(batch):
    return batch if isinstance(batch, list) else list(batch)


@per_device
@given(data=st.data())
def test_own_range(device, data):
    batch = data.draw(flow_batches(dtypes=FLOATS))
    flow, _, _ = batch.to(device)
    codes, lo, step, mean = ops.quantize_flow(flow)
    values = batch.values
    lowest = np.array([each.min(axis=(1, 2)) for each in values])
    highest = np.array([each.max(axis=(1, 2)) for each in values])
    np.testing.assert_allclose(lo.cpu().numpy(), lowest, rtol=1e-7)
    np.testing.assert_allclose(step.cpu().numpy(), (highest - lowest) / 255, rtol=1e-6, atol=1e-12)
    expected = np.array([each.mean(axis=(1, 2)) for each in values])
    np.testing.assert_allclose(mean.cpu().numpy(), expected, rtol=1e-6, atol=2e-6)
    for sample, coded, low, steps in zip(values, as_list(codes), lo.cpu().numpy(), step.cpu().numpy(), strict=True):
        error = np.abs(dequantize(coded.cpu().numpy(), low, steps) - sample)
        assert np.all(error <= 0.5001 * steps[:, None, None, :] + 1e-5)


@per_device
@given(data=st.data(), bound=st.sampled_from([0.5, 3.0, 20.0]))
def test_bound(device, data, bound):
    batch = data.draw(flow_batches(dtypes=FLOATS))
    flow, _, _ = batch.to(device)
    codes, lo, step, _ = ops.quantize_flow(flow, bound=bound)
    assert torch.all(lo == -bound)
    for sample, coded in zip(batch.values, as_list(codes), strict=True):
        exact = (np.clip(sample, -bound, bound) + bound) * 255 / (2 * bound)
        assert np.abs(coded.cpu().numpy() - exact).max() <= 0.5001
    assert torch.allclose(step, torch.full_like(step, 2 * bound / 255))


@per_device
@given(data=st.data())
def test_dequantize(device, data):
    batch = data.draw(flow_batches(dtypes=[torch.uint8]))
    codes, lo, step = batch.to(device)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        result = ops.dequantize_flow(codes, lo, step, dtype=dtype)
        assert isinstance(result, list) == isinstance(codes, list)
        for decoded, expected in zip(as_list(result), batch.values, strict=True):
            assert decoded.dtype == dtype
            error = np.abs(decoded.double().cpu().numpy() - expected)
            assert np.all(error <= tolerance * (np.abs(expected) + 5))


def test_constant_field(device):
    codes, lo, step, mean = ops.quantize_flow(torch.full((1, 1, 3, 4, 2), 2.5, device=device))
    assert torch.all(codes == 0)
    assert torch.all(step == 0)
    assert torch.all(lo == 2.5)
    assert torch.all(mean == 2.5)


def test_non_finite_values_stay_local(device):
    flow = torch.linspace(-1, 1, 40, device=device).view(1, 1, 4, 5, 2).clone()
    clean = ops.quantize_flow(flow)
    flow[0, 0, 1, 2, 0] = torch.nan
    flow[0, 0, 2, 2, 0] = torch.inf
    flow[0, 0, 3, 2, 0] = -torch.inf
    codes, lo, step, mean = ops.quantize_flow(flow)
    assert torch.equal(lo, clean.lo)
    assert torch.equal(step, clean.step)
    assert torch.isfinite(mean).all()
    assert abs(lo[0, 0, 0] + step[0, 0, 0] * codes[0, 0, 1, 2, 0]) <= step[0, 0, 0]
    assert codes[0, 0, 2, 2, 0] == 255
    assert codes[0, 0, 3, 2, 0] == 0
    changed = codes != clean.codes
    assert changed.sum() <= 3


def test_a_field_without_a_finite_value(device):
    codes, lo, step, mean = ops.quantize_flow(torch.full((1, 1, 2, 2, 2), torch.nan, device=device))
    for tensor in (codes, lo, step, mean):
        assert torch.all(tensor == 0)


@pytest.mark.parametrize("width", [2, 50])  # of a whole vector and more, and of less
@pytest.mark.parametrize("planar", [False, True])
def test_huge_ranges(device, width, planar):
    values = torch.tensor([-3.4e38, 3.4e38, 0.0, 1.0], device=device).repeat(width)
    flow = values.view(1, 1, 2, 2 * width, 1).expand(1, 1, 2, 2 * width, 2).contiguous()
    if planar:
        flow = flow.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    codes, lo, step, mean = ops.quantize_flow(flow)
    for tensor in (lo, step, mean):
        assert torch.isfinite(tensor).all()
    assert set(codes[flow > 2].tolist()) == {255}
    assert set(codes[flow < 0].tolist()) == {0}


@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("planar", [False, True])
def test_one_spoilt_value_among_many(device, spoilt, planar):
    flow = torch.linspace(-1, 1, 2 * 40 * 60, device=device).view(1, 1, 40, 60, 2).clone()
    if planar:
        flow = flow.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    clean = ops.quantize_flow(flow)
    flow[0, 0, 20, 31, 1] = spoilt
    codes, lo, step, mean = ops.quantize_flow(flow)
    assert torch.equal(lo, clean.lo)
    assert torch.equal(step, clean.step)
    assert torch.isfinite(mean).all()
    assert (codes != clean.codes).sum() <= 1
    nearest = {torch.inf: 255, -torch.inf: 0}.get(spoilt, round(float(-lo[0, 0, 1] / step[0, 0, 1])))
    assert abs(int(codes[0, 0, 20, 31, 1]) - nearest) <= 1


def test_out_is_filled_in_any_layout(device):
    flow = torch.randn(2, 3, 5, 6, 2, device=device)
    expected = ops.quantize_flow(flow)
    planar = torch.zeros(2, 3, 2, 5, 6, dtype=torch.uint8, device=device).permute(0, 1, 3, 4, 2)
    out = QuantizedFlow(planar, *(torch.full_like(t, torch.nan) for t in expected[1:]))
    assert ops.quantize_flow(flow, out=out) is out
    for got, wanted in zip(out, expected, strict=True):
        assert torch.equal(got, wanted)
    decoded = torch.empty(2, 3, 2, 5, 6, device=device).permute(0, 1, 3, 4, 2)
    ops.dequantize_flow(out.codes, out.lo, out.step, out=decoded)
    assert torch.equal(decoded, ops.dequantize_flow(expected.codes, expected.lo, expected.step))


@pytest.mark.parametrize("bound", [0.0, -1.0, float("inf"), float("nan")])
def test_unusable_bound(bound):
    with pytest.raises(ValueError, match="quantize_flow: bound must be a positive finite"):
        ops.quantize_flow(torch.zeros(1, 1, 2, 2, 2), bound=bound)
