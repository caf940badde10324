# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of the crops: against float64 autograd of plain indexing, and by finite differences."""

from __future__ import annotations

import pytest
import torch
from compilers import BACKENDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import FLOATS, crops, flow_batches, frame_batches, random_values

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def plain_crops(sample, windows, size, signs):
    """Windows [K, 3] of a float64 sample [..., H, W, C]: [K, ..., C, h, w]."""
    height, width = size
    results = []
    for top, left, flip in windows.tolist():
        crop = sample[..., top : top + height, left : left + width, :]
        crop = crop.flip(-2) * signs if flip else crop
        results.append(crop.movedim(-1, -3))
    return torch.stack(results)


def plain_stack(samples, windows, size, subtract_mean):
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    stacks = []
    for sample, places in zip(samples, windows, strict=True):
        fields = sample - sample.mean((1, 2), keepdim=True) if subtract_mean else sample
        stacks.append(plain_crops(fields, places, size, signs).flatten(1, 2))
    return torch.stack(stacks)


def leaves(given):
    return [each.detach().requires_grad_() for each in (given if isinstance(given, list) else [given])]


def assert_same(got, expected, dtype):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == dtype
        scale = other.abs().max().clamp(min=1.0)
        assert ((one.double().cpu() - other).abs() / scale).max() <= TOLERANCE[dtype]


@per_device
@given(data=st.data())
def test_flow_stack_against_autograd(device, data):
    batch = data.draw(flow_batches(FLOATS))
    size, windows = data.draw(crops(batch, rows_axis=1))
    subtract_mean = data.draw(st.booleans())
    windows = torch.from_numpy(windows)
    plain = [sample.double().requires_grad_() for sample in batch.samples]
    expected = plain_stack(plain, windows, size, subtract_mean)
    weights = random_values(expected.shape, torch.float32, 3)
    flow = leaves(batch.to(device)[0])
    given = flow if isinstance(batch.given, list) else flow[0]
    result = ops.flow_stack(given, windows.to(device), size, subtract_mean=subtract_mean)
    result.backward(weights.to(device))
    expected.backward(weights.double())
    got = [leaf.grad for leaf in flow] if isinstance(batch.given, list) else list(flow[0].grad)
    assert_same(got, [leaf.grad for leaf in plain], batch.samples[0].dtype)


@per_device
@given(data=st.data())
def test_crop_frames_against_autograd(device, data):
    batch = data.draw(frame_batches().filter(lambda each: each.samples[0].dtype != torch.uint8))
    size, windows = data.draw(crops(batch, rows_axis=0))
    windows = torch.from_numpy(windows)
    deviation = [0.5, 2.0, 3.0]
    plain = [sample.double().requires_grad_() for sample in batch.samples]
    scaled = [sample / torch.tensor(deviation, dtype=torch.float64) for sample in plain]
    expected = torch.stack(
        [plain_crops(one, places, size, torch.ones(3)) for one, places in zip(scaled, windows, strict=True)]
    )
    weights = random_values(expected.shape, torch.float32, 3)
    frames = leaves(batch.to(device)[0])
    given = frames if isinstance(batch.given, list) else frames[0]
    result = ops.crop_frames(given, windows.to(device), size, mean=[1, 2, 3], std=deviation)
    result.backward(weights.to(device))
    expected.backward(weights.double())
    got = [leaf.grad for leaf in frames] if isinstance(batch.given, list) else list(frames[0].grad)
    assert_same(got, [leaf.grad for leaf in plain], batch.samples[0].dtype)


WINDOWS = torch.tensor([[[0, 1, 1], [1, 0, 0]], [[0, 0, 1], [1, 2, 1]]], dtype=torch.int32)


# The operators are linear and compute in float32: a wide step leaves no more than rounding.
@pytest.mark.filterwarnings("ignore:Input .* requires gradient and is not a double:UserWarning")
@pytest.mark.parametrize("subtract_mean", [False, True])
def test_flow_stack_by_finite_differences(device, subtract_mean):
    flow = torch.randn(2, 1, 4, 5, 2, device=device, requires_grad=True)
    windows = WINDOWS.to(device)
    assert torch.autograd.gradcheck(
        lambda flow: ops.flow_stack(flow, windows, 3, subtract_mean=subtract_mean), flow, eps=0.1, atol=1e-3, rtol=1e-3
    )


