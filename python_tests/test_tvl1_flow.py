# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import tvl1_flow as reference_flow
from strategies import keep_strides, layouts
from videos import decode, moving_frames

from twostream_ext import _C, ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4")


def grey_texture(count, height, width, *, seed=0, step=(1, 0)):
    """A moving texture, uint8 [count, height, width]."""
    frames = moving_frames(count, size=(height, width), step=step, seed=seed)
    return torch.from_numpy(np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]))


def real_frames(path, first=10, count=2, size=(340, 256)):
    """Grey frames of a file, uint8 [count, height, width]."""
    frames = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in decode(path)[first : first + count]]
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def distance(one, other):
    """Mean end-point difference in pixels."""
    return float(np.linalg.norm(np.asarray(one) - np.asarray(other), axis=-1).mean())


def opencv_flow(prev, following, *, median=1, inner=1, outer=300):
    if not hasattr(cv2, "optflow"):
        pytest.skip("opencv-contrib-python is not installed")
    judge = cv2.optflow.DualTVL1OpticalFlow_create(0.25, 0.15, 0.3, 5, 5, 0.01, inner, outer, 0.8, 0.0, median, False)
    return judge.calc(prev, following, None)


@st.composite
def frames_and_options(draw):
    height, width = (draw(st.one_of(st.integers(1, 12), st.sampled_from([17, 23, 33]))) for _ in range(2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.uint8, torch.float32]))
    clip = (torch.rand(3, height, width, generator=generator) * 255).to(dtype)
    init = torch.randn(2, height, width, 2, generator=generator) * 3 if draw(st.booleans()) else None
    options = {
        "scales": draw(st.integers(1, 3)),
        "scale_step": draw(st.sampled_from([0.8, 0.5])),
        "finest_scale": draw(st.integers(0, 2)),
        "warps": draw(st.integers(1, 2)),
        "iterations": draw(st.sampled_from([1, 2, 3, 4, 5, 6, 17])),
        "tau": draw(st.sampled_from([0.25, 0.1])),
        "lambda_": draw(st.sampled_from([0.15, 0.05])),
        "theta": draw(st.sampled_from([0.3, 0.5])),
    }
    return draw(st.just(clip) | layouts(clip)), init, draw(st.sampled_from([0, 3, 5])), draw(st.integers(1, 4)), options


@per_device
@given(data=st.data())
def test_against_the_formulas(device, data):
    clip, init, median, every, options = data.draw(frames_and_options())
    on_device = keep_strides(clip, device)
    start = None if init is None else init.to(device)
    flow = ops.tvl1_flow(
        on_device[:2], on_device[1:], epsilon=0.0, median=median, median_every=every, init=start, **options
    )
    assert flow.dtype == torch.float32
    for index in (0, 1):
        start = None if init is None else init[index].numpy()
        pair = clip[index].numpy(), clip[index + 1].numpy()
        expected = reference_flow(*pair, side=median, every=every, init=start, **options)
        error = np.abs(flow[index].cpu().numpy() - expected)
        assert np.median(error) < 1e-4
        assert error.max() < (2e-3 if options["scales"] == 1 else 3e-2)  # each warp of noise enlarges what was rounded


@pytest.mark.parametrize(("median", "epsilon", "finest_scale"), [(0, 0.03, 0), (5, 0.03, 0), (0, 0.0, 1), (3, 0.0, 2)])
def test_cpu_and_cuda_kernels_give_the_same_bits(cuda_on_host, monkeypatch, median, epsilon, finest_scale):
    clip = grey_texture(3, 37, 45, step=(2, 1))
    options = {"scales": 3, "warps": 3, "iterations": 40, "median": median, "median_every": 7}
    options |= {"epsilon": epsilon, "finest_scale": finest_scale}
    expected = ops.tvl1_flow(clip[:2], clip[1:], **options)
    for name in ("tvl1_flow", "tvl1_flow_workspace"):
        monkeypatch.setattr(_C, name, getattr(cuda_on_host, name))
    assert torch.equal(ops.tvl1_flow(clip[:2], clip[1:], **options), expected)


def test_iterations_end_when_the_flow_rests(device):
    """A large epsilon ends each warp after one iteration, 0 never does."""
    clip = grey_texture(2, 20, 24)
    once = ops.tvl1_flow(clip[:1].to(device), clip[1:].to(device), epsilon=1e3, iterations=9, scales=1, warps=2)
    one = ops.tvl1_flow(clip[:1].to(device), clip[1:].to(device), epsilon=0.0, iterations=1, scales=1, warps=2)
    all_nine = ops.tvl1_flow(clip[:1].to(device), clip[1:].to(device), epsilon=0.0, iterations=9, scales=1, warps=2)
    assert torch.equal(once, one)
    assert not torch.equal(once, all_nine)


