# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import flow_stack as reference_stack
from strategies import FLOATS, camera_maps, crops, flow_batches

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def assert_close(result, expected, dtype):
    scale = np.abs(expected) + 5.0  # the rounding of the offset counts too: values of some pixels may cancel
    error = np.abs(result.double().cpu().numpy() - expected) / scale
    assert error.max(initial=0) <= TOLERANCE[dtype]


@per_device
@given(data=st.data())
def test_against_the_formula(device, data):
    batch = data.draw(flow_batches())
    size, windows = data.draw(crops(batch, rows_axis=1))
    dtype = data.draw(st.sampled_from(FLOATS))
    channels_last, subtract_mean = data.draw(st.booleans()), data.draw(st.booleans())
    flow, lo, step = batch.to(device)
    result = ops.flow_stack(
        flow,
        torch.from_numpy(windows).to(device),
        size,
        lo=lo,
        step=step,
        subtract_mean=subtract_mean,
        dtype=dtype,
        channels_last=channels_last,
    )
    assert result.dtype == dtype
    assert result.device.type == device.type
    assert_close(result, reference_stack(batch.values, windows, size, subtract_mean), dtype)


@per_device
@given(data=st.data())
def test_a_camera_against_the_formula(device, data):
    batch = data.draw(flow_batches())
    size, windows = data.draw(crops(batch, rows_axis=1))
    camera = data.draw(camera_maps(batch))
    dtype, channels_last = data.draw(st.sampled_from(FLOATS)), data.draw(st.booleans())
    flow, lo, step = batch.to(device)
    options = {"lo": lo, "step": step, "camera": camera.to(device), "dtype": dtype, "channels_last": channels_last}
    result = ops.flow_stack(flow, torch.from_numpy(windows).to(device), size, **options)
    assert_close(result, reference_stack(batch.values, windows, size, camera=camera.numpy()), dtype)
    out = torch.full_like(result, torch.nan)
    del options["dtype"], options["channels_last"]
    ops.flow_stack(flow, torch.from_numpy(windows).to(device), size, **options, out=out)
    assert torch.equal(out, result)


def test_a_camera_that_only_pans_is_a_mean(device):
    generator = torch.Generator().manual_seed(1)
    flow = torch.randn(2, 3, 18, 29, 2, generator=generator).to(device)
    mean = torch.randn(2, 3, 2, generator=generator).to(device)
    camera = torch.cat([torch.zeros(2, 3, 2, 2, device=device), mean[..., None]], -1)
    windows = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=torch.int32, device=device)
    for stack in (ops.flow_stack, ops.trajectory_stack):
        assert torch.equal(stack(flow, windows, 17, camera=camera), stack(flow, windows, 17, mean=mean))


def test_what_the_camera_moves_comes_to_rest(device):
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    camera = torch.tensor([[0.02, -0.01, 3.0], [0.03, 0.005, -2.0]])
    field = torch.stack([x, y, torch.ones_like(x)], -1) @ camera.T
    flow, maps = field.expand(2, 4, 30, 40, 2).to(device), camera.expand(2, 4, 2, 3).to(device)
    windows = torch.tensor([[[3, 5, 0], [0, 19, 1]]] * 2, dtype=torch.int32, device=device)
    for stack in (ops.flow_stack, ops.trajectory_stack):
        assert stack(flow, windows, 21, camera=maps).abs().max() < 1e-5
        assert stack(flow, windows, 21, camera=ops.camera_motion(flow)).abs().max() < 1e-4
        assert stack(flow, windows, 21, subtract_mean=True).abs().max() > 0.5


def test_a_large_output_with_a_camera_is_the_same():
    # Past the cache the rows are stored another way.
    flow = torch.randn(1, 32, 520, 500, 2, generator=torch.Generator().manual_seed(0))
    camera = torch.randn(1, 32, 2, 3, generator=torch.Generator().manual_seed(1))
    windows = torch.tensor([[3, 7, 1]], dtype=torch.int32)
    for stack in (ops.flow_stack, ops.trajectory_stack):
        whole = stack(flow, windows, (510, 490), camera=camera)
        assert whole.numel() * 4 > 24 << 20
        for row in (0, 300, 509):
            start = torch.tensor([[3 + row, 7, 1]], dtype=torch.int32)
            assert torch.equal(stack(flow, start, (1, 490), camera=camera)[:, :, 0], whole[:, :, row])


@per_device
@given(data=st.data())
def test_single_windows_and_out_give_the_same(device, data):
    batch = data.draw(flow_batches())
    size, windows = data.draw(crops(batch, rows_axis=1))
    flow, lo, step = batch.to(device)
    first = torch.from_numpy(windows[:, 0].copy()).to(device)
    several = ops.flow_stack(flow, first[:, None], size, lo=lo, step=step)
    out = torch.full_like(several[:, 0], torch.nan)
    same = ops.flow_stack(flow, first, size, lo=lo, step=step, out=out)
    assert same is out
    assert torch.equal(out, several[:, 0])


