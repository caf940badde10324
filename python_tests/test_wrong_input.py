# SPDX-License-Identifier: BSD-3-Clause
"""Each error of an operator names the operator, the argument, what came and what is wanted."""

from __future__ import annotations

import pytest
import torch

from twostream_ext import _C, ops

FLOW = torch.zeros(2, 3, 8, 9, 2)
CODES = FLOW.to(torch.uint8)
RANGES = torch.zeros(2, 3, 2)
WINDOWS = torch.zeros(2, 3, dtype=torch.int32)
FRAMES = torch.zeros(2, 8, 9, 3, dtype=torch.uint8)
MAPS = torch.zeros(2, 3, 4, 5)
COLOUR = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def stack(flow=FLOW, windows=WINDOWS, size=4, **options):
    return ops.flow_stack(flow, windows, size, **options)


def trajectories(flow=FLOW, windows=WINDOWS, size=4, **options):
    return ops.trajectory_stack(flow, windows, size, **options)


def backward(gradient=(2, 6, 4, 4), flow=FLOW, windows=WINDOWS, flow_gradient=True, bidirectional=False):
    operator = torch.ops.twostream.trajectory_stack_backward
    return operator(torch.zeros(gradient), [flow], windows, None, False, bidirectional, flow_gradient)


def frames(images=FRAMES, windows=WINDOWS, size=4, **options):
    return ops.crop_frames(images, windows, size, **{**COLOUR, **options})


GREYS = torch.zeros(2, 8, 9, dtype=torch.uint8)
INDICES = torch.zeros(2, 2, dtype=torch.int32)
TVL1 = (0.25, 0.15, 0.3, 1, 0.8, 0, 1, 0.01, 1, 0, 30)


def tvl1(prev=GREYS, following=GREYS, **options):
    return ops.tvl1_flow(prev, following, iterations=options.pop("iterations", 1), **options)


def tvl1_of_pairs(frames=GREYS, pairs=INDICES):
    workspace = torch.empty(1 << 20, dtype=torch.uint8)
    _C.tvl1_flow("tvl1_flow", "prev", frames, pairs, None, *TVL1, 1, False, workspace, torch.zeros(2, 8, 9, 2))


