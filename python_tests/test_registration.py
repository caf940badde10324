# SPDX-License-Identifier: BSD-3-Clause
"""The operators as torch sees them: fake kernels, schemas, torch.compile, torch.export."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from twostream_ext import ops

CODES = torch.randint(0, 256, (2, 3, 12, 14, 2), dtype=torch.uint8)
FLOW = torch.randn(2, 3, 12, 14, 2)
RANGES = torch.rand(2, 3, 2)
CAMERA = torch.rand(2, 3, 2, 3)
WINDOWS = torch.tensor([[0, 1, 1], [2, 0, 0]], dtype=torch.int32)
SIZES = torch.tensor([[12, 14], [11, 12]])
FRAMES = torch.randint(0, 256, (2, 12, 14, 3), dtype=torch.uint8)
MAPS = torch.randn(2, 6, 5, 7)
MAPS_LAST = MAPS.to(memory_format=torch.channels_last)
NORM = (5, 5e-4, 0.75, 2.0)
GREYS = torch.randint(0, 256, (3, 18, 20), dtype=torch.uint8)
TVL1 = (0.25, 0.15, 0.3, 2, 0.9, 1, 1, 0.01, 3, 3, 2, 255.0)
COLOUR = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])

twostream = torch.ops.twostream
CASES = {
    "flow_stack": (
        twostream.flow_stack.default,
        ([CODES], WINDOWS, [8, 9], RANGES, RANGES, True, None, None, torch.float16, False),
    ),
    "flow_stack list": (
        twostream.flow_stack.default,
        ([FLOW[0], FLOW[1, :, :10]], WINDOWS[:, None], [8, 9], None, None, False, RANGES, None, torch.float32, True),
    ),
    "trajectory_stack": (
        twostream.trajectory_stack.default,
        ([CODES], WINDOWS, [8, 9], RANGES, RANGES, False, None, CAMERA, False, torch.float16, False),
    ),
    "trajectory_stack list": (
        twostream.trajectory_stack.default,
        (
            [FLOW[0, :2], FLOW[1, :2, :10]],
            WINDOWS[:, None],
            [8, 9],
            None,
            None,
            False,
            RANGES[:, :2].contiguous(),
            None,
            True,
            torch.float32,
            True,
        ),
    ),
    "trajectory_stack_backward": (
        twostream.trajectory_stack_backward.default,
        (torch.randn(2, 6, 8, 9), [FLOW], WINDOWS, CAMERA, False, False, True),
    ),
    "trajectory_stack_backward of the mean": (
        twostream.trajectory_stack_backward.default,
        (torch.randn(2, 6, 8, 9), [CODES], WINDOWS, None, False, False, False),
    ),
    "mean_flow": (twostream.mean_flow.default, ([CODES], RANGES, RANGES)),
    "camera_motion": (twostream.camera_motion.default, ([CODES], RANGES, RANGES, 3)),
    "quantize_flow": (twostream.quantize_flow.default, ([FLOW], 2.0)),
    "dequantize_flow": (twostream.dequantize_flow.default, ([CODES], RANGES, RANGES, torch.bfloat16)),
    "crop_frames": (
        twostream.crop_frames.default,
        ([FRAMES], WINDOWS, [8, 9], *COLOUR, torch.rand(2, 3), torch.float32, False),
    ),
    "local_response_norm": (twostream.local_response_norm.default, (MAPS, *NORM)),
    "local_response_norm channels-last": (twostream.local_response_norm.default, (MAPS_LAST, *NORM)),
    "local_response_norm transposed": (twostream.local_response_norm.default, (MAPS.transpose(2, 3), *NORM)),
    "local_response_norm_backward": (twostream.local_response_norm_backward.default, (MAPS + 1, MAPS, *NORM)),
    "local_response_norm_backward channels-last": (
        twostream.local_response_norm_backward.default,
        (MAPS + 1, MAPS_LAST, *NORM),
    ),
    "tvl1_flow": (twostream.tvl1_flow.default, ([GREYS[:2]], [GREYS[1:]], *TVL1, [])),
    "tvl1_flow of floats": (
        twostream.tvl1_flow.default,
        ([GREYS[0].float(), GREYS[1, 1:].float()], [GREYS[1].float(), GREYS[2, 1:].float()], *TVL1, []),
    ),
    "tvl1_flow from a start": (
        twostream.tvl1_flow.default,
        ([GREYS[:2]], [GREYS[1:]], *TVL1, [torch.randn(2, 18, 20, 2)]),
    ),
    "tvl1_clip_flow": (twostream.tvl1_clip_flow.default, (GREYS.float(), True, *TVL1)),
    "random_windows": (twostream.random_windows.default, (SIZES, [8, 9], 0.5, 3, 4)),
    "ten_crop_windows": (twostream.ten_crop_windows.default, (SIZES, [8, 9])),
}
OUT_CASES = {
    "flow_stack.out": (
        twostream.flow_stack.out,
        ([CODES], WINDOWS, RANGES, RANGES, False, None, CAMERA),
        {"out": torch.zeros(2, 6, 8, 9)},
    ),
    "trajectory_stack.out": (
        twostream.trajectory_stack.out,
        ([CODES], WINDOWS, RANGES, RANGES, True, None, None, False),
        {"out": torch.zeros(2, 6, 8, 9)},
    ),
    "flow_stack_backward": (
        twostream.flow_stack_backward.default,
        (torch.randn(2, 6, 8, 9), WINDOWS),
        {"out": [torch.zeros(2, 3, 12, 14, 2)]},
    ),
    "crop_frames_backward": (
        twostream.crop_frames_backward.default,
        (torch.randn(2, 3, 8, 9), WINDOWS, COLOUR[1]),
        {"out": [torch.zeros(12, 14, 3), torch.zeros(11, 13, 3)]},
    ),
    "mean_flow.out": (twostream.mean_flow.out, ([FLOW], None, None), {"out": torch.zeros(2, 3, 2)}),
    "camera_motion.out": (twostream.camera_motion.out, ([FLOW], None, None, 3), {"out": torch.zeros(2, 3, 2, 3)}),
    "crop_frames.out": (
        twostream.crop_frames.out,
        ([FRAMES], WINDOWS, *COLOUR, None),
        {"out": torch.zeros(2, 3, 8, 9)},
    ),
    "local_response_norm.out": (
        twostream.local_response_norm.out,
        (MAPS, *NORM),
        {"out": torch.zeros_like(MAPS_LAST)},
    ),
    "tvl1_flow.out": (
        twostream.tvl1_flow.out,
        ([GREYS[:2]], [GREYS[1:]], *TVL1, []),
        {"out": [torch.zeros(2, 18, 20, 2)]},
    ),
    "tvl1_clip_flow.out": (
        twostream.tvl1_clip_flow.out,
        (GREYS, False, *TVL1),
        {"out": torch.zeros(2, 18, 20, 2)},
    ),
    "random_windows.out": (
        twostream.random_windows.out,
        (SIZES, [8, 9], 0.5, 3, 4),
        {"out": torch.zeros(2, 3, dtype=torch.int32)},
    ),
    "ten_crop_windows.out": (
        twostream.ten_crop_windows.out,
        (SIZES, [8, 9]),
        {"out": torch.zeros(2, 10, 3, dtype=torch.int32)},
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_opcheck(case):
    operator, arguments = CASES[case]
    torch.library.opcheck(operator, arguments)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", OUT_CASES)
def test_opcheck_out(case):
    operator, arguments, keywords = OUT_CASES[case]
    torch.library.opcheck(operator, arguments, keywords)


class Pipeline(torch.nn.Module):
    def forward(self, flow, frames, sizes):
        codes, lo, step, mean = ops.quantize_flow(flow)
        windows = ops.random_windows(sizes, 8, seed=1)
        stack = ops.flow_stack(codes, windows, 8, lo=lo, step=step, mean=mean)
        camera = ops.camera_motion(codes, lo=lo, step=step)
        paths = ops.trajectory_stack(codes, windows, 8, lo=lo, step=step, camera=camera)
        restored = ops.dequantize_flow(codes, lo, step)
        colours = ops.crop_frames(frames, ops.ten_crop_windows(sizes, 8), 8, mean=COLOUR[0], std=COLOUR[1])
        normal = ops.local_response_norm(stack)
        return normal.sum(1), paths.sum(1), ops.mean_flow(restored), colours.mean(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile_traces_through():
    module, arguments = Pipeline(), (FLOW, FRAMES, SIZES)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(*arguments), module(*arguments), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_export():
    module, arguments = Pipeline(), (FLOW, FRAMES, SIZES)
    exported = torch.export.export(module, arguments)
    for got, expected in zip(exported.module()(*arguments), module(*arguments), strict=True):
        torch.testing.assert_close(got, expected)


def test_ops_import_nothing_but_torch(tmp_path):
    script = (
        "import sys, twostream_ext.ops\n"
        "heavy = {'cv2', 'sklearn', 'matplotlib', 'tensorboard', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
