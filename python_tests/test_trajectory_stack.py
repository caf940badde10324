# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compilers import BACKENDS_IF_SLOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import trajectory_stack as reference_stack
from strategies import FLOATS, camera_maps, crops, flow_batches

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def smooth_fields(shape, seed=0, amplitude=4.0):
    """[N, L, H, W, 2] of waves: float32 follows them without losing its way."""
    count, length, height, width, _ = shape
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count * length, 2, height // 8 + 2, width // 8 + 2, generator=generator) * amplitude
    fine = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    return fine.view(count, length, 2, height, width).permute(0, 1, 3, 4, 2).contiguous()


def random_starts(shape, size, seed=0):
    height, width = shape[2:4]
    return ops.random_windows([[height, width]] * shape[0], size, seed=seed)


def planar(flow):
    return flow.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)


def differentiable_stack(flow, windows, size, subtract_mean=False, mean=None, camera=None, bidirectional=False):
    """The operator from torch's own functions, for autograd to differentiate."""
    stacks = []
    for n, (top, left, flip) in enumerate(windows.tolist()):
        _, height, width, _ = flow[n].shape
        limits = torch.tensor([width - 1.0, height - 1.0], dtype=flow[n].dtype)
        channels = []
        for k, field in enumerate(flow[n]):
            if k == 0 or (bidirectional and k == len(flow[n]) // 2):
                rows, columns = torch.arange(top, top + size[0]), torch.arange(left, left + size[1])
                position = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).to(field.dtype)
            first = position.detach().floor().long()
            x0, y0 = first.unbind(-1)
            x1, y1 = (first + 1).minimum(limits.long()).unbind(-1)
            fx, fy = (position - first).split(1, -1)
            top_row = field[y0, x0] * (1 - fx) + field[y0, x1] * fx
            bottom_row = field[y1, x0] * (1 - fx) + field[y1, x1] * fx
            displacement = top_row * (1 - fy) + bottom_row * fy
            value = displacement
            if mean is not None:
                value = value - mean[n, k]
            elif subtract_mean:
                value = value - field.mean((0, 1))
            elif camera is not None:
                value = value - position @ camera[n, k, :, :2].T - camera[n, k, :, 2]
            channels.append(value.flip(1) * value.new_tensor([-1, 1]) if flip else value)
            position = (position + displacement).clamp(min=0).minimum(limits)
        stacks.append(torch.cat(channels, -1).permute(2, 0, 1))
    return torch.stack(stacks)


@per_device
@given(data=st.data())
def test_against_the_formula(device, data):
    batch = data.draw(flow_batches())
    size, windows = data.draw(crops(batch, rows_axis=1))
    dtype = data.draw(st.sampled_from(FLOATS))
    channels_last, subtract_mean = data.draw(st.booleans()), data.draw(st.booleans())
    bidirectional = batch.samples[0].shape[0] % 2 == 0 and data.draw(st.booleans())
    flow, lo, step = batch.to(device)
    result = ops.trajectory_stack(
        flow,
        torch.from_numpy(windows).to(device),
        size,
        lo=lo,
        step=step,
        subtract_mean=subtract_mean,
        bidirectional=bidirectional,
        dtype=dtype,
        channels_last=channels_last,
    )
    assert result.dtype == dtype
    assert result.device.type == device.type
    expected, error = reference_stack(batch.values, windows, size, subtract_mean, bidirectional)
    allowed = TOLERANCE[dtype] * (np.abs(expected) + 5.0) + error
    assert np.all(np.abs(result.double().cpu().numpy() - expected) <= allowed)


@per_device
@given(data=st.data())
def test_a_camera_against_the_formula(device, data):
    batch = data.draw(flow_batches())
    size, windows = data.draw(crops(batch, rows_axis=1))
    camera = data.draw(camera_maps(batch))
    dtype, channels_last = data.draw(st.sampled_from(FLOATS)), data.draw(st.booleans())
    bidirectional = batch.samples[0].shape[0] % 2 == 0 and data.draw(st.booleans())
    flow, lo, step = batch.to(device)
    result = ops.trajectory_stack(
        flow,
        torch.from_numpy(windows).to(device),
        size,
        lo=lo,
        step=step,
        camera=camera.to(device),
        bidirectional=bidirectional,
        dtype=dtype,
        channels_last=channels_last,
    )
    expected, error = reference_stack(batch.values, windows, size, False, bidirectional, camera.numpy())
    allowed = TOLERANCE[dtype] * (np.abs(expected) + 5.0) + error
    assert np.all(np.abs(result.double().cpu().numpy() - expected) <= allowed)


