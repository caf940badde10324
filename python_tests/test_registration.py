# SPDX-License-Identifier: BSD-3-Clause
"""The operators as torch sees them: fake kernels, schemas, torch.compile, torch.export."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from compilers import BACKENDS, BACKENDS_IF_SLOW
from operators import CASES as CASES_BY_NAME
from operators import EXAMPLES, cases, flattened
from torch._dynamo.utils import counters

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


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_compile_traces_through(backend):
    module, arguments = Pipeline(), (FLOW, FRAMES, SIZES)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for got, expected in zip(compiled(*arguments), module(*arguments), strict=True):
        torch.testing.assert_close(got, expected)


# No two lengths of the first are the same, which torch.compile would take for one that is always shared.
OTHER_SIZES = [cases(9, 11, (5, 6)), cases(12, 17, (8, 4)), cases(15, 10, (6, 9))]
# Samples, fields, height, width; from 4096 numbers on inductor sums in another way, for which it makes another graph.
OTHER_BATCHES = [(5, 4, 12, 14), (2, 3, 9, 16), (4, 6, 20, 11)]
OF_EACH_OPERATOR = {name: [each for each in CASES_BY_NAME if CASES_BY_NAME[each].operator == name] for name in EXAMPLES}


def unique_graphs() -> int:
    """How many graphs torch.compile has made since the counters were cleared."""
    return counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", [names[place] for names in OF_EACH_OPERATOR.values() for place in {0, len(names) - 1}])
def test_other_sizes_are_not_compiled_again(case):
    counters.clear()
    compiled = torch.compile(
        getattr(ops, OTHER_SIZES[0][case].operator), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for each in OTHER_SIZES:
        call = each[case]
        got = compiled(**call.tensors, **call.options)
        torch.testing.assert_close(flattened(got), flattened(call()))
    assert unique_graphs() == 1


def inputs_of(samples: int, length: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sizes = torch.tensor([[height, width]] * samples)
    return torch.randn(samples, length, height, width, 2), torch.rand(samples, height, width, 3), sizes


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS_IF_SLOW)
def test_other_batches_lengths_and_sizes_are_not_compiled_again(backend):
    counters.clear()
    module = Pipeline()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for size in OTHER_BATCHES:
        arguments = inputs_of(*size)
        torch.testing.assert_close(compiled(*arguments), module(*arguments))
    assert unique_graphs() == 1


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS_IF_SLOW)
def test_gradients_of_other_sizes_are_not_compiled_again(backend):
    def loss(flow, frames, windows):
        stack = ops.flow_stack(flow, windows, 8, subtract_mean=True)
        paths = ops.trajectory_stack(flow, windows, 8)
        colours = ops.crop_frames(frames, windows, 8, mean=COLOUR[0], std=COLOUR[1])
        return ops.local_response_norm(stack).sin().sum() + paths.cos().sum() + colours.sin().sum()

    counters.clear()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=backend)
    for size in OTHER_BATCHES:
        flow, frames, sizes = inputs_of(*size)
        inputs = (flow.requires_grad_(), frames.requires_grad_())
        windows = ops.random_windows(sizes, 8, seed=2)
        got = torch.autograd.grad(compiled(*inputs, windows), inputs)
        expected = torch.autograd.grad(loss(*inputs, windows), inputs)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert unique_graphs() == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_export():
    module, arguments = Pipeline(), (FLOW, FRAMES, SIZES)
    exported = torch.export.export(module, arguments)
    for got, expected in zip(exported.module()(*arguments), module(*arguments), strict=True):
        torch.testing.assert_close(got, expected)


IN_A_FRESH_PROCESS = """
import sys, torch, twostream_ext.ops
program = torch.export.load(sys.argv[1]).module()
torch.save([program(*arguments) for arguments in torch.load(sys.argv[2])], sys.argv[3])
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_program_gives_the_same_results_in_a_fresh_process(tmp_path):
    """Batches of any number and length and fields of any size, from a file, in a process that never saw the module."""
    batches = [inputs_of(*size) for size in OTHER_BATCHES]
    samples, length, height, width = (torch.export.Dim(name) for name in ("samples", "length", "height", "width"))
    shapes = ({0: samples, 1: length, 2: height, 3: width}, {0: samples, 1: height, 2: width}, {0: samples})
    exported = torch.export.export(Pipeline(), batches[0], dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "pipeline.pt2")
    torch.save(batches, tmp_path / "batches.pt")
    script = ["-W", "ignore::DeprecationWarning", "-c", IN_A_FRESH_PROCESS]
    files = [str(tmp_path / name) for name in ("pipeline.pt2", "batches.pt", "results.pt")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, *script, *files], cwd=tmp_path, env=environment, check=True, timeout=120)
    for got, arguments in zip(torch.load(tmp_path / "results.pt"), batches, strict=True):
        torch.testing.assert_close(got, Pipeline()(*arguments), rtol=0, atol=0)


def test_ops_import_nothing_but_torch(tmp_path):
    script = (
        "import sys, twostream_ext.ops\n"
        "heavy = {'cv2', 'sklearn', 'matplotlib', 'tensorboard', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
