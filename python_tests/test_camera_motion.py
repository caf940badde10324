# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import numpy as np
import pytest
import torch
from camera_scenes import background_error, camera_scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import camera_motion as reference_map
from strategies import flow_batches, layouts

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def scenes(seeds, share, **options):
    """Fields [N, 1, H, W, 2] of scenes, and the scenes."""
    drawn = [camera_scene(seed, share, **options) for seed in seeds]
    return torch.from_numpy(np.stack([field for field, _, _ in drawn])[:, None]).float(), drawn


@per_device
@given(data=st.data())
def test_against_numpy(device, data):
    batch = data.draw(flow_batches())
    # In noise without a background, what is rounded grows from round to round: scenes are for the later ones.
    iterations = data.draw(st.integers(1, 3))
    flow, lo, step = batch.to(device)
    result = ops.camera_motion(flow, lo=lo, step=step, iterations=iterations)
    assert result.dtype == torch.float32
    expected = np.array([[reference_map(field, iterations) for field in values] for values in batch.values])
    np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=1e-3, atol=2e-3)
    out = torch.full_like(result, torch.nan)
    assert ops.camera_motion(flow, lo=lo, step=step, iterations=iterations, out=out) is out
    assert torch.equal(out, result)


@pytest.mark.parametrize("size", [(75, 91), (256, 340), (9, 1200)])
def test_scenes_against_numpy(device, size):
    flow, _ = scenes(range(2), 0.3, size=size)
    result = ops.camera_motion(flow.to(device)).cpu().numpy()[:, 0]
    expected = np.array([reference_map(field, 8) for field in flow[:, 0].double().numpy()])
    corners = np.array([[x, y, 1] for x in (0, size[1] - 1) for y in (0, size[0] - 1)])
    np.testing.assert_allclose(result @ corners.T, expected @ corners.T, atol=2e-4)


@pytest.mark.parametrize("share", [0, 0.1, 0.2, 0.3, 0.4])
def test_the_background_comes_to_rest(share):
    flow, drawn = scenes(range(8), share)
    found = ops.camera_motion(flow).double().numpy()[:, 0]
    errors = [background_error(each, scene) for each, scene in zip(found, drawn, strict=True)]
    assert max(errors) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("share", [0, 0.1, 0.2, 0.3, 0.4])
def test_the_background_comes_to_rest_in_many_scenes(share):
    flow, drawn = scenes(range(100, 150), share)
    found = ops.camera_motion(flow).double().numpy()[:, 0]
    errors = [background_error(each, scene) for each, scene in zip(found, drawn, strict=True)]
    assert np.mean(errors) < 0.02
    assert max(errors) < 0.05


def test_coded_scenes(device):
    flow, drawn = scenes(range(4), 0.4, size=(120, 160))
    codes, lo, step, _ = ops.quantize_flow(flow)
    found = ops.camera_motion(codes.to(device), lo=lo.to(device), step=step.to(device)).cpu().double().numpy()[:, 0]
    assert max(background_error(each, scene) for each, scene in zip(found, drawn, strict=True)) < 0.05


@per_device
@given(data=st.data())
def test_an_affine_field_is_its_own_map(device, data):
    height, width = data.draw(st.integers(2, 90)), data.draw(st.integers(2, 90))
    numbers = st.floats(-8, 8, width=32)
    slope = st.floats(-0.0625, 0.0625, width=32)
    wanted = np.array([[data.draw(slope), data.draw(slope), data.draw(numbers)] for _ in range(2)])
    y, x = np.mgrid[:height, :width]
    field = np.stack([x, y, np.ones((height, width))], axis=-1) @ wanted.T
    flow = data.draw(layouts(torch.from_numpy(field).float()[None, None])).to(device)
    np.testing.assert_allclose(ops.camera_motion(flow).cpu().numpy()[0, 0], wanted, atol=2e-5)


def test_fields_without_extent(device):
    for height, width in ((1, 1), (1, 50), (50, 1), (1, 20_000)):
        y, x = np.mgrid[:height, :width]
        field = np.stack([3 + x / 64, -2 + y / 32], axis=-1)
        found = ops.camera_motion(torch.from_numpy(field).float()[None, None].to(device)).cpu().numpy()[0, 0]
        expected = [[1 / 64 if width > 1 else 0, 0, 3], [0, 1 / 32 if height > 1 else 0, -2]]
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_still_field_and_an_empty_batch(device):
    assert not ops.camera_motion(torch.zeros(1, 2, 30, 40, 2, device=device)).any()
    assert ops.camera_motion(torch.zeros(0, 2, 30, 40, 2, device=device)).shape == (0, 2, 2, 3)


def test_large_displacements_keep_their_digits(device):
    wave = np.sin(np.arange(90 * 120)).reshape(90, 120, 1)
    field = 1e4 + wave + np.zeros(2)
    found = ops.camera_motion(torch.from_numpy(field).float()[None, None].to(device)).cpu().double().numpy()
    np.testing.assert_allclose(found[0, 0], reference_map(field, 8), rtol=1e-6, atol=2e-3)


@per_device
@given(data=st.data())
def test_layout_and_neighbours_change_nothing(device, data):
    batch = data.draw(flow_batches())
    flow, lo, step = batch.to(device)
    found = ops.camera_motion(flow, lo=lo, step=step)
    for index, sample in enumerate(batch.samples):
        ranges = {} if lo is None else {"lo": lo[index, None], "step": step[index, None]}
        values = sample.to(device) if sample.dtype == torch.uint8 else sample.float().to(device)
        assert torch.equal(ops.camera_motion(values[None], **ranges)[0], found[index])


def test_turned_fields_have_turned_maps(device):
    flow, _ = scenes([3], 0.2, size=(64, 64))
    found = ops.camera_motion(flow.to(device)).cpu()[0, 0]
    turned = ops.camera_motion(flow.transpose(2, 3).flip(-1).to(device)).cpu()[0, 0]
    torch.testing.assert_close(turned, found.flip(0)[:, [1, 0, 2]], atol=1e-5, rtol=1e-5)
    mirrored = ops.camera_motion((flow.flip(3) * torch.tensor([-1.0, 1.0])).to(device)).cpu()[0, 0]
    expected = torch.stack([found[:, 0], -found[:, 1], -(found[:, 2] + 63 * found[:, 0])], dim=-1)
    expected[1] *= -1
    torch.testing.assert_close(mirrored, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    many, _ = scenes(range(2), 0.3, size=(130, 150))
    many = many.repeat(10, 2, 1, 1, 1)
    one, _ = scenes([5], 0.3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = ops.camera_motion(many), ops.camera_motion(one)
        torch.set_num_threads(threads)
        assert torch.equal(ops.camera_motion(many), expected[0])
        assert torch.equal(ops.camera_motion(one), expected[1])
    finally:
        torch.set_num_threads(before)


def test_cpu_and_cuda_kernels_agree(cuda_on_host):
    flow, _ = scenes(range(3), 0.4, size=(150, 200))
    codes, lo, step, _ = ops.quantize_flow(flow)
    for fields, ranges in ((flow, (None, None)), (codes, (lo, step))):
        expected = ops.camera_motion(fields, lo=ranges[0], step=ranges[1])
        out = torch.empty_like(expected)
        cuda_on_host.camera_motion([fields], *ranges, 8, out)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
