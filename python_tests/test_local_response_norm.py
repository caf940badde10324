# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import numpy as np
import pytest
import torch
from compilers import BACKENDS_IF_SLOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import local_response_norm as reference_norm
from strategies import FLOATS, keep_strides, layouts
from torch.nn import functional

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
RELATIVE = {torch.float32: 4e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
CNN_M = (5, 5e-4, 0.75, 2.0)


def channels_last(x):
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def random(*shape, seed=0, dtype=torch.float32):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 20).to(dtype)


@st.composite
def inputs(draw):
    """A tensor [N, C, ...]: few or many channels, odd sizes, contiguous, channels-last or any other strides."""
    dtype = draw(st.sampled_from(FLOATS))
    spatial = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    shape = (draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 4, 5, 8, 11, 16, 24])), *spatial)
    x = random(*shape, seed=draw(st.integers(0, 2**31)), dtype=dtype)
    return draw(st.just(x) | st.just(channels_last(x)) | layouts(x))


@st.composite
def constants(draw):
    return (
        draw(st.just(5) | st.integers(1, 9) | st.sampled_from([30, 1000, 2**40])),
        draw(st.sampled_from([5e-4, 0.3])),
        draw(st.sampled_from([0.75, 0.5, 1.0, 0.3, -0.5])),
        draw(st.sampled_from([2.0, 1.0])),
    )


def torch_gradient(x, gradient, chosen):
    """The result and the gradient of torch's own function, in float64."""
    exact = x.detach().cpu().double().contiguous().requires_grad_()
    size, alpha, beta, k = chosen
    # torch pads by half the size: a window that reaches past all channels is as good as one that just covers them.
    covering = min(size, 2 * x.shape[1] + 1)
    result = functional.local_response_norm(exact, covering, alpha * covering / size, beta, k)
    return result.detach(), torch.autograd.grad(result, exact, gradient.cpu().double())[0]


def assert_near(got, expected, dtype):
    """Against the largest value: a difference of two nearly equal terms keeps their errors."""
    scale = expected.abs().max().item() + 1e-30
    assert (got.cpu().double() - expected).abs().max().item() <= RELATIVE[dtype] * scale


@per_device
@given(data=st.data())
def test_against_the_formula(device, data):
    x, chosen = data.draw(inputs()), data.draw(constants())
    result = ops.local_response_norm(keep_strides(x, device), *chosen)
    assert result.dtype == x.dtype
    assert result.device.type == device.type
    expected = reference_norm(x.double().numpy(), *chosen)
    error = np.abs(result.double().cpu().numpy() - expected)
    assert (error <= RELATIVE[x.dtype] * np.abs(expected) + 1e-6).all()


@per_device
@given(data=st.data())
def test_result_and_gradient_are_those_of_torch(device, data):
    x, chosen = data.draw(inputs()), data.draw(constants())
    gradient = data.draw(layouts(random(*x.shape, seed=1, dtype=x.dtype)))
    on_device = keep_strides(x, device).detach().requires_grad_()
    result = ops.local_response_norm(on_device, *chosen)
    (got,) = torch.autograd.grad(result, on_device, keep_strides(gradient, device))
    expected, expected_gradient = torch_gradient(x, gradient, chosen)
    assert_near(result, expected, x.dtype)
    assert_near(got, expected_gradient, x.dtype)
    assert got.dtype == x.dtype


@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize("channels", [1, 2, 5, 7, 16])
def test_every_size_of_window(device, size, channels):
    # alpha is so large that the window decides
    for x in (random(2, channels, 3, 5), channels_last(random(2, channels, 3, 5))):
        chosen = (size, 10.0, 0.75, 1.0)
        on_device = keep_strides(x, device).detach().requires_grad_()
        result = ops.local_response_norm(on_device, *chosen)
        gradient = random(*x.shape, seed=1)
        (got,) = torch.autograd.grad(result, on_device, gradient.to(device))
        expected, expected_gradient = torch_gradient(x, gradient, chosen)
        assert_near(result, expected, x.dtype)
        assert_near(got, expected_gradient, x.dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 6, 2500),  # several tiles
        (2, 1100, 2),  # more channels than a row holds
        (1, 96, 16),  # whole vectors
        (1, 70, 3, 3),  # channels that do not fill the last run, and an odd plane
        (3, 9, 1, 1),
    ],
)
def test_shapes_of_every_path(device, shape, dtype):
    for x in (random(*shape, dtype=dtype), channels_last(random(*shape, dtype=dtype))):
        for size in (5, 4) if shape[1] > 1000 else (5, 4, 2000):
            chosen = (size, 0.1, 0.75, 2.0)
            on_device = keep_strides(x, device).detach().requires_grad_()
            result = ops.local_response_norm(on_device, *chosen)
            gradient = random(*shape, seed=1, dtype=dtype)
            (got,) = torch.autograd.grad(result, on_device, gradient.to(device))
            expected, expected_gradient = torch_gradient(x, gradient, chosen)
            assert_near(result, expected, dtype)
            assert_near(got, expected_gradient, dtype)


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last])
def test_bases_too_small_for_approximate_roots(device, layout):
    x = layout(random(2, 12, 3, 5) * 1e-19)
    chosen = (*CNN_M[:3], 0.0)
    result = ops.local_response_norm(x.to(device), *chosen)
    expected = functional.local_response_norm(x.double(), *chosen)
    torch.testing.assert_close(result.double().cpu(), expected, rtol=1e-3, atol=0)  # such floats have few digits