def test_channels_last_is_the_memory_format(device):
    flow = torch.randn(2, 3, 8, 9, 2, device=device)
    windows = torch.zeros(2, 3, dtype=torch.int32, device=device)
    result = ops.flow_stack(flow, windows, 8, channels_last=True)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, ops.flow_stack(flow, windows, 8))


def test_given_mean_is_subtracted(device):
    flow = torch.randn(2, 3, 8, 9, 2, device=device)
    windows = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=torch.int32, device=device)
    computed = ops.flow_stack(flow, windows, 7, subtract_mean=True)
    given = ops.flow_stack(flow, windows, 7, mean=ops.mean_flow(flow))
    assert torch.equal(computed, given)


def test_a_still_pixel_stays_still_when_flipped(device):
    # The trap of 8-bit flips (255 - 127 = 128): in float, the zero level is kept.
    codes = torch.full((1, 1, 4, 4, 2), 100, dtype=torch.uint8, device=device)
    step = torch.full((1, 1, 2), 0.25, device=device)
    windows = torch.tensor([[0, 0, 1]], dtype=torch.int32, device=device)
    result = ops.flow_stack(codes, windows, 4, lo=-100 * step, step=step)
    assert torch.all(result == 0)


def test_expanded_fields(device):
    one = torch.randn(1, 1, 5, 6, 2, device=device)
    windows = torch.zeros(3, 3, dtype=torch.int32, device=device)
    result = ops.flow_stack(one.expand(3, 4, 5, 6, 2), windows, 5)
    assert torch.equal(result, ops.flow_stack(one, windows[:1], 5).repeat(3, 4, 1, 1))


def test_more_samples_than_one_launch_takes(device):
    flow = torch.randn(70, 1, 3, 4, 2, device=device)
    windows = torch.zeros(70, 3, dtype=torch.int32, device=device)
    expected = flow[:, :, :3, :3].permute(0, 1, 4, 2, 3).reshape(70, 2, 3, 3)
    assert torch.equal(ops.flow_stack(flow, windows, 3), expected)


def test_numpy_arrays_are_taken():
    flow = np.random.default_rng(0).normal(size=(1, 2, 5, 6, 2)).astype(np.float32)
    windows = np.zeros((1, 3), dtype=np.int32)
    result = ops.flow_stack(flow, windows, (5, 6))
    np.testing.assert_array_equal(result.numpy(), flow.transpose(0, 1, 4, 2, 3).reshape(1, 4, 5, 6))


def test_empty_batch(device):
    flow = torch.zeros(0, 2, 5, 6, 2, device=device)
    windows = torch.zeros(0, 3, dtype=torch.int32, device=device)
    assert ops.flow_stack(flow, windows, 4).shape == (0, 4, 4, 4)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    flow = torch.randn(3, 10, 64, 80, 2)
    windows = torch.tensor([[0, 0, 1], [3, 5, 0], [8, 16, 1]], dtype=torch.int32)
    before = torch.get_num_threads()
    expected = ops.flow_stack(flow, windows, (56, 64), subtract_mean=True)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(ops.flow_stack(flow, windows, (56, 64), subtract_mean=True), expected)
    finally:
        torch.set_num_threads(before)


def test_cpu_and_cuda_kernels_agree_to_the_bit(cuda_on_host):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (2, 3, 20, 24, 2), dtype=torch.uint8, generator=generator)
    lo = torch.randn(2, 3, 2, generator=generator)
    step = torch.rand(2, 3, 2, generator=generator)
    mean = torch.randn(2, 3, 2, generator=generator)
    windows = torch.tensor([[1, 2, 1], [0, 4, 0]], dtype=torch.int32)
    for dtype in FLOATS:
        expected = ops.flow_stack(codes, windows, 16, lo=lo, step=step, mean=mean, dtype=dtype)
        out = torch.empty_like(expected)
        cuda_on_host.flow_stack([codes], windows, lo, step, mean, None, out)
        assert torch.equal(out, expected)
        camera = torch.randn(2, 3, 2, 3, generator=generator)
        for layout in (False, True):
            expected = ops.flow_stack(
                codes, windows, 16, lo=lo, step=step, camera=camera, dtype=dtype, channels_last=layout
            )
            out = torch.empty_like(expected)
            cuda_on_host.flow_stack([codes], windows, lo, step, None, camera, out)
            assert torch.equal(out, expected)


def test_device_windows_are_clamped_into_the_field(cuda_on_host):
    # On a device the values cannot be looked at without waiting for it, so no value may lead outside.
    flow = torch.randn(1, 1, 6, 7, 2)
    extreme = torch.tensor([[2**31 - 1, -(2**31), 7]], dtype=torch.int32)
    expected = ops.flow_stack(flow, torch.tensor([[2, 0, 1]], dtype=torch.int32), 4)
    with pytest.raises(ValueError, match="windows"):
        ops.flow_stack(flow, extreme, 4)
    out = torch.empty(1, 2, 4, 4)
    cuda_on_host.flow_stack([flow], extreme, None, None, None, None, out)
    assert torch.equal(out, expected)
    if torch.cuda.is_available():
        assert torch.equal(ops.flow_stack(flow.cuda(), extreme.cuda(), 4).cpu(), expected)