@pytest.mark.parametrize("size", [(20, 24), (64, 1200)])  # with a stride that the compiler knows, and with one that not
@pytest.mark.parametrize("median", [0, 3])
def test_iterations_that_go_over_the_field_together_are_those_one_after_another(size, median):
    """An epsilon that nothing can undercut leaves as many iterations as 0, but each must be waited for."""
    clip = grey_texture(2, *size, step=(2, 1))
    options = {"scales": 2, "warps": 2, "iterations": 37, "median": median, "median_every": 18}
    together = ops.tvl1_flow(clip[:1], clip[1:], epsilon=0.0, **options)
    assert torch.equal(together, ops.tvl1_flow(clip[:1], clip[1:], epsilon=1e-18, **options))


def test_a_finest_scale_that_is_not_there_is_the_coarsest(device):
    clip = grey_texture(2, 40, 36, step=(2, 1)).to(device)
    options = {"scales": 2, "scale_step": 0.5, "iterations": 9, "warps": 2}
    flow = ops.tvl1_flow(clip[:1], clip[1:], finest_scale=1, **options)
    assert not torch.equal(flow, ops.tvl1_flow(clip[:1], clip[1:], **options))
    assert torch.equal(flow, ops.tvl1_flow(clip[:1], clip[1:], finest_scale=7, **options))
    alone = {"iterations": 9, "warps": 2, "scales": 1}
    assert torch.equal(
        ops.tvl1_flow(clip[:1], clip[1:], finest_scale=3, **alone), ops.tvl1_flow(clip[:1], clip[1:], **alone)
    )


def test_each_pair_ends_for_itself(device):
    still, moving = grey_texture(1, 18, 21)[0], grey_texture(2, 18, 21, seed=1)
    prev, following = torch.stack([still, moving[0]]).to(device), torch.stack([still, moving[1]]).to(device)
    options = {"scales": 1, "warps": 2, "iterations": 20}
    together = ops.tvl1_flow(prev, following, **options)
    assert torch.equal(together[0].cpu(), torch.zeros(18, 21, 2))
    assert torch.equal(together[1:], ops.tvl1_flow(prev[1:], following[1:], **options))


@pytest.mark.parametrize("size", [(70, 90), (600, 900)])
def test_the_number_of_threads_changes_nothing(size):
    clip = grey_texture(3, *size, step=(2, 1))
    before = torch.get_num_threads()
    results = {0: [], 5: []}
    for threads in (1, 2, 3):
        try:
            torch.set_num_threads(threads)
            for median, flows in results.items():
                options = {"iterations": 4, "scales": 2, "warps": 2, "median": median, "median_every": 3}
                flows.append(ops.tvl1_clip_flow(clip, **options))
                assert torch.equal(ops.tvl1_flow(clip[:1], clip[1:2], **options)[0], flows[-1][0])
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(flow, flows[0]) for flows in results.values() for flow in flows)


def test_a_clip_is_its_pairs(device):
    clip = grey_texture(4, 19, 22).to(device)
    options = {"scales": 2, "iterations": 5, "warps": 2}
    forward, backward = ops.tvl1_clip_flow(clip, backward=True, **options)
    assert forward.shape == (3, 19, 22, 2)
    assert torch.equal(forward, ops.tvl1_clip_flow(clip, **options))
    assert torch.equal(forward, ops.tvl1_flow(clip[:-1], clip[1:], **options))
    assert torch.equal(backward, ops.tvl1_flow(clip[1:], clip[:-1], **options))
    assert ops.tvl1_clip_flow(clip[:1], **options).shape == (0, 19, 22, 2)
    assert ops.tvl1_flow(clip[:0], clip[:0], **options).shape == (0, 19, 22, 2)


def test_lists_of_different_sizes(device):
    one, other = grey_texture(2, 19, 22).to(device), grey_texture(2, 25, 17).to(device)
    options = {"scales": 2, "iterations": 5, "warps": 2}
    result = ops.tvl1_flow([one[0], other[0]], [one[1], other[1]], **options)
    expected = [ops.tvl1_flow(pair[:1], pair[1:], **options)[0] for pair in (one, other)]
    assert all(torch.equal(*each) for each in zip(result, expected, strict=True))
    out = [torch.empty(19, 22, 2, device=device), torch.empty(25, 17, 2, device=device)]
    given_out = ops.tvl1_flow([one[0], other[0]], [one[1], other[1]], out=out, **options)
    assert all(got is mine and torch.equal(got, want) for got, mine, want in zip(given_out, out, result, strict=True))
    again = ops.tvl1_flow([one[0], other[0]], [one[1], other[1]], init=result, **options)
    expected = ops.tvl1_flow(other[:1], other[1:], init=result[1][None], **options)
    assert torch.equal(again[1], expected[0])