@pytest.mark.parametrize(("channels", "pixels"), [(1100, 3), (8200, 1)])
def test_windows_of_thousands_of_channels(channels, pixels):
    """More than a row or a buffer of the CPU holds; each window holds all channels."""
    chosen = (2 * channels, 1000.0, 0.75, 1.0)
    for dtype in (torch.float32, torch.bfloat16):
        x, gradient = (random(1, channels, pixels, seed=seed, dtype=dtype) for seed in (0, 1))
        values, gradients = x.double(), gradient.double()
        base = 1 + 500 / channels * values.square().sum(1, keepdim=True)
        expected = values / base**0.75
        product = (gradients * values).sum(1, keepdim=True)
        expected_gradient = gradients / base**0.75 - 750 / channels * values * product / base**1.75
        for layout in (torch.Tensor.contiguous, channels_last) if pixels > 1 else (torch.Tensor.contiguous,):
            source = layout(x).requires_grad_()
            result = ops.local_response_norm(source, *chosen)
            (got,) = torch.autograd.grad(result, source, gradient)
            for one, other in ((result, expected), (got, expected_gradient)):
                error = (one.double() - other).abs().max() / other.abs().max()
                assert error <= (1e-4 if dtype == torch.float32 else 8e-3)  # thousands of terms, added one by one


def test_gradcheck(device):
    x = (torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))).to(device).requires_grad_()
    for size in (5, 4):
        for given_x in (x, channels_last(x)):
            with pytest.warns(UserWarning, match="not a double precision"):
                torch.autograd.gradcheck(
                    lambda values, size=size: ops.local_response_norm(values, size, 2.0, 0.75, 1.5),
                    given_x,
                    eps=1e-2,
                    atol=1e-3,
                    rtol=1e-2,
                )


def test_the_memory_format_is_kept(device):
    for shape in ((2, 6, 4, 5), (2, 6, 3, 4, 5), (2, 6, 7)):
        x = random(*shape).to(device)
        last = channels_last(x)
        expected = ops.local_response_norm(x)
        assert expected.is_contiguous()
        result = ops.local_response_norm(last)
        assert result.stride() == last.stride()
        torch.testing.assert_close(result, expected, rtol=2e-6, atol=0)
        flipped = x.transpose(0, -1).contiguous().transpose(0, -1)
        assert torch.equal(ops.local_response_norm(flipped), expected)


def test_out_of_any_layout(device):
    x = random(2, 6, 4, 5).to(device)
    expected = ops.local_response_norm(x)
    wide = torch.full((2, 6, 4, 10), torch.nan, device=device)
    for out in (torch.full_like(x, torch.nan), channels_last(x), wide[..., ::2]):
        assert ops.local_response_norm(x, out=out) is out
        assert torch.equal(out, expected)
    assert wide[..., 1::2].isnan().all()


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last])
@pytest.mark.parametrize("size", [5, 3])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_what_is_not_finite_stays_in_the_windows_that_hold_it(device, layout, size, bad):
    x = random(1, 16, 3, 4)
    spoiled = x.clone()
    spoiled[0, 8, 1, 2] = bad
    reach = size // 2
    on_device = [layout(each).to(device).requires_grad_() for each in (x, spoiled)]
    clean, result = (ops.local_response_norm(each, size) for each in on_device)
    gradient = torch.ones_like(x).to(device)
    clean_gradient, got = (
        torch.autograd.grad(each, source, gradient)[0] for each, source in zip((clean, result), on_device, strict=True)
    )
    near = torch.zeros_like(x, dtype=torch.bool)
    near[0, 8 - reach : 9 + reach, 1, 2] = True
    assert torch.equal(result.cpu()[~near], clean.cpu()[~near])
    near[0, 8 - 2 * reach : 9 + 2 * reach, 1, 2] = True
    assert torch.equal(got.cpu()[~near], clean_gradient.cpu()[~near])
    expected = functional.local_response_norm(spoiled, size, *CNN_M[1:])
    assert torch.equal(result.cpu().isnan(), expected.isnan())


