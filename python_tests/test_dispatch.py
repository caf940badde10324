# SPDX-License-Identifier: BSD-3-Clause
"""The CPU operators give the same bits whatever the processor can do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
results.append(ops.dequantize_flow(codes, lo, step))
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    results.append(ops.flow_stack(codes, windows, 29, lo=lo, step=step, mean=mean, dtype=dtype))
    results.append(ops.crop_frames(frames, windows, 29, mean=[1, 2, 3], std=[4, 5, 6], dtype=dtype))
for beta in (0.75, 0.6):
    maps = results[-1].reshape(2, -1, 29, 29).movedim(2, 1)
    for x in (maps.contiguous(), maps):
        results.append(ops.local_response_norm(x, 5, 0.1, beta))
        results.append(torch.ops.twostream.local_response_norm_backward(x, x, 4, 0.1, beta, 1.0))
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