def test_frames_and_out_of_any_strides(device):
    clip = grey_texture(3, 18, 20).to(device)
    options = {"scales": 1, "iterations": 5, "warps": 1}
    expected = ops.tvl1_clip_flow(clip, **options)
    wide = torch.zeros(3, 18, 40, dtype=torch.uint8, device=device)
    wide[..., ::2] = clip
    assert torch.equal(ops.tvl1_clip_flow(wide[..., ::2], **options), expected)
    assert torch.equal(ops.tvl1_clip_flow(clip.transpose(1, 2).contiguous().transpose(1, 2), **options), expected)
    planar = torch.empty(2, 2, 18, 20, device=device).permute(0, 2, 3, 1)
    assert ops.tvl1_flow(clip[:-1], clip[1:], out=planar, **options) is planar
    assert torch.equal(planar, expected)


def test_a_moved_texture_is_found():
    for step in ((2, 1), (-3, 0)):
        clip = grey_texture(2, 96, 120, step=step)
        flow = ops.tvl1_flow(clip[:1], clip[1:])[0, 12:-12, 12:-12]
        assert distance(flow, np.broadcast_to(np.float32(step), flow.shape)) < 0.1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_no_number_spoils_all_of_its_pairs_and_no_other(device, value):
    clean = grey_texture(4, 18, 20).float()
    clip = clean.clone()
    clip[3, 5, 6] = value
    options = {"scales": 2, "iterations": 6, "warps": 2}
    expected = ops.tvl1_clip_flow(clean.to(device), backward=True, **options)
    flow = ops.tvl1_clip_flow(clip.to(device), backward=True, **options)
    assert torch.equal(flow[:, :2], expected[:, :2])
    assert flow[:, 2].isnan().all()
    flow = ops.tvl1_flow(clip[:3].to(device), clip[1:].to(device), **options)
    assert torch.equal(flow[:2], expected[0, :2])
    assert flow[2].isnan().all()
    one, other = ops.tvl1_flow(list(clip[1:3].to(device)), list(clip[2:].to(device)), **options)
    assert torch.equal(one, expected[0, 1])
    assert other.isnan().all()


def test_float_frames_have_the_bits_of_bytes(device):
    """Looking for what is no number changes nothing, not even the sign of a zero."""
    clip = grey_texture(3, 18, 20).to(device)
    clip[1] = clip[0]
    expected = ops.tvl1_clip_flow(clip, iterations=6)
    flow = ops.tvl1_clip_flow(clip.float(), iterations=6)
    assert torch.equal(flow.view(torch.int32), expected.view(torch.int32))


def test_white_may_be_one(device):
    clip = grey_texture(3, 18, 20).float().to(device)
    options = {"iterations": 9, "scales": 2}
    expected = ops.tvl1_clip_flow(clip, **options)
    torch.testing.assert_close(ops.tvl1_clip_flow(clip / 255, range=1.0, **options), expected, rtol=1e-3, atol=1e-3)
    unit = clip / 255
    torch.testing.assert_close(ops.tvl1_flow(unit[:2], unit[1:], range=1.0, **options), expected, rtol=1e-3, atol=1e-3)
    for call in (lambda: ops.tvl1_clip_flow(unit, **options), lambda: ops.tvl1_flow(unit[:2], unit[1:], **options)):
        if device.type == "cpu":
            with pytest.warns(UserWarning, match=r"tvl1_(clip_)?flow: (clip|prev) has values from 0 to 1.*range=1.0"):
                call()
        else:
            call()
    ops.tvl1_clip_flow(torch.zeros_like(clip), **options)  # black frames are no mistake


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_values_that_are_no_numbers_do_no_harm(device, value):
    clip = grey_texture(2, 18, 20).float()
    clip[0, 5, 6] = value
    clip[1, 17, 19] = value
    flow = ops.tvl1_flow(clip[:1].to(device), clip[1:].to(device), scales=2, iterations=6, warps=2)
    assert flow.shape == (1, 18, 20, 2)
    init = torch.full((1, 18, 20, 2), value).to(device)
    assert ops.tvl1_flow(clip[:1].to(device), clip[1:].to(device), init=init, iterations=3).shape == flow.shape