def test_zeros_with_k_zero_are_not_numbers_as_in_torch(device):
    x = torch.zeros(1, 6, 2)
    x[0, 0] = 3.0
    result = ops.local_response_norm(x.to(device), k=0.0).cpu()
    expected = functional.local_response_norm(x, 5, 5e-4, 0.75, 0.0)
    assert torch.equal(result.isnan(), expected.isnan())
    assert result[0, 3:].isnan().all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5)])
def test_empty_tensors(device, shape):
    x = torch.zeros(shape, device=device, requires_grad=True)
    result = ops.local_response_norm(x)
    assert result.shape == shape
    result.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    before = torch.get_num_threads()
    for x in (random(3, 20, 61, 67), channels_last(random(3, 20, 61, 67))):
        results = []
        for count in (before, threads):
            try:
                torch.set_num_threads(count)
                source = x.detach().requires_grad_()
                result = ops.local_response_norm(source)
                results.append((result, *torch.autograd.grad(result, source, x)))
            finally:
                torch.set_num_threads(before)
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("size", [5, 2])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.4])
def test_cpu_and_cuda_kernels_agree(cuda_on_host, size, beta):
    for x in (random(2, 12, 3, 4), channels_last(random(2, 12, 3, 4)), random(2, 40, 3, 3)):
        gradient = torch.empty_like(x).copy_(random(*x.shape, seed=1))
        chosen = (size, 0.3, beta, 1.0)
        out, out_gradient = torch.empty_like(x), torch.empty_like(x)
        cuda_on_host.local_response_norm(x, *chosen, out)
        cuda_on_host.local_response_norm_backward(gradient, x, *chosen, out_gradient)
        torch.testing.assert_close(out, ops.local_response_norm(x, *chosen), rtol=1e-5, atol=0)
        expected = torch.ops.twostream.local_response_norm_backward(gradient, x, *chosen)
        torch.testing.assert_close(out_gradient, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_misaligned_tensors(device):
    # One value off the alignment of vectors
    for dtype in FLOATS:
        flat = random(1 + 2 * 8 * 16, dtype=dtype).to(device)
        x = flat[1:].view(2, 8, 16)
        assert torch.equal(ops.local_response_norm(x), ops.local_response_norm(x.clone()))
        last = flat[1:].view(2, 16, 8).movedim(-1, 1)
        torch.testing.assert_close(
            ops.local_response_norm(last), ops.local_response_norm(last.contiguous()), rtol=8e-3, atol=0
        )


@pytest.mark.slow  # minutes in the host build
def test_more_samples_than_a_grid_has_rows(device):
    x = random(65537, 1, 1).to(device)
    for size in (5, 3):
        chosen = (size, *CNN_M[1:])
        assert_near(ops.local_response_norm(x, *chosen), torch_gradient(x, x, chosen)[0], torch.float32)


def test_an_expanded_gradient_is_read_as_it_is_meant(device):
    x = random(2, 6, 3, 4).to(device).requires_grad_()
    ops.local_response_norm(x).sum().backward()
    _, expected = torch_gradient(x, torch.ones_like(x), CNN_M)
    assert_near(x.grad, expected, torch.float32)


def test_autocast_leaves_the_dtype_alone():
    x = random(1, 6, 3).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops.local_response_norm(x).dtype == torch.float32
        assert ops.local_response_norm(x.detach()).dtype == torch.float32


def test_a_second_derivative_is_refused():
    x = random(1, 6, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(ops.local_response_norm(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="local_response_norm: its gradient cannot be diff"):
        gradient.sum().backward()


def test_out_with_a_gradient_is_refused():
    x = random(1, 6, 3).requires_grad_()
    with pytest.raises(RuntimeError, match="local_response_norm: out= cannot be given"):
        ops.local_response_norm(x, out=torch.empty(1, 6, 3))
    with torch.no_grad():
        ops.local_response_norm(x, out=torch.empty(1, 6, 3))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS_IF_SLOW)
def test_compiled_with_its_gradient(backend):
    def loss(values):
        return (ops.local_response_norm(values.relu()) * 3).square().sum()

    x = random(2, 6, 4, 5)
    ours, compiled = (x.clone().requires_grad_() for _ in range(2))
    loss(ours).backward()
    torch.compile(loss, fullgraph=True, backend=backend)(compiled).backward()
    torch.testing.assert_close(compiled.grad, ours.grad)


def test_functional_gradients():
    x = random(2, 6, 4)
    got = torch.func.grad(lambda values: ops.local_response_norm(values).square().sum())(x)
    wanted = x.clone().requires_grad_()
    ops.local_response_norm(wanted).square().sum().backward()
    torch.testing.assert_close(got, wanted.grad)