@per_device
@given(data=st.data())
def test_single_windows_and_out_give_the_same(device, data):
    batch = data.draw(flow_batches())
    size, windows = data.draw(crops(batch, rows_axis=1))
    flow, lo, step = batch.to(device)
    first = torch.from_numpy(windows[:, 0].copy()).to(device)
    several = ops.trajectory_stack(flow, first[:, None], size, lo=lo, step=step)
    out = torch.full_like(several[:, 0], torch.nan)
    same = ops.trajectory_stack(flow, first, size, lo=lo, step=step, out=out)
    assert same is out
    assert torch.equal(out, several[:, 0])


def test_against_a_chain_of_grid_sample(device):
    shape, size = (2, 4, 40, 50, 2), (24, 28)
    flow, windows = smooth_fields(shape), random_starts(shape, size)
    windows[:, 2] = 0
    result = ops.trajectory_stack(flow.to(device), windows.to(device), size).cpu()
    limits = torch.tensor([shape[3] - 1.0, shape[2] - 1.0])
    for n, (top, left, _) in enumerate(windows.tolist()):
        rows, columns = torch.arange(top, top + size[0]), torch.arange(left, left + size[1])
        position = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).float()
        for k in range(shape[1]):
            image, grid = flow[n, k].permute(2, 0, 1)[None], (position / limits * 2 - 1)[None]
            sampled = F.grid_sample(image, grid, padding_mode="border", align_corners=True)[0]
            torch.testing.assert_close(result[n, 2 * k : 2 * k + 2], sampled, rtol=1e-4, atol=2e-4)
            position = (position + sampled.permute(1, 2, 0)).clamp(min=0).minimum(limits)


def test_the_first_field_is_that_of_the_flow_stack_to_the_bit(device):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (2, 3, 20, 24, 2), dtype=torch.uint8, generator=generator).to(device)
    lo, step, mean = (torch.randn(2, 3, 2, generator=generator).to(device) for _ in range(3))
    windows = torch.tensor([[1, 2, 1], [0, 4, 0]], dtype=torch.int32, device=device)
    coding = {"lo": lo, "step": step, "mean": mean}
    paths, stack = (operator(codes, windows, 16, **coding) for operator in (ops.trajectory_stack, ops.flow_stack))
    assert torch.equal(paths[:, :2], stack[:, :2])
    assert not torch.equal(paths, stack)


def test_still_fields_and_constant_fields_are_the_flow_stack(device):
    still = torch.zeros(2, 4, 9, 11, 2, device=device)
    moving = still + torch.tensor([0.75, -1.625], device=device)
    windows = torch.tensor([[1, 2, 1], [0, 3, 0]], dtype=torch.int32, device=device)
    for flow in (still, moving):
        for layout in (flow, planar(flow), flow.half()):
            assert torch.equal(ops.trajectory_stack(layout, windows, 8), ops.flow_stack(layout, windows, 8))


def test_codes_are_interpolated_and_then_decoded(device):
    flow, windows = smooth_fields((2, 4, 30, 40, 2)), random_starts((2, 4, 30, 40, 2), 20)
    codes, lo, step, _ = ops.quantize_flow(flow)
    restored = ops.dequantize_flow(codes, lo, step)
    coded = ops.trajectory_stack(codes.to(device), windows.to(device), 20, lo=lo.to(device), step=step.to(device))
    plain = ops.trajectory_stack(restored.to(device), windows.to(device), 20)
    torch.testing.assert_close(coded, plain, rtol=1e-4, atol=2e-4)