def test_indices_beyond_the_frames_are_clamped(device):
    clip = grey_texture(2, 18, 20).to(device)
    constants = (0.25, 0.15, 0.3, 1, 0.8, 0, 1, 0.01, 5, 0, 30)
    pairs = torch.tensor([[-5, 7], [0, 1]], dtype=torch.int32, device=device)
    flow = torch.empty(2, 18, 20, 2, device=device)
    size = _C.tvl1_flow_workspace("tvl1_flow", "prev", clip, 1, 0.8, 1)
    workspace = torch.empty(size, dtype=torch.uint8, device=device)
    _C.tvl1_flow("tvl1_flow", "prev", clip, pairs, None, *constants, 1, False, workspace, flow)
    assert torch.equal(flow[0], flow[1])


# ---- against OpenCV ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIPS)
def test_opencv_agrees_on_real_clips(real_clips, name):
    prev, following = real_frames(real_clips / name, size=(170, 128))
    ours = ops.tvl1_flow(torch.from_numpy(prev)[None], torch.from_numpy(following)[None])[0]
    assert distance(ours, opencv_flow(prev, following)) < 0.05
    ours = ops.tvl1_flow(torch.from_numpy(prev)[None], torch.from_numpy(following)[None], median=5)[0]
    assert distance(ours, opencv_flow(prev, following, median=5, inner=30, outer=10)) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_opencv_agrees_on_real_clips_at_full_size(real_clips, name):
    for first in (0, 40, 90):
        prev, following = real_frames(real_clips / name, first)
        ours = ops.tvl1_flow(torch.from_numpy(prev)[None], torch.from_numpy(following)[None])[0]
        assert distance(ours, opencv_flow(prev, following)) < 0.05


@pytest.mark.slow
def test_opencv_agrees_on_data_at_hand(shared_data):
    paths = sorted((shared_data / "ut-interaction").rglob("v_*"))[::15]
    assert len(paths) >= 8
    for path in paths:
        prev, following = real_frames(path, first=5, size=(176, 144))
        ours = ops.tvl1_flow(torch.from_numpy(prev)[None], torch.from_numpy(following)[None])[0]
        assert distance(ours, opencv_flow(prev, following)) < 0.05


def test_opencv_agrees_on_smooth_motion():
    clip = grey_texture(2, 100, 130, step=(2, 1)).numpy()
    ours = ops.tvl1_flow(torch.from_numpy(clip[:1]), torch.from_numpy(clip[1:]))[0]
    assert distance(ours, opencv_flow(*clip)) < 0.02


def true_flows(height, width):
    """An affine, a projective and a smooth random flow field, float64 [H, W, 2]."""
    y, x = np.mgrid[:height, :width].astype(float)
    turned = np.deg2rad(1.5)
    from_x, from_y = x - width / 2, y - height / 2
    affine = [
        1.02 * (np.cos(turned) * from_x - np.sin(turned) * from_y) - from_x + 1.3,
        1.02 * (np.sin(turned) * from_x + np.cos(turned) * from_y) - from_y - 0.7,
    ]
    depth = 2e-5 * x - 3e-5 * y + 1
    projective = [(1.01 * x + 0.01 * y + 1.5) / depth - x, (-0.008 * x + 0.99 * y - 1) / depth - y]
    noise = np.random.default_rng(0).normal(size=(2, height, width))
    smooth = [cv2.GaussianBlur(plane, (0, 0), 25) for plane in noise]
    wavy = [1.5 * plane / plane.std() for plane in smooth]
    return [np.stack(planes, axis=-1) for planes in (affine, projective, wavy)]


@pytest.mark.slow
def test_the_true_error_is_not_above_that_of_opencv(real_clips):
    """Real frames, warped by known fields."""
    errors = []
    for name in CLIPS:
        following = real_frames(real_clips / name, count=1)[0]
        for truth in true_flows(*following.shape):
            y, x = np.mgrid[: following.shape[0], : following.shape[1]]
            place = (x + truth[..., 0]).astype(np.float32), (y + truth[..., 1]).astype(np.float32)
            prev = cv2.remap(following, *place, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
            ours = ops.tvl1_flow(torch.from_numpy(prev)[None], torch.from_numpy(following)[None])[0]
            errors.append((distance(ours, truth), distance(opencv_flow(prev, following), truth)))
    mean_ours, mean_theirs = np.mean(errors, axis=0)
    assert mean_ours <= 1.02 * mean_theirs
    assert all(ours <= 1.05 * theirs for ours, theirs in errors)
