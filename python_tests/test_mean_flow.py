# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import flow_batches

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@per_device
@given(data=st.data())
def test_against_numpy(device, data):
    batch = data.draw(flow_batches())
    flow, lo, step = batch.to(device)
    expected = np.array([values.mean(axis=(1, 2)) for values in batch.values])
    result = ops.mean_flow(flow, lo=lo, step=step)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=1e-6, atol=2e-6)
    out = torch.full_like(result, torch.nan)
    assert ops.mean_flow(flow, lo=lo, step=step, out=out) is out
    assert torch.equal(out, result)


def test_large_fields_keep_their_digits(device):
    # 1e4 + a small wave: a float32 running sum would lose the wave.
    wave = torch.sin(torch.arange(256 * 340, dtype=torch.float64)).view(1, 1, 256, 340, 1)
    flow = (1e4 + wave).float().expand(1, 1, 256, 340, 2).to(device)
    expected = flow.cpu().double().mean(dim=(2, 3))
    torch.testing.assert_close(ops.mean_flow(flow).cpu().double(), expected, rtol=6e-8, atol=0)


def test_nan_stays_in_its_own_component(device):
    flow = torch.ones(1, 2, 4, 5, 2, device=device)
    flow[0, 1, 2, 3, 0] = torch.nan
    result = ops.mean_flow(flow)[0]
    assert torch.isnan(result[1, 0])
    assert torch.isnan(result).sum() == 1