def test_two_directions_are_two_trajectories_from_the_same_pixels(device):
    flow, windows = smooth_fields((2, 6, 20, 30, 2)).to(device), random_starts((2, 6, 20, 30, 2), 16).to(device)
    for channels_last in (False, True):
        both = ops.trajectory_stack(flow, windows, 16, bidirectional=True, channels_last=channels_last)
        halves = [ops.trajectory_stack(half, windows, 16) for half in (flow[:, :3], flow[:, 3:])]
        assert torch.equal(both, torch.cat(halves, 1))


def test_a_flip_mirrors_the_result_and_negates_x(device):
    flow = smooth_fields((1, 3, 20, 30, 2)).to(device)
    windows = torch.tensor([[2, 5, 0], [2, 5, 1]], dtype=torch.int32, device=device)
    straight, flipped = ops.trajectory_stack(flow.expand(2, -1, -1, -1, -1), windows, 16)
    assert torch.equal(flipped[0::2], -straight[0::2].flip(-1))
    assert torch.equal(flipped[1::2], straight[1::2].flip(-1))


def test_trajectories_follow_the_displacement_with_its_mean(device):
    flow, windows = smooth_fields((2, 3, 20, 30, 2)).to(device), random_starts((2, 3, 20, 30, 2), 16).to(device)
    windows[:, 2] = 0
    mean = ops.mean_flow(flow)
    result = ops.trajectory_stack(flow, windows, 16, subtract_mean=True)
    assert torch.equal(result, ops.trajectory_stack(flow, windows, 16, mean=mean))
    expected = ops.trajectory_stack(flow, windows, 16) - mean.view(2, 6, 1, 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("extents", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (1, 3)])
@pytest.mark.parametrize("layout", ["interleaved", "planar"])
@pytest.mark.parametrize("coded", [False, True])
def test_the_smallest_fields(device, extents, layout, coded):
    shape = (1, 4, *extents, 2)
    flow = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2
    coding, lo, step = {}, torch.full((1, 4, 2), -2.0), torch.full((1, 4, 2), 4 / 255)
    if coded:
        flow = ((flow.clamp(-2, 2) + 2) * 255 / 4).round().to(torch.uint8)
        coding = {"lo": lo.to(device), "step": step.to(device)}
    given = (planar(flow) if layout == "planar" else flow).to(device)
    windows = torch.zeros(1, 3, dtype=torch.int32)
    values = flow.double()
    if coded:
        values = lo[:, :, None, None].double() + step[:, :, None, None].double() * values
    values = values.numpy()
    expected, error = reference_stack(values, windows[:, None].numpy(), extents)
    result = ops.trajectory_stack(given, windows.to(device), extents, **coding).cpu().double().numpy()
    assert np.all(np.abs(result - expected[:, 0]) <= error[:, 0] + 1e-5)


def test_reads_stay_inside_the_last_field(device):
    # A canary of NaN right behind the storage that the operator is given; every trajectory runs to the last corner.
    for dtype in (torch.float32, torch.float16):
        buffer = torch.full((2 * 3 * 5 * 7 + 64,), torch.nan, dtype=dtype)
        for layout in ((3, 5, 7, 2), (3, 2, 5, 7)):
            field = buffer[: 2 * 3 * 5 * 7].view(layout)
            field.fill_(0.75)
            flow = field if layout[-1] == 2 else field.permute(0, 2, 3, 1)
            windows = torch.zeros(1, 3, dtype=torch.int32, device=device)
            result = ops.trajectory_stack(flow[None].to(device), windows, (5, 7))
            assert torch.all(result == 0.75)


@pytest.mark.parametrize("layout", ["interleaved", "planar"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38, -3e38])
def test_a_bad_displacement_stays_local(device, bad, layout):
    flow = torch.ones(1, 3, 6, 12, 2)
    flow[0, 0, 2, 5] = bad
    given = (planar(flow) if layout == "planar" else flow).to(device)
    result = ops.trajectory_stack(given, torch.zeros(1, 3, dtype=torch.int32, device=device), (6, 12)).cpu()
    assert torch.equal(result[0, :2, 2, 5], flow[0, 0, 2, 5]) or np.isnan(bad)
    touched = result != 1
    touched[0, :2, 2, 5] = False
    assert not touched.any()  # it led to a border, where the next field is as good as anywhere