def test_a_camera_changes_no_gradient(device):
    flow = torch.randn(2, 2, 5, 6, 2, device=device, requires_grad=True)
    windows, camera = WINDOWS.to(device), torch.randn(2, 2, 2, 3, device=device)
    weights = torch.randn(2, 2, 4, 3, 4, device=device)
    plain, still = (ops.flow_stack(flow, windows, (3, 4), camera=each) for each in (None, camera))
    (expected,), (got,) = (torch.autograd.grad(stack, flow, weights) for stack in (plain, still))
    assert torch.equal(got, expected)
    with pytest.raises(RuntimeError, match="flow_stack: no gradient is computed for camera"):
        ops.flow_stack(flow, windows, (3, 4), camera=camera.requires_grad_())


@pytest.mark.filterwarnings("ignore:Input .* requires gradient and is not a double:UserWarning")
def test_given_means_by_finite_differences(device):
    flow = torch.randn(2, 2, 5, 6, 2, device=device)
    mean = torch.randn(2, 2, 2, device=device, requires_grad=True)
    windows = WINDOWS.to(device)
    for places in (windows, windows[:, 0].contiguous()):
        assert torch.autograd.gradcheck(
            lambda mean, places=places: ops.flow_stack(flow, places, 4, mean=mean), mean, eps=0.1, atol=1e-3, rtol=1e-3
        )


@pytest.mark.filterwarnings("ignore:Input .* requires gradient and is not a double:UserWarning")
def test_crop_frames_by_finite_differences(device):
    frames = torch.randn(2, 5, 6, 3, device=device, requires_grad=True)
    shift = torch.randn(2, 3, device=device, requires_grad=True)
    windows = WINDOWS.to(device)
    assert torch.autograd.gradcheck(
        lambda frames, shift: ops.crop_frames(frames, windows, 4, mean=[0, 1, 2], std=[1, 2, 3], shift=shift),
        (frames, shift),
        eps=0.1,
        atol=1e-3,
        rtol=1e-3,
    )


def test_an_expanded_gradient_is_taken(device):
    flow = torch.randn(2, 2, 5, 6, 2, device=device, requires_grad=True)
    ops.flow_stack(flow, WINDOWS[:, 1].contiguous().to(device), 4).sum().backward()
    expected = torch.zeros(2, 2, 5, 6, 2)
    expected[0, :, 1:, :4] = 1
    expected[1, :, 1:, 2:] = torch.tensor([-1.0, 1.0])
    assert torch.equal(flow.grad.cpu(), expected)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_gradients_are_the_same(backend):
    flow = torch.randn(2, 2, 5, 6, 2, requires_grad=True)
    frames = torch.randn(2, 5, 6, 3, requires_grad=True)

    def loss(flow, frames):
        stack = ops.flow_stack(flow, WINDOWS, 4, subtract_mean=True)
        colours = ops.crop_frames(frames, WINDOWS, 4, mean=[0, 1, 2], std=[1, 2, 3])
        return stack.sin().sum() + colours.cos().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    got = torch.autograd.grad(compiled(flow, frames), (flow, frames))
    for one, other in zip(got, torch.autograd.grad(loss(flow, frames), (flow, frames)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_second_derivative_is_refused():
    flow = torch.randn(2, 2, 5, 6, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(ops.flow_stack(flow, WINDOWS, 4).square().sum(), flow, create_graph=True)
    with pytest.raises(RuntimeError, match="flow_stack: its gradient cannot be differentiated"):
        gradient.sum().backward()


def test_a_gradient_is_never_lost_in_silence():
    flow = torch.randn(2, 2, 5, 6, 2, requires_grad=True)
    ranges = torch.rand(2, 2, 2, requires_grad=True)
    codes = torch.zeros(2, 2, 5, 6, 2, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="flow_stack: out= cannot be given"):
        ops.flow_stack(flow, WINDOWS, 4, out=torch.empty(2, 2, 4, 4, 4))
    with pytest.raises(RuntimeError, match="flow_stack: no gradient is computed for lo"):
        ops.flow_stack(codes, WINDOWS, 4, lo=ranges, step=ranges)
    for refused in (ops.mean_flow, ops.camera_motion, ops.quantize_flow):
        with pytest.raises(RuntimeError, match="no gradient is computed for flow"):
            refused(flow)
    with torch.no_grad():
        assert not ops.flow_stack(flow, WINDOWS, 4).requires_grad
