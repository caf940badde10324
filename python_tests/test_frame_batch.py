# SPDX-License-Identifier: BSD-3-Clause
"""Frames of different sizes in one buffer."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from twostream_ext import ops
from twostream_ext.media import FrameBatch, FrameStore, read_frame_batch, write_frame_clip

SIZES = [(6, 7), (9, 5), (8, 8)]
WINDOWS = torch.tensor([[1, 2, 1], [4, 0, 0], [0, 3, 1]], dtype=torch.int32)
COLOURS = {"mean": (100, 110, 120), "std": (50, 60, 70)}


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def test_a_kernel_takes_the_frames_of_a_batch_and_of_its_parts(device: str) -> None:
    frames = [torch.from_numpy(each).to(device) for each in pictures()]
    batch, windows = FrameBatch.pack(pictures()).to(device), WINDOWS.to(device)
    whole = ops.crop_frames(batch.frames, windows, 5, **COLOURS)
    assert torch.equal(whole, ops.crop_frames(frames, windows, 5, **COLOURS))
    for first, last in ((0, 1), (1, 3), (2, 9)):
        part = batch.part(first, last)
        assert part.buffer is batch.buffer
        assert part.sizes == tuple(SIZES[first:last])
        assert torch.equal(ops.crop_frames(part.frames, windows[first:last], 5, **COLOURS), whole[first:last])


def test_frames_lie_in_one_buffer_that_is_pickled_alone() -> None:
    batch = FrameBatch.pack(pictures())
    begin, end = batch.buffer.data_ptr(), batch.buffer.data_ptr() + batch.buffer.numel()
    assert all(begin <= frame.data_ptr() < end and (frame.data_ptr() - begin) % 64 == 0 for frame in batch.frames)
    data = pickle.dumps(batch.part(1, 3))
    assert len(data) < batch.buffer.numel() + 2000
    again = pickle.loads(data).part(1, 2)
    assert torch.equal(again.frames[0], torch.from_numpy(pictures()[2]))


def test_runs_are_read_from_a_store(tmp_path: Path) -> None:
    for name, size in (("a", (16, 24)), ("b", (20, 18))):
        write_frame_clip(tmp_path / f"{name}.safetensors", [np.full((*size, 3), 20 * n, np.uint8) for n in range(6)])
    store = FrameStore.open(tmp_path)
    batch = read_frame_batch([store["a"], store["b"], store["a"]], [1, 3, 0], 3)
    assert batch.sizes == ((16, 24), (20, 18), (16, 24))
    assert [round(frame.float().mean().item() / 20) for frame in batch.frames] == [1, 2, 3, 3, 4, 5, 0, 1, 2]
    part = batch.part(1, 2)
    assert [tuple(frame.shape) for frame in part.frames] == [(20, 18, 3)] * 3
    assert torch.equal(part.frames[1], torch.from_numpy(store["b"].read(4)))
    with pytest.raises(IndexError, match="a: frame 6 of 6 was asked for"):
        read_frame_batch([store["a"]], [4], 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_pinned_batch_goes_to_the_device_with_one_copy() -> None:
    batch = FrameBatch.pack(pictures()).pin_memory()
    assert batch.buffer.is_pinned()
    moved = batch.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(moved.frames[2].cpu(), torch.from_numpy(pictures()[2]))


def test_wrong_frames_are_named() -> None:
    with pytest.raises(ValueError, match="sizes and length must be at least 1"):
        FrameBatch.pack([])
    with pytest.raises(ValueError, match=r"alike in a sample, got torch.uint8 \[9, 5, 3\]"):
        FrameBatch.pack(pictures()[:2], 2)
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], .*got torch.float32"):
        FrameBatch.pack([torch.zeros(4, 5, 3)])