@pytest.mark.parametrize("layout", ["interleaved", "planar"])
def test_a_neighbour_of_weight_zero_does_not_leak(device, layout):
    flow = torch.ones(1, 2, 5, 20, 2)
    flow[0, 0] = torch.tensor([2.0, 1.0])
    flow[0, 1, 3, 11] = torch.nan
    given = (planar(flow) if layout == "planar" else flow).to(device)
    windows = torch.zeros(1, 3, dtype=torch.int32, device=device)
    result = ops.trajectory_stack(given, windows, (5, 20))[0, 2:].cpu()
    expected = torch.ones(2, 5, 20)
    expected[:, 2, 9] = torch.nan  # only the pixel whose trajectory meets it
    assert torch.equal(result.isnan(), expected.isnan())


def test_bad_codings_stay_in_bounds(device):
    codes = torch.randint(0, 256, (1, 4, 8, 9, 2), dtype=torch.uint8)
    for value in (float("nan"), float("inf"), -float("inf"), 1e38):
        lo = torch.full((1, 4, 2), value, device=device)
        windows = torch.zeros(1, 3, dtype=torch.int32, device=device)
        result = ops.trajectory_stack(codes.to(device), windows, (8, 9), lo=lo, step=torch.ones_like(lo))
        assert result.shape == (1, 8, 8, 9)


def test_expanded_and_overlapping_fields(device):
    one = smooth_fields((1, 1, 12, 16, 2)).to(device)
    windows = torch.zeros(3, 3, dtype=torch.int32, device=device)
    expected = ops.trajectory_stack(one.repeat(3, 4, 1, 1, 1), windows, 9)
    assert torch.equal(ops.trajectory_stack(one.expand(3, 4, 12, 16, 2), windows, 9), expected)
    row = torch.randn(40, device=device)
    overlapping = row.as_strided((1, 3, 5, 6, 2), (0, 2, 3, 1, 4))
    same = ops.trajectory_stack(overlapping, windows[:1], (5, 6))
    assert torch.equal(same, ops.trajectory_stack(overlapping.contiguous(), windows[:1], (5, 6)))


def test_wide_windows_take_several_tiles(device):
    shape = (1, 3, 3, 600, 2)
    flow = smooth_fields(shape)
    for flip in (0, 1):
        windows = torch.tensor([[0, 7, flip]], dtype=torch.int32)
        expected, error = reference_stack(flow.double().numpy(), windows[:, None].numpy(), (3, 590))
        for channels_last in (False, True):
            result = ops.trajectory_stack(flow.to(device), windows.to(device), (3, 590), channels_last=channels_last)
            assert np.all(np.abs(result.cpu().double().numpy() - expected[:, 0]) <= error[:, 0])


def test_long_stacks(device):
    flow = smooth_fields((1, 40, 6, 8, 2), amplitude=0.5).to(device)
    windows = torch.zeros(1, 3, dtype=torch.int32, device=device)
    expected, error = reference_stack(flow.cpu().double().numpy(), windows[:, None].cpu().numpy(), (6, 8))
    for channels_last in (False, True):
        result = ops.trajectory_stack(flow, windows, (6, 8), channels_last=channels_last).cpu().double().numpy()
        assert np.all(np.abs(result - expected[:, 0]) <= np.minimum(error[:, 0], 1e-2))


def test_empty_batch(device):
    flow = torch.zeros(0, 2, 5, 6, 2, device=device)
    windows = torch.zeros(0, 3, dtype=torch.int32, device=device)
    assert ops.trajectory_stack(flow, windows, 4).shape == (0, 4, 4, 4)


def test_more_samples_than_one_launch_takes(device):
    flow = torch.randn(70, 2, 3, 4, 2, device=device)
    windows = torch.zeros(70, 3, dtype=torch.int32, device=device)
    result = ops.trajectory_stack(flow, windows, 3)
    assert torch.equal(result[64:], ops.trajectory_stack(flow[64:], windows[64:], 3))


def test_the_number_of_threads_changes_nothing():
    flow, windows = smooth_fields((3, 4, 64, 80, 2)), random_starts((3, 4, 64, 80, 2), 56)

    def run():
        given = flow.clone().requires_grad_()
        result = ops.trajectory_stack(given, windows, 56, subtract_mean=True)
        result.square().sum().backward()
        return result.detach(), given.grad

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run()
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(got, want) for got, want in zip(run(), expected, strict=True))
    finally:
        torch.set_num_threads(before)