CASES = {
    "flow not a tensor": (lambda: stack(flow=3), TypeError, "flow_stack: flow must be a tensor or an array.*got int"),
    "flow of an empty list": (lambda: stack(flow=[]), ValueError, "flow_stack: flow must be"),
    "flow of 4 dimensions, 3 components": (lambda: stack(flow=torch.zeros(2, 8, 9, 3)), ValueError, "flow"),
    "flow of 3 components": (lambda: stack(flow=torch.zeros(2, 3, 8, 9, 3)), ValueError, r"\[\*, 3, \*, \*, 2\]"),
    "flow of float64": (lambda: stack(flow=FLOW.double()), TypeError, "flow.* must be uint8, float32.*got float64"),
    "flow of int64": (lambda: stack(flow=FLOW.long()), TypeError, "got int64"),
    "flow of zero rows": (lambda: stack(flow=torch.zeros(2, 3, 0, 9, 2)), ValueError, "every dimension from 1"),
    "flows of two lengths": (
        lambda: stack(flow=[torch.zeros(3, 8, 9, 2), torch.zeros(2, 8, 9, 2)]),
        ValueError,
        r"flow_stack: flow\[1\] must be of shape \[3,",
    ),
    "flows of two dtypes": (lambda: stack(flow=[FLOW[0], CODES[1]]), TypeError, r"flow\[1\] must be of the dtype"),
    "codes without lo": (lambda: stack(flow=CODES), ValueError, "lo must be given with uint8"),
    "codes without step": (lambda: stack(flow=CODES, lo=RANGES), ValueError, "step must be given with uint8"),
    "floats with lo": (lambda: stack(lo=RANGES, step=RANGES), ValueError, "lo must be left out"),
    "lo of another shape": (
        lambda: stack(flow=CODES, lo=RANGES[:1], step=RANGES),
        ValueError,
        r"lo must be of shape \[2, 3, 2\], got \[1, 3, 2\]",
    ),
    "lo of float64": (lambda: stack(flow=CODES, lo=RANGES.double(), step=RANGES), TypeError, "lo must be float32"),
    "mean of another shape": (lambda: stack(mean=RANGES[..., 0]), ValueError, "mean must be of shape"),
    "windows of int64": (lambda: stack(windows=WINDOWS.long()), TypeError, "windows must be int32, got int64"),
    "windows of two columns": (lambda: stack(windows=WINDOWS[:, :2]), ValueError, r"windows must be of shape \[2, 3\]"),
    "windows of another batch": (lambda: stack(windows=WINDOWS[:1]), ValueError, "windows must be of shape"),
    "window below the field": (lambda: stack(windows=WINDOWS + 6), ValueError, r"windows\[0\].*inside its 8x9 sample"),
    "window above the field": (lambda: stack(windows=WINDOWS - 1), ValueError, "got top -1, left -1"),
    "window larger than the field": (lambda: stack(size=(4, 10)), ValueError, "size must be at most .*8x9, got 4x10"),
    "size of three": (lambda: stack(size=(4, 4, 4)), ValueError, "size must be a positive number or"),
    "size of zero": (lambda: stack(size=0), ValueError, "size"),
    "size of true": (lambda: stack(size=True), ValueError, "flow_stack: size must be a positive number"),
    "size of words": (lambda: stack(size="44"), ValueError, "flow_stack: size must be a positive number"),
    "size of a fraction": (lambda: frames(size=(4.5, 4)), ValueError, "crop_frames: size must be a positive number"),
    "negative size": (lambda: stack(size=(-4, 4)), ValueError, "flow_stack: size must be a positive number"),
    "windows without dimensions": (lambda: stack(windows=torch.tensor(0).int()), ValueError, "windows must be of"),
    "windows on another device": (
        lambda: stack(windows=WINDOWS.to("meta")),
        ValueError,
        "windows must be on the device of flow",
    ),
    "out that needs a gradient": (
        lambda: stack(out=torch.zeros(2, 6, 4, 4, requires_grad=True)),
        RuntimeError,
        "flow_stack: out= cannot be given",
    ),
    "codes that are expanded": (
        lambda: ops.dequantize_flow(CODES, RANGES, RANGES, out=torch.zeros(1, 3, 8, 9, 2).expand(2, 3, 8, 9, 2)),
        ValueError,
        "dequantize_flow: out must be no dimension that is expanded",
    ),
    "sizes without dimensions": (lambda: ops.random_windows(torch.tensor(3), 4, seed=0), ValueError, "sizes must be"),
    "complex sizes": (lambda: ops.ten_crop_windows(torch.zeros(1, 2, dtype=torch.complex64), 4), TypeError, "sizes"),
    "integer result": (lambda: stack(dtype=torch.int32), TypeError, "flow_stack: dtype must be float32, float16"),
    "out of another shape": (lambda: stack(out=torch.zeros(2, 5, 4, 4)), ValueError, "out must be of shape"),
    "out of uint8": (lambda: stack(out=torch.zeros(2, 6, 4, 4, dtype=torch.uint8)), TypeError, "out must be float32"),
    "out that is expanded": (
        lambda: stack(out=torch.zeros(1, 6, 4, 4).expand(2, 6, 4, 4)),
        ValueError,
        "out must be no dimension that is expanded",
    ),
    "odd stack in two directions": (
        lambda: trajectories(bidirectional=True),
        ValueError,
        "trajectory_stack: flow must be of an even number of fields when bidirectional.*got 3 fields",
    ),
    "trajectories of an empty list": (lambda: trajectories(flow=[]), ValueError, "trajectory_stack: flow must be"),
    "trajectories of float64": (lambda: trajectories(flow=FLOW.double()), TypeError, "trajectory_stack: flow.*float64"),
    "trajectories of codes without lo": (lambda: trajectories(flow=CODES), ValueError, "lo must be given with uint8"),
    "trajectories of floats with lo": (lambda: trajectories(lo=RANGES), ValueError, "lo must be left out"),
    "trajectories with a mean of another shape": (
        lambda: trajectories(mean=RANGES[:1]),
        ValueError,
        r"trajectory_stack: mean must be of shape \[2, 3, 2\], got \[1, 3, 2\]",
    ),
    "trajectories from below the field": (
        lambda: trajectories(windows=WINDOWS + 6),
        ValueError,
        r"trajectory_stack: windows\[0\].*inside its 8x9 sample",
    ),
    "trajectories of a window larger than the field": (
        lambda: trajectories(size=(9, 4)),
        ValueError,
        "trajectory_stack: size must be at most .*8x9, got 9x4",
    ),
    "trajectories into another shape": (
        lambda: trajectories(out=torch.zeros(2, 6, 4)),
        ValueError,
        "trajectory_stack: out must be of shape",
    ),
    "trajectories into an expanded tensor": (
        lambda: trajectories(out=torch.zeros(1, 6, 4, 4).expand(2, 6, 4, 4)),
        ValueError,
        "out must be no dimension that is expanded",
    ),
    "trajectories' gradient of another shape": (
        lambda: backward(gradient=(2, 5, 4, 4)),
        ValueError,
        "trajectory_stack_backward: gradient must be of shape",
    ),
    "gradient of codes": (
        lambda: backward(flow=CODES),
        TypeError,
        "trajectory_stack_backward: flow_gradient.* must be float32",
    ),
    "gradient of an odd stack in two directions": (
        lambda: backward(bidirectional=True),
        ValueError,
        "trajectory_stack_backward: flow must be of an even number",
    ),
    "frames of 4 components": (lambda: frames(torch.zeros(2, 8, 9, 4)), ValueError, "frames must be of shape"),
    "frames of int32": (lambda: frames(FRAMES.int()), TypeError, "frames.* got int32"),
    "two means": (lambda: frames(mean=[0, 0]), ValueError, "mean must be 3 numbers, got 2"),
    "std of zero": (lambda: frames(std=[1, 0, 1]), ValueError, "std must be positive"),
    "std of nan": (lambda: frames(std=[1, float("nan"), 1]), ValueError, "std must be positive"),
    "shift of another shape": (lambda: frames(shift=torch.zeros(3, 3)), ValueError, "shift must be of shape"),
    "shift of float16": (lambda: frames(shift=torch.zeros(2, 3).half()), TypeError, "shift must be float32"),
    "quantize codes": (lambda: ops.quantize_flow(CODES), TypeError, "quantize_flow: flow.* must be float32"),
    "dequantize floats": (lambda: ops.dequantize_flow(FLOW, RANGES, RANGES), TypeError, "codes.* must be uint8"),
    "dequantize to uint8": (
        lambda: ops.dequantize_flow(CODES, RANGES, RANGES, dtype=torch.uint8),
        TypeError,
        "dequantize_flow: dtype must be float32",
    ),
    "dequantize into another size": (
        lambda: ops.dequantize_flow(CODES, RANGES, RANGES, out=torch.zeros(2, 3, 8, 8, 2)),
        ValueError,
        "dequantize_flow: out must be of the sizes of codes",
    ),
    "a camera and a mean": (
        lambda: stack(mean=torch.zeros(2, 3, 2), camera=torch.zeros(2, 3, 2, 3)),
        ValueError,
        "flow_stack: camera must be left out where the mean is subtracted, got a tensor",
    ),
    "a camera and the mean of the field": (
        lambda: trajectories(subtract_mean=True, camera=torch.zeros(2, 3, 2, 3)),
        ValueError,
        "trajectory_stack: camera must be left out where the mean is subtracted, got a tensor",
    ),
    "a camera of another shape": (
        lambda: stack(camera=torch.zeros(2, 3, 3)),
        ValueError,
        r"flow_stack: camera must be of shape \[2, 3, 2, 3\]",
    ),
    "a camera of another dtype": (
        lambda: trajectories(camera=torch.zeros(2, 3, 2, 3, dtype=torch.float64)),
        TypeError,
        "trajectory_stack: camera must be float32",
    ),
    "camera motion of a field of 1 dimension": (lambda: ops.camera_motion(torch.zeros(3)), ValueError, "flow must be"),
    "camera motion without a round": (
        lambda: ops.camera_motion(FLOW, iterations=0),
        ValueError,
        "camera_motion: iterations must be a positive number, got 0",
    ),
    "camera motion into means": (
        lambda: ops.camera_motion(FLOW, out=torch.zeros(2, 3, 2)),
        ValueError,
        r"camera_motion: out must be of shape \[2, 3, 2, 3\]",
    ),
    "mean of a field of 1 dimension": (lambda: ops.mean_flow(torch.zeros(3)), ValueError, "flow must be"),
    "sizes of floats": (lambda: ops.random_windows(torch.zeros(2, 2), 4, seed=0), TypeError, "sizes must be integers"),
    "sizes of three columns": (lambda: ops.ten_crop_windows([[8, 9, 3]], 4), ValueError, "sizes must be of shape"),
    "sizes below the window": (
        lambda: ops.random_windows([[8, 9], [3, 9]], 4, seed=0),
        ValueError,
        r"sizes\[1\] must be at least the window's size, 4x4, got 3x9",
    ),
    "flip above 1": (lambda: ops.random_windows([[8, 9]], 4, flip=1.5, seed=0), ValueError, "flip must be a probab"),
    "flip of nan": (lambda: ops.random_windows([[8, 9]], 4, flip=float("nan"), seed=0), ValueError, "flip must be"),
    "maps not a tensor": (lambda: ops.local_response_norm(3), TypeError, "x must be a tensor"),
    "maps of 2 dimensions": (
        lambda: ops.local_response_norm(torch.zeros(2, 3)),
        ValueError,
        r"local_response_norm: x must be of at least 3 dimensions, \[N, C, ...\], got \[2, 3\]",
    ),
    "maps of float64": (
        lambda: ops.local_response_norm(MAPS.double()),
        TypeError,
        "local_response_norm: x must be float32, float16 or bfloat16, got float64",
    ),
    "maps of uint8": (lambda: ops.local_response_norm(MAPS.byte()), TypeError, "x must be float32.* got uint8"),
    "no channels in a window": (
        lambda: ops.local_response_norm(MAPS, 0),
        ValueError,
        "local_response_norm: size must be a positive number of channels, got 0",
    ),
    "normalised out of another shape": (
        lambda: ops.local_response_norm(MAPS, out=torch.zeros(2, 3, 4, 4)),
        ValueError,
        r"local_response_norm: out must be of shape \[2, 3, 4, 5\], got \[2, 3, 4, 4\]",
    ),
    "normalised out of fewer dimensions": (
        lambda: ops.local_response_norm(MAPS, out=torch.zeros(2)),
        ValueError,
        r"out must be of shape \[2, 3, 4, 5\], got \[2\]",
    ),
    "normalised out of another dtype": (
        lambda: ops.local_response_norm(MAPS, out=MAPS.half()),
        TypeError,
        "local_response_norm: out must be of the dtype of x, float32, got float16",
    ),
    "normalised in place": (
        lambda: ops.local_response_norm(MAPS, out=MAPS),
        ValueError,
        "local_response_norm: out must be in memory of its own",
    ),
    "gradient of another shape": (
        lambda: torch.ops.twostream.local_response_norm_backward(MAPS[:1], MAPS, 5, 1.0, 0.75, 1.0),
        ValueError,
        r"local_response_norm_backward: grad must be of shape \[2, 3, 4, 5\], got \[1,",
    ),
    "gradient of another dtype": (
        lambda: torch.ops.twostream.local_response_norm_backward(MAPS.half(), MAPS, 5, 1.0, 0.75, 1.0),
        TypeError,
        "local_response_norm_backward: grad must be of the dtype of x, float32, got float16",
    ),
    "window of zero": (lambda: ops.ten_crop_windows([[8, 9]], 0), ValueError, "size must be a positive"),
    "window below zero": (
        lambda: ops.random_windows([[8, 9]], -4, seed=0),
        ValueError,
        "size must be a positive.*got -4",
    ),
    "window of 2^40": (
        lambda: ops.ten_crop_windows([[2**41] * 2], 2**40),
        ValueError,
        "ten_crop_windows: size must be a positive",
    ),
    "sizes of 2^40": (lambda: ops.ten_crop_windows([[2**40, 9]], 4), ValueError, r"sizes\[0\] must be"),
    "sizes below zero": (lambda: ops.random_windows([[-8, -9]], 4, seed=0), ValueError, r"sizes\[0\].*got -8x-9"),
    "drawn into int64": (
        lambda: ops.random_windows([[8, 9]], 4, seed=0, out=WINDOWS[:1].long()),
        TypeError,
        "random_windows: out must be int32",
    ),
    "drawn into another batch": (
        lambda: ops.random_windows([[8, 9]], 4, seed=0, out=WINDOWS),
        ValueError,
        "random_windows: out must be as long as sizes",
    ),
    "flow of None": (lambda: stack(flow=None), TypeError, "flow_stack: flow must be a tensor.*NoneType"),
    "flow of a string": (lambda: stack(flow="flow"), TypeError, "flow_stack: flow must be a tensor.*str"),
    "flow of strings": (lambda: stack(flow=["flow"]), TypeError, r"flow_stack: flow\[0\] must be a tensor.*str"),
    "flow of lists of tensors": (
        lambda: stack(flow=[[FLOW]]),
        TypeError,
        r"flow_stack: flow\[0\] must be a tensor.*list",
    ),
    "flow of bool": (lambda: stack(flow=FLOW.bool()), TypeError, "flow_stack: flow must be uint8.*got bool"),
    "flow of complex": (lambda: stack(flow=FLOW.to(torch.complex64)), TypeError, "flow_stack: flow must be uint8"),
    "flow of 0 dimensions": (lambda: stack(flow=torch.tensor(1.0)), ValueError, "flow_stack: flow must be"),
    "flow of 2^31 fields": (
        lambda: stack(flow=torch.zeros(0, 1, 1, 1, 2).expand(0, 2**31, 1, 1, 2), windows=WINDOWS[:0], size=1),
        ValueError,
        "every dimension from 1",
    ),
    "windows of None": (lambda: stack(windows=None), TypeError, "windows must be a tensor.*NoneType"),
    "windows of a string": (lambda: stack(windows="windows"), TypeError, "windows must be a tensor.*str"),
    "windows of complex": (lambda: stack(windows=WINDOWS.to(torch.complex64)), TypeError, "windows must be int32"),
    "windows of bool": (lambda: stack(windows=WINDOWS.bool()), TypeError, "windows must be int32, got bool"),
    "several windows of another batch": (
        lambda: stack(windows=WINDOWS.expand(3, 2, 3)),
        ValueError,
        r"windows must be of shape \[2, \*, 3\]",
    ),
    "mean of 0 dimensions": (lambda: stack(mean=torch.tensor(1.0)), ValueError, "mean must be of shape"),
    "mean of another batch": (lambda: stack(mean=RANGES[:1]), ValueError, "mean must be of shape"),
    "out of 0 dimensions": (lambda: stack(out=torch.tensor(1.0)), ValueError, "out must be of shape"),
    "out of another batch": (lambda: stack(out=torch.zeros(3, 6, 4, 4)), ValueError, r"shape \[2, 6, \*, \*\]"),
    "out of another number of windows": (
        lambda: stack(windows=WINDOWS[:, None], out=torch.zeros(2, 4, 6, 4, 4)),
        ValueError,
        r"out must be of shape \[2, 1, 6,",
    ),
    "out larger than the field": (
        lambda: stack(size=9, out=torch.zeros(2, 6, 9, 9)),
        ValueError,
        "size must be at most",
    ),
    "out of another size": (
        lambda: stack(size=5, out=torch.zeros(2, 6, 4, 4)),
        ValueError,
        r"flow_stack: size must be the height and width of out, \[2, 6, 4, 4\], got 5x5",
    ),
    "out of a string": (lambda: stack(out="out"), TypeError, "flow_stack: out must be a tensor.*str"),
    "frames of 0 dimensions": (lambda: frames(torch.tensor(1.0)), ValueError, "crop_frames: frames must be"),
    "frames of bool": (lambda: frames(FRAMES.bool()), TypeError, "frames.* got bool"),
    "frames of an empty list": (lambda: frames([]), ValueError, "crop_frames: frames must be"),
    "std below zero": (lambda: frames(std=[1, -1, 1]), ValueError, "std must be positive"),
    "codes of 0 dimensions": (
        lambda: ops.dequantize_flow(torch.tensor(1, dtype=torch.uint8), RANGES, RANGES),
        ValueError,
        "dequantize_flow: codes must be",
    ),
    "codes without a range": (lambda: ops.dequantize_flow(CODES, None, RANGES), TypeError, "lo must be a tensor"),
    "codes of an empty list": (lambda: ops.dequantize_flow([], RANGES, RANGES), ValueError, "codes must be a tensor"),
    "mean into another batch": (
        lambda: ops.mean_flow(FLOW, out=torch.zeros(3, 3, 2)),
        ValueError,
        "mean_flow: out must be of shape",
    ),
    "mean into gaps": (
        lambda: ops.mean_flow(FLOW, out=torch.zeros(2, 3, 4)[..., :2]),
        ValueError,
        "mean_flow: out must be contiguous",
    ),
    "mean into an expanded tensor": (
        lambda: ops.mean_flow(FLOW, out=torch.zeros(1, 3, 2).expand(2, 3, 2)),
        ValueError,
        "mean_flow: out must be contiguous",
    ),
    "frames of other sizes": (lambda: tvl1(following=GREYS[:, 1:]), ValueError, r"tvl1_flow: prev and next must be al"),
    "frames of other dtypes": (
        lambda: tvl1(following=GREYS.float()),
        ValueError,
        r"got \[2, 8, 9\] torch.uint8",
    ),
    "frames in colour": (lambda: tvl1(FRAMES, FRAMES), ValueError, r"tvl1_flow: .* \[N, H, W\].*got \[2, 8, 9, 3\]"),
    "frames of int64": (
        lambda: tvl1(GREYS.long(), GREYS.long()),
        TypeError,
        "tvl1_flow: prev must be uint8 or f.*got int64",
    ),
    "frames of float16": (lambda: tvl1(GREYS.half(), GREYS.half()), TypeError, "tvl1_flow: prev must be uint8"),
    "frames without pixels": (
        lambda: tvl1(GREYS[:, :0], GREYS[:, :0]),
        ValueError,
        "tvl1_flow: prev must be .*one pixel",
    ),
    "lists of frames of two lengths": (
        lambda: tvl1([GREYS[0]], [GREYS[0]] * 2),
        ValueError,
        "as many frames, got 1 and 2",
    ),
    "a clip of one frame's shape": (lambda: ops.tvl1_clip_flow(GREYS[0]), ValueError, r"clip must be .* got \[8, 9\]"),
    "tau of 0": (lambda: tvl1(tau=0.0), ValueError, "tvl1_flow: tau must be a positive number, got 0.0"),
    "a negative lambda": (lambda: tvl1(lambda_=-1.0), ValueError, "tvl1_flow: lambda_ must be a positive number"),
    "theta that is no number": (lambda: tvl1(theta=float("nan")), ValueError, "tvl1_flow: theta must be a positive"),
    "a negative epsilon": (lambda: tvl1(epsilon=-0.1), ValueError, "tvl1_flow: epsilon must be a number from 0"),
    "no scales": (lambda: tvl1(scales=0), ValueError, "tvl1_flow: scales must be a positive number, got 0"),
    "no warps": (lambda: tvl1(warps=0), ValueError, "tvl1_flow: warps must be"),
    "no iterations": (lambda: tvl1(iterations=0), ValueError, "tvl1_flow: iterations must be"),
    "a negative finest scale": (
        lambda: tvl1(finest_scale=-1),
        ValueError,
        "finest_scale must be a number from 0, got -1",
    ),
    "a scale step of 1": (lambda: tvl1(scale_step=1.0), ValueError, "scale_step must be at least 0.1 and below 1"),
    "a median of 4": (lambda: tvl1(median=4), ValueError, "tvl1_flow: median must be 0, 3 or 5, got 4"),
    "a median every 0": (lambda: tvl1(median=5, median_every=0), ValueError, "median_every must be a positive"),
    "init of another size": (
        lambda: tvl1(init=torch.zeros(2, 8, 8, 2)),
        ValueError,
        "tvl1_flow: init must be of",
    ),
    "init of float64": (lambda: tvl1(init=torch.zeros(2, 8, 9, 2).double()), TypeError, "init must be float32"),
    "flow into float16": (
        lambda: tvl1(out=torch.zeros(2, 8, 9, 2).half()),
        TypeError,
        "tvl1_flow: out must be float",
    ),
    "flow into an expanded tensor": (
        lambda: tvl1(out=torch.zeros(1, 8, 9, 2).expand(2, 8, 9, 2)),
        ValueError,
        "tvl1_flow: out must be no dimension that is expanded",
    ),
    "pairs of int64": (lambda: tvl1_of_pairs(pairs=INDICES.long()), TypeError, "pairs must be int32, got int64"),
    "pairs of three": (lambda: tvl1_of_pairs(pairs=INDICES[:, [0, 1, 1]]), ValueError, "tvl1_flow: pairs must be of s"),
    "pairs of no frames": (lambda: tvl1_of_pairs(GREYS[:0]), ValueError, "prev must be at least one frame"),
    "codes with a bound of 1e39": (
        lambda: ops.quantize_flow(FLOW, bound=1e39),
        ValueError,
        "bound must be a positive finite",
    ),
}
# Tensors of kinds that torch sends to no kernel of ours.
TORCH_CASES = {
    "sparse flow": lambda: stack(flow=FLOW.to_sparse()),
    "sparse out": lambda: stack(out=torch.zeros(2, 6, 4, 4).to_sparse()),
    "flow of torch's quantised dtype": lambda: stack(flow=torch.quantize_per_tensor(FLOW, 0.1, 0, torch.quint8)),
}


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    call, kind, words = CASES[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*quantiz.*:UserWarning")
@pytest.mark.parametrize("case", TORCH_CASES)
def test_backends_without_the_operators(case):
    with pytest.raises(ValueError, match=r"flow_stack: (flow|out) must be dense"):
        TORCH_CASES[case]()


def test_meta_tensors_get_a_shape():
    stack_of_none = stack(flow=FLOW.to("meta"), windows=WINDOWS.to("meta"))
    assert stack_of_none.is_meta
    assert stack_of_none.shape == (2, 6, 4, 4)
    assert ops.mean_flow(FLOW.to("meta")).shape == (2, 3, 2)


def test_views_that_torch_negates_on_reading():
    flow = torch.randn(2, 3, 8, 9, 2)
    assert torch.equal(stack(torch._neg_view(flow)), stack(-flow))
