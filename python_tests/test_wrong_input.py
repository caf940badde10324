# SPDX-License-Identifier: BSD-3-Clause
"""Each error of an operator names the operator, the argument, what came and what is wanted."""

from __future__ import annotations

import pytest
import torch

from twostream_ext import ops

FLOW = torch.zeros(2, 3, 8, 9, 2)
CODES = FLOW.to(torch.uint8)
RANGES = torch.zeros(2, 3, 2)
WINDOWS = torch.zeros(2, 3, dtype=torch.int32)
FRAMES = torch.zeros(2, 8, 9, 3, dtype=torch.uint8)
COLOUR = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def stack(flow=FLOW, windows=WINDOWS, size=4, **options):
    return ops.flow_stack(flow, windows, size, **options)


def trajectories(flow=FLOW, windows=WINDOWS, size=4, **options):
    return ops.trajectory_stack(flow, windows, size, **options)


def backward(gradient=(2, 6, 4, 4), flow=FLOW, windows=WINDOWS, flow_gradient=True, bidirectional=False):
    operator = torch.ops.twostream.trajectory_stack_backward
    return operator(torch.zeros(gradient), [flow], windows, False, bidirectional, flow_gradient)


def frames(images=FRAMES, windows=WINDOWS, size=4, **options):
    return ops.crop_frames(images, windows, size, **{**COLOUR, **options})


CASES = {
    "flow not a tensor": (lambda: stack(flow=3), TypeError, "expected a tensor"),
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
    "size of three": (lambda: stack(size=(4, 4, 4)), ValueError, "size must be a number or"),
    "size of zero": (lambda: stack(size=0), ValueError, "size"),
    "integer result": (lambda: stack(dtype=torch.int32), TypeError, "out must be float32, float16 or bfloat16"),
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
    "gradient of another shape": (
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
        "out.* must be float32",
    ),
    "dequantize into another size": (
        lambda: ops.dequantize_flow(CODES, RANGES, RANGES, out=torch.zeros(2, 3, 8, 8, 2)),
        ValueError,
        "out must be of the sizes of the first argument",
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
    "window of zero": (lambda: ops.ten_crop_windows([[8, 9]], 0), ValueError, "size must be two positive"),
}


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    call, kind, words = CASES[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