def test_cpu_and_cuda_kernels_agree_to_the_bit(cuda_on_host):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (2, 4, 20, 24, 2), dtype=torch.uint8, generator=generator)
    lo, mean = (torch.randn(2, 4, 2, generator=generator) for _ in range(2))
    step = torch.rand(2, 4, 2, generator=generator) / 50
    windows = torch.tensor([[1, 2, 1], [0, 4, 0]], dtype=torch.int32)
    flow = ops.dequantize_flow(codes, lo, step)
    flow[0, 1, 3:6, 4:8] = torch.tensor([1e38, -torch.inf])
    for fields in (codes, planar(codes), flow, planar(flow), flow.half(), planar(flow.bfloat16())):
        coding = (lo, step) if fields.dtype == torch.uint8 else (None, None)
        for dtype in FLOATS:
            expected = ops.trajectory_stack(fields, windows, 16, lo=coding[0], step=coding[1], mean=mean, dtype=dtype)
            out = torch.empty_like(expected)
            cuda_on_host.trajectory_stack([fields], windows, *coding, mean, None, False, out)
            torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
            camera = torch.randn(2, 4, 2, 3, generator=generator)
            options = {"lo": coding[0], "step": coding[1], "camera": camera, "dtype": dtype}
            expected = ops.trajectory_stack(fields, windows, 16, **options)
            cuda_on_host.trajectory_stack([fields], windows, *coding, None, camera, False, out)
            torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


def test_device_windows_are_clamped_into_the_field(cuda_on_host):
    # On a device the values cannot be looked at without waiting for it, so no value may lead outside.
    flow = torch.randn(1, 2, 6, 7, 2)
    extreme = torch.tensor([[2**31 - 1, -(2**31), 7]], dtype=torch.int32)
    expected = ops.trajectory_stack(flow, torch.tensor([[2, 0, 1]], dtype=torch.int32), 4)
    with pytest.raises(ValueError, match="windows"):
        ops.trajectory_stack(flow, extreme, 4)
    out = torch.empty(1, 4, 4, 4)
    cuda_on_host.trajectory_stack([flow], extreme, None, None, None, None, False, out)
    assert torch.equal(out, expected)
    if torch.cuda.is_available():
        assert torch.equal(ops.trajectory_stack(flow.cuda(), extreme.cuda(), 4).cpu(), expected)


# ---- gradients ------------------------------------------------------------------------------------------------------

GRADIENT_WINDOWS = torch.tensor([[1, 2, 1], [0, 3, 0]], dtype=torch.int32)


def gradients_of(stack, inputs, weights):
    return torch.autograd.grad((stack.double() * weights).sum(), inputs)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("mean_from", ["nothing", "the fields", "the caller", "a camera"])
def test_gradients_against_autograd(device, bidirectional, mean_from):
    # Rough fields: trajectories leave on all sides, so that clamping counts too.
    generator = torch.Generator().manual_seed(3)
    flow = torch.randn(2, 4, 10, 12, 2, generator=generator)
    mean = torch.randn(2, 4, 2, generator=generator)
    weights = torch.randn(2, 8, 8, 9, generator=generator, dtype=torch.float64)
    options = {"subtract_mean": mean_from == "the fields", "bidirectional": bidirectional}
    exact_inputs = [flow.double().requires_grad_(), mean.double().requires_grad_()]
    inputs = [flow.to(device).requires_grad_(), mean.to(device).requires_grad_()]
    if mean_from != "the caller":
        exact_inputs, inputs = exact_inputs[:1], inputs[:1]
    camera = torch.randn(2, 4, 2, 3, generator=generator) if mean_from == "a camera" else None
    exact_camera, given_camera = (None, None) if camera is None else (camera.double(), camera.to(device))
    exact_mean, given_mean = ((each[1] if mean_from == "the caller" else None) for each in (exact_inputs, inputs))
    exact = differentiable_stack(
        exact_inputs[0], GRADIENT_WINDOWS, (8, 9), mean=exact_mean, camera=exact_camera, **options
    )
    options |= {"mean": given_mean, "camera": given_camera}
    stack = ops.trajectory_stack(inputs[0], GRADIENT_WINDOWS.to(device), (8, 9), **options)
    torch.testing.assert_close(stack.double().cpu(), exact, rtol=1e-4, atol=1e-4)
    expected = gradients_of(exact, exact_inputs, weights)
    got = gradients_of(stack, inputs, weights.to(device))
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double().cpu(), other, rtol=1e-3, atol=1e-3)


