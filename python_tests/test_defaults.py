# SPDX-License-Identifier: BSD-3-Clause
"""Torch's own defaults, which a program may have changed, change nothing of ours: all that we make names its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs
from test_extract import assert_same_files
from videos import moving_frames, write_video

from twostream_ext.data import FlowStacks, FrameRuns, Video, read_batches
from twostream_ext.extraction import extract
from twostream_ext.flow import METHODS, FlowStore, estimate_flow
from twostream_ext.media import FrameStore


@contextmanager
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device() -> Iterator[None]:
    """One that computes nothing stands for a GPU."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.fixture(params=[default_dtype, default_device])
def changed(request: pytest.FixtureRequest) -> Callable[[], Iterator[None]]:
    """A context in which torch has another default."""
    defaults: Callable[[], Iterator[None]] = request.param
    return defaults


@pytest.mark.parametrize("method", METHODS)
def test_extraction(tmp_path: Path, changed, method: str) -> None:  # type: ignore[no-untyped-def]
    frames = moving_frames(5)
    write_video(tmp_path / "videos" / "v.avi", frames)
    options = {"method": method, "backward": True, "progress": False, "workers": 2}
    extract(tmp_path / "videos", tmp_path / "flow", frames_out=tmp_path / "frames", **options)  # type: ignore[arg-type]
    grey = [frame[..., 1].copy() for frame in frames[:2]]
    expected = estimate_flow(grey[0], grey[1], method)
    with changed():
        extract(tmp_path / "videos", tmp_path / "flow2", frames_out=tmp_path / "frames2", **options)  # type: ignore[arg-type]
        found = estimate_flow(grey[0], grey[1], method)
    assert_same_files(tmp_path / "flow", tmp_path / "flow2")
    assert_same_files(tmp_path / "frames", tmp_path / "frames2")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_batches(tmp_path: Path, changed, workers: int) -> None:  # type: ignore[no-untyped-def]
    videos = training_runs.video_set(training_runs.make_store(tmp_path / "flow")).videos
    write_video(tmp_path / "videos" / "v.avi", moving_frames(5))
    extract(tmp_path / "videos", tmp_path / "other", frames_out=tmp_path / "frames", progress=False)
    numbers = {"batch_size": 3, "iterations": 4, "seed": 1, "workers": workers}

    def read() -> list[torch.Tensor]:
        flow = read_batches(FlowStore.open(tmp_path / "flow"), videos, FlowStacks(2), **numbers)  # type: ignore[arg-type]
        listed = [Video("v.avi", "v", 0)]
        frames = read_batches(FrameStore.open(tmp_path / "frames"), listed, FrameRuns(), **numbers)  # type: ignore[arg-type]
        return [
            *(part for item, labels in flow for part in (*item.fields, item.lo, item.step, item.mean, labels)),
            *(part for item, labels in frames for part in (*item.frames, labels)),
        ]

    expected = read()
    with changed():
        found = read()
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.device) == (other.dtype, other.device)
        assert torch.equal(one, other)
