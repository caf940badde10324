# SPDX-License-Identifier: BSD-3-Clause
"""What tvl1_flow's CUDA kernels do that the CPU's need not: tiles that overlap, pairs that share launches, iterations
that are tried several at a time and repeated where convergence came before the last."""

from __future__ import annotations

import pytest
import torch

from twostream_ext import _C, ops

OPTIONS = {
    "tau": 0.25,
    "lambda_": 0.15,
    "theta": 0.3,
    "scales": 2,
    "scale_step": 0.8,
    "finest_scale": 0,
    "warps": 2,
    "epsilon": 0.02,
    "iterations": 21,
    "median": 0,
    "median_every": 30,
}


def clip_of(count, height, width, seed):
    """Smooth frames whose motion differs from one to the next, float32 [count, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, count, height // 3 + 2, width // 3 + 2, generator=generator) * 255
    noise = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    moved = [torch.roll(noise[0], (frame // 2, frame), (0, 1)) for frame in range(count)]
    return torch.stack([0.9 * moved[frame] + 0.1 * noise[frame] for frame in range(count)])


def flow_of(module, frames, pairs, init=None, concurrent=1, **options):
    """The C API's flow with the given number of pairs at work, in a workspace of exactly the size it asks for."""
    chosen = {**OPTIONS, **options}
    size = module.tvl1_flow_workspace("tvl1_flow", "prev", frames, chosen["scales"], chosen["scale_step"], concurrent)
    workspace = torch.full((size,), 0xFF, dtype=torch.uint8, device=frames.device)
    flow = torch.full((len(pairs), *frames.shape[1:], 2), torch.nan, device=frames.device)
    module.tvl1_flow("tvl1_flow", "prev", frames, pairs, init, *chosen.values(), concurrent, False, workspace, flow)
    return flow


@pytest.fixture(params=["cuda_on_host", "cuda"])
def cuda_flow(request):
    """`flow_of` by the CUDA kernels, of tensors on the CPU."""
    if request.param == "cuda_on_host":
        module = request.getfixturevalue("cuda_on_host")
        return lambda *tensors, **more: flow_of(module, *tensors, **more)
    if not (torch.cuda.is_available() and _C.cuda_architectures()):
        pytest.skip("no GPU, or built without CUDA")
    return lambda *tensors, **more: flow_of(
        _C, *(None if each is None else each.cuda() for each in tensors), **more
    ).cpu()


def indices(*pairs):
    return torch.tensor(pairs, dtype=torch.int32)


@pytest.mark.parametrize("size", [(32, 64), (33, 65), (60, 20), (18, 130)])
def test_tiles_leave_no_seam(cuda_flow, size):
    frames = clip_of(2, *size, seed=1)
    for epsilon in (0.02, 0.1):  # not enough iterations to converge, and enough
        expected = ops.tvl1_clip_flow(frames, **{**OPTIONS, "epsilon": epsilon})
        assert expected.abs().max() > 0.5
        assert torch.equal(cuda_flow(frames, indices((0, 1)), epsilon=epsilon), expected)


@pytest.mark.parametrize("concurrent", [2, 5])
def test_each_pair_that_shares_launches_ends_for_itself(cuda_flow, concurrent):
    frames = clip_of(4, 20, 26, seed=2)
    pairs = indices((0, 0), (1, 2), (2, 1), (0, 3), (2, 2))
    expected = flow_of(_C, frames, pairs)
    assert not expected[[0, 4]].any()
    assert torch.equal(cuda_flow(frames, pairs, concurrent=concurrent), expected)


@pytest.mark.parametrize("epsilon", [0.03, 0.05, 0.08, 0.12, 0.2, 0.3])
def test_the_last_iteration_is_the_one_that_converged(cuda_flow, epsilon):
    """Wherever it lies among those of a launch, and if no other iteration were to follow."""
    frames = clip_of(3, 20, 26, seed=3)
    pairs = indices((1, 2))
    options = {"scales": 1, "warps": 1, "epsilon": epsilon}
    final = flow_of(_C, frames, pairs, iterations=99, **options)
    flows = (flow_of(_C, frames, pairs, iterations=count, **options) for count in range(1, 99))
    converged = next(count for count, flow in enumerate(flows, 1) if torch.equal(flow, final))
    for iterations in (converged, converged + 1, converged + 2, 99):
        assert torch.equal(cuda_flow(frames, pairs, iterations=iterations, **options), final)


@pytest.mark.parametrize(("side", "every"), [(3, 1), (3, 4), (5, 3), (5, 6)])
def test_iterations_repeated_start_at_the_flow_that_was_filtered_for_them(cuda_flow, side, every):
    frames = clip_of(3, 20, 26, seed=4)
    pairs = indices((1, 2), (0, 2), (2, 0))
    options = {"median": side, "median_every": every, "epsilon": 0.06, "init": torch.ones(3, 20, 26, 2)}
    expected = flow_of(_C, frames, pairs, **options)
    init = options.pop("init")
    assert torch.equal(cuda_flow(frames, pairs, init, concurrent=3, **options), expected)


def test_more_pairs_than_can_be_at_work(cuda_flow):
    frames = clip_of(3, 2, 3, seed=5)
    pairs = indices(*((number % 3, (number + 1) % 3) for number in range(260)))
    options = {"scales": 1, "warps": 1, "iterations": 1}
    expected = flow_of(_C, frames, pairs[:3], **options)
    flow = cuda_flow(frames, pairs, concurrent=2**31 - 1, **options)
    assert all(torch.equal(flow[number], expected[number % 3]) for number in range(260))


def test_flow_that_is_no_number_spreads_alike(cuda_flow):
    frames = clip_of(3, 20, 26, seed=6)
    frames[2, 3, 4], frames[2, 19, 25] = torch.nan, torch.inf
    init = torch.zeros(2, 20, 26, 2)
    init[0, 5, 5, 0], init[0, 6, 9, 1], init[1, 12, 12] = torch.inf, torch.nan, -1e38
    options = {"scales": 1, "iterations": 4, "warps": 1}
    expected = flow_of(_C, frames, indices((1, 2), (0, 1)), init, **options)
    assert 0 < expected.isnan().sum() < expected.numel()
    flow = cuda_flow(frames, indices((1, 2), (0, 1)), init, concurrent=2, **options)
    assert torch.equal(flow.isnan(), expected.isnan())
    assert torch.equal(flow.nan_to_num(), expected.nan_to_num())