def test_gradients_of_lists_several_windows_and_any_layout(device):
    fields = [smooth_fields((1, 2, 10, 12, 2), seed)[0] for seed in (0, 1)]
    fields[1] = fields[1][:, :, :11]
    windows = torch.stack([GRADIENT_WINDOWS, GRADIENT_WINDOWS.flip(0)], 1).clamp(max=2)
    given = [each.to(device).requires_grad_() for each in fields]
    stack = ops.trajectory_stack(given, windows.to(device), (8, 9), channels_last=True)
    got = torch.autograd.grad(stack.square().sum(), given)
    exact = [each.double().requires_grad_() for each in fields]
    total = sum(differentiable_stack(exact, windows[:, k], (8, 9)).square().sum() for k in range(2))
    for one, other in zip(got, torch.autograd.grad(total, exact), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double().cpu(), other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_have_the_dtype_of_the_fields(device, dtype):
    # No trajectory comes near a pixel's centre, where float32 and float64 might take slopes of different sides.
    flow = planar(0.3 + 0.01 * smooth_fields((2, 3, 10, 12, 2))).to(dtype)
    given = flow.to(device).requires_grad_()
    stack = ops.trajectory_stack(given, GRADIENT_WINDOWS.to(device), (8, 9), dtype=dtype)
    (got,) = torch.autograd.grad(stack, given, torch.ones_like(stack))
    exact = flow.double().requires_grad_()
    (expected,) = torch.autograd.grad(differentiable_stack(exact, GRADIENT_WINDOWS, (8, 9)).sum(), exact)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double().cpu(), expected, rtol=2e-2, atol=2e-2)


def test_gradcheck():
    # float32 differences need large steps, and these a field without kinks within them: displacements near half a
    # pixel, so that no trajectory meets a pixel's centre or leaves the field.
    flow = 0.5 + 0.02 * torch.randn(1, 2, 5, 6, 2, generator=torch.Generator().manual_seed(0))
    mean = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(1))
    windows = torch.tensor([[0, 1, 1]], dtype=torch.int32)
    tolerance = {"eps": 2e-2, "atol": 1e-2, "rtol": 1e-2, "nondet_tol": 0.0}
    with pytest.warns(UserWarning, match="not a double precision"):
        assert torch.autograd.gradcheck(
            lambda f, m: ops.trajectory_stack(f, windows, (3, 4), mean=m),
            (flow.requires_grad_(), mean.requires_grad_()),
            **tolerance,
        )
    camera = torch.randn(1, 2, 2, 3, generator=torch.Generator().manual_seed(2))
    with pytest.warns(UserWarning, match="not a double precision"):
        assert torch.autograd.gradcheck(
            lambda f: ops.trajectory_stack(f, windows, (3, 4), camera=camera), flow.requires_grad_(), **tolerance
        )


def test_the_mean_of_codes_has_a_gradient(device):
    codes = torch.randint(0, 256, (2, 3, 10, 12, 2), dtype=torch.uint8, device=device)
    lo, step = (torch.rand(2, 3, 2, device=device) for _ in range(2))
    mean = torch.zeros(2, 3, 2, device=device, requires_grad=True)
    stack = ops.trajectory_stack(codes, GRADIENT_WINDOWS.to(device), (8, 9), lo=lo, step=step, mean=mean)
    (got,) = torch.autograd.grad(stack.sum(), mean)  # an expanded gradient
    expected = torch.full_like(got, -72.0)
    expected[0, :, 0] = 72.0
    assert torch.equal(got, expected)


