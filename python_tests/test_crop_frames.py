# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import crop_frames as reference_crop
from strategies import FLOATS, crops, frame_batches

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
MEAN, STD = [123.68, 116.78, 103.94], [58.4, 57.1, 57.4]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@per_device
@given(data=st.data())
def test_against_the_formula(device, data):
    batch = data.draw(frame_batches())
    size, windows = data.draw(crops(batch, rows_axis=0))
    dtype, channels_last = data.draw(st.sampled_from(FLOATS)), data.draw(st.booleans())
    frames, _, _ = batch.to(device)
    shift = torch.randn(len(batch.samples), 3) if data.draw(st.booleans()) else None
    result = ops.crop_frames(
        frames,
        torch.from_numpy(windows).to(device),
        size,
        mean=MEAN,
        std=STD,
        shift=None if shift is None else shift.to(device),
        dtype=dtype,
        channels_last=channels_last,
    )
    moved = np.zeros((len(batch.samples), 3)) if shift is None else shift.double().numpy()
    expected = reference_crop(batch.values, windows, size, MEAN, STD, moved)
    error = np.abs(result.double().cpu().numpy() - expected) / (np.abs(expected) + 5)
    assert error.max() <= TOLERANCE[dtype]


def test_single_windows_out_and_memory_format(device):
    frames = torch.randint(0, 256, (2, 9, 8, 3), dtype=torch.uint8, device=device)
    windows = torch.tensor([[0, 1, 1], [2, 0, 0]], dtype=torch.int32, device=device)
    result = ops.crop_frames(frames, windows, 7, mean=MEAN, std=STD)
    several = ops.crop_frames(frames, windows[:, None], 7, mean=MEAN, std=STD)
    assert torch.equal(result, several[:, 0])
    out = torch.full((2, 3, 7, 7), torch.nan, device=device).to(memory_format=torch.channels_last)
    assert ops.crop_frames(frames, windows, 7, mean=MEAN, std=STD, out=out) is out
    assert torch.equal(out, result)
    last = ops.crop_frames(frames, windows, 7, mean=MEAN, std=STD, channels_last=True)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, result)


def test_cpu_and_cuda_kernels_agree_to_the_bit(cuda_on_host):
    frames = torch.randint(0, 256, (2, 12, 13, 3), dtype=torch.uint8)
    windows = torch.tensor([[1, 2, 1], [0, 4, 0]], dtype=torch.int32)
    shift = torch.randn(2, 3)
    for dtype in FLOATS:
        expected = ops.crop_frames(frames, windows, 9, mean=MEAN, std=STD, shift=shift, dtype=dtype)
        out = torch.empty_like(expected)
        cuda_on_host.crop_frames([frames], windows, MEAN, STD, shift, out)
        assert torch.equal(out, expected)
