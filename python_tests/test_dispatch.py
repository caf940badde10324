# SPDX-License-Identifier: BSD-3-Clause
"""The CPU operators give the same bits whatever the processor can do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from twostream_ext import _C

SCRIPT = """
import hashlib, torch
from twostream_ext import _C, ops

generator = torch.Generator().manual_seed(0)
flow = torch.randn(2, 3, 33, 47, 2, generator=generator) * 7
frames = torch.randint(0, 256, (2, 33, 47, 3), dtype=torch.uint8, generator=generator)
windows = ops.random_windows([[33, 47]] * 2, 29, seed=1)
quantized = ops.quantize_flow(flow)
codes, lo, step, mean = quantized
results = [*quantized, ops.mean_flow(flow), ops.mean_flow(codes, lo=lo, step=step)]
results += [ops.camera_motion(flow), ops.camera_motion(codes, lo=lo, step=step), ops.camera_motion(flow.half())]
results.append(ops.dequantize_flow(codes, lo, step))
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    results.append(ops.flow_stack(codes, windows, 29, lo=lo, step=step, mean=mean, dtype=dtype))
    results.append(ops.crop_frames(frames, windows, 29, mean=[1, 2, 3], std=[4, 5, 6], dtype=dtype))
for beta in (1.0, 0.6):  # 0.75 goes by approximate roots under AVX2: other bits
    maps = results[-1].reshape(2, -1, 29, 29).movedim(2, 1)
    for x in (maps.contiguous(), maps):
        results.append(ops.local_response_norm(x, 5, 0.1, beta))
        results.append(torch.ops.twostream.local_response_norm_backward(x, x, 4, 0.1, beta, 1.0))
planar = codes.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
straight = flow.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
strange = flow.permute(3, 0, 1, 4, 2).contiguous().permute(1, 2, 4, 0, 3)
narrow = [flow[0, :, :, :1], flow[1, :, :, :3], codes[0, :, :, :1], codes[1, :, :, :3]]
narrow += [straight[0, :, :, :2], planar[0, :, :, :2], planar[1, :, :, :5], straight[1, :, :, :2].bfloat16()]
spoiled = flow.clone()
spoiled[0, 1, 5:9, 7:30, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e38])[:, None]
codings = {"lo": lo, "step": step, "mean": mean}
halves = [flow.half(), flow.bfloat16(), straight.half(), spoiled.half()]
for fields in (codes, planar, flow, straight, strange, spoiled, *halves):
    coding = codings if fields.dtype == torch.uint8 else {}
    for stack in (ops.flow_stack, ops.trajectory_stack):
        coding_alone = {name: table for name, table in coding.items() if name != "mean"}
        results.append(stack(fields, windows, 29, camera=ops.camera_motion(flow), **coding_alone).nan_to_num())
    for channels_last in (False, True):
        results.append(ops.trajectory_stack(fields, windows, 29, channels_last=channels_last, **coding).nan_to_num())
for fields in narrow:
    coding = {"lo": lo[:1], "step": step[:1]} if fields.dtype == torch.uint8 else {}
    size = (fields.shape[1], fields.shape[2])
    results.append(ops.trajectory_stack(fields[None], windows[:1] * 0, size, **coding))
differentiable = flow.clone().requires_grad_()
ops.trajectory_stack(differentiable, windows, 29, subtract_mean=True).square().sum().backward()
results.append(differentiable.grad)
digest = hashlib.sha256()
for result in results:
    digest.update(result.contiguous().view(torch.uint8).numpy().tobytes())
print(_C.cpu_isa(), digest.hexdigest())
"""


def run(tmp_path, **variables):
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(_C.cpu_isa() != "avx2", reason="this processor has the baseline alone")
def test_avx2_and_baseline_agree_to_the_bit(tmp_path):
    best, digest = run(tmp_path)
    baseline, same = run(tmp_path, TWOSTREAM_ISA="baseline")
    assert (best, baseline) == ("avx2", "baseline")
    assert digest == same


APPROXIMATE = """
import sys, torch
from twostream_ext import ops

x = torch.randn(2, 9, 13, 15, generator=torch.Generator().manual_seed(0)) * 20
x.requires_grad_()
result = ops.local_response_norm(x)
result.square().sum().backward()
torch.save([result.detach(), x.grad], sys.argv[1])
"""


@pytest.mark.skipif(_C.cpu_isa() != "avx2", reason="this processor has the baseline alone")
def test_avx2_roots_stay_close_to_exact_ones(tmp_path):
    results = []
    for variables in ({}, {"TWOSTREAM_ISA": "baseline"}):
        path = tmp_path / "result.pt"
        command = [sys.executable, "-c", APPROXIMATE, str(path)]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, check=True)
        results.append(torch.load(path, weights_only=True))
    for fast, exact in zip(*results, strict=True):
        torch.testing.assert_close(fast, exact, rtol=2e-6, atol=2e-6 * exact.abs().max().item())