def test_a_bad_gradient_spoils_its_own_component_alone(device):
    given = smooth_fields((2, 3, 10, 12, 2)).to(device).requires_grad_()
    stack = ops.trajectory_stack(given, GRADIENT_WINDOWS.to(device), (8, 9))
    weights = torch.ones_like(stack)
    weights[1, 1, 3, 3] = torch.inf  # the first field's y
    (got,) = torch.autograd.grad(stack, given, weights)
    spoiled = got.isnan().flatten(2, 3).all(2)
    assert spoiled.nonzero().tolist() == [[1, 0, 1]]
    assert got.isnan().sum() == 120


def test_gradients_of_any_magnitude_keep_their_digits(device):
    given = smooth_fields((2, 3, 10, 12, 2)).to(device).requires_grad_()
    stack = ops.trajectory_stack(given, GRADIENT_WINDOWS.to(device), (8, 9))
    (expected,) = torch.autograd.grad(stack, given, torch.ones_like(stack), retain_graph=True)
    for scale in (2.0**-100, 2.0**90, 0.0):
        (got,) = torch.autograd.grad(stack, given, torch.full_like(stack, scale), retain_graph=True)
        assert torch.equal(got, expected * scale)


def test_gradients_are_the_same_on_the_cpu_and_through_the_cuda_kernels(cuda_on_host):
    flow = smooth_fields((2, 4, 16, 20, 2))
    windows = random_starts((2, 4, 16, 20, 2), 12)
    gradient = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    operator = torch.ops.twostream.trajectory_stack_backward
    for fields in (flow, planar(flow), flow.half()):
        (expected,), expected_mean = operator(gradient, [fields], windows, None, True, True, True)
        got, mean = torch.empty_like(expected), torch.empty_like(expected_mean)
        work = [torch.empty(gradient.numel()) for _ in range(2)]
        largest, sums = torch.empty(2, 4, 2, dtype=torch.int32), torch.empty(2, 4 * 16 * 20 * 2, dtype=torch.int64)
        cuda_on_host.trajectory_stack_backward(
            gradient, [fields], windows, None, True, True, mean, [got], *work, largest, sums
        )
        torch.testing.assert_close(mean, expected_mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
        for camera in (None, torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(1))):
            operator_alone = operator(gradient, [fields], windows, camera, False, True, True)[0][0]
            cuda_on_host.trajectory_stack_backward(
                gradient, [fields], windows, camera, False, True, mean, [got], *work, largest, sums
            )
            assert torch.equal(got, operator_alone)


def test_what_has_no_gradient_says_so():
    flow = torch.randn(2, 3, 10, 12, 2, requires_grad=True)
    codes, ranges = torch.zeros(2, 3, 10, 12, 2, dtype=torch.uint8), torch.ones(2, 3, 2)
    with pytest.raises(RuntimeError, match="trajectory_stack: out= cannot be given"):
        ops.trajectory_stack(flow, GRADIENT_WINDOWS, 8, out=torch.empty(2, 6, 8, 8))
    for name in ("lo", "step", "camera"):
        tracked = (torch.ones(2, 3, 2, 3) if name == "camera" else ranges.clone()).requires_grad_()
        coding = {"lo": ranges, "step": ranges, name: tracked}
        with pytest.raises(RuntimeError, match=f"trajectory_stack: no gradient is computed for {name}"):
            ops.trajectory_stack(codes, GRADIENT_WINDOWS, 8, **coding)
    with torch.no_grad():
        assert not ops.trajectory_stack(flow, GRADIENT_WINDOWS, 8).requires_grad
    stack = ops.trajectory_stack(flow, GRADIENT_WINDOWS, 8)
    (first,) = torch.autograd.grad(stack.square().sum(), flow, create_graph=True)
    with pytest.raises(RuntimeError, match="trajectory_stack: its gradient cannot be differentiated"):
        first.sum().backward()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS_IF_SLOW)
def test_compile_traces_through_the_gradient(backend):
    flow = smooth_fields((2, 3, 10, 12, 2))
    mean = torch.zeros(2, 3, 2)

    def loss(fields, means):
        return ops.trajectory_stack(fields, GRADIENT_WINDOWS, (8, 9), mean=means).square().sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        inputs = [flow.clone().requires_grad_(), mean.clone().requires_grad_()]
        results.append([function(*inputs), *torch.autograd.grad(function(*inputs), inputs)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
