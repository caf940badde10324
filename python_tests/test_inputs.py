# SPDX-License-Identifier: BSD-3-Clause
"""Inputs of the nets against NumPy, with windows found by trying them all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from twostream_ext.data.batches import FlowBatchItem, FrameBatchItem
from twostream_ext.engine.inputs import (
    RGB_MEAN,
    RGB_STD,
    colour_jitter,
    flow_input,
    flow_views,
    frame_input,
    frame_views,
)
from twostream_ext.errors import SettingsError

SIZES = [(9, 12), (8, 8), (11, 9)]
SIZE = 7
LENGTH = 3


def flow_item() -> FlowBatchItem:
    random = np.random.default_rng(0)
    flow = [random.integers(0, 256, (LENGTH, *size, 2), dtype=np.uint8) for size in SIZES]
    shape = (len(SIZES), LENGTH, 2)
    lo = random.uniform(-20, 0, shape).astype(np.float32)
    step = random.uniform(0.01, 0.2, shape).astype(np.float32)
    mean = np.stack([lo[n] + step[n] * flow[n].mean((1, 2)) for n in range(len(SIZES))])
    labels = torch.tensor([4, 0, 2])
    return FlowBatchItem(
        [torch.from_numpy(f) for f in flow],
        torch.from_numpy(lo),
        torch.from_numpy(step),
        torch.from_numpy(mean.astype(np.float32)),
        labels,
    )


def frame_item() -> FrameBatchItem:
    random = np.random.default_rng(1)
    frames = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    return FrameBatchItem([torch.from_numpy(f) for f in frames], torch.tensor([1, 3, 5]))


def all_windows(height: int, width: int) -> list[tuple[int, int, int]]:
    tops, lefts = range(height - SIZE + 1), range(width - SIZE + 1)
    return list(itertools.product(tops, lefts, (0, 1)))


def flow_reference(item: FlowBatchItem, sample: int, window: tuple[int, int, int]) -> np.ndarray:
    """Paper, equation 1: x and y by turns; minus the mean of the whole field; a flip negates x."""
    top, left, flip = window
    pixels = (
        item.lo[sample, :, None, None].double() + item.step[sample, :, None, None].double() * item.flow[sample].double()
    ).numpy()
    pixels = pixels - pixels.mean((1, 2), keepdims=True)
    pixels = pixels[:, top : top + SIZE, left : left + SIZE]
    if flip:
        pixels = pixels[:, :, ::-1] * np.array([-1.0, 1.0])
    return pixels.transpose(0, 3, 1, 2).reshape(2 * LENGTH, SIZE, SIZE)


def frame_reference(item: FrameBatchItem, sample: int, window: tuple[int, int, int]) -> np.ndarray:
    top, left, flip = window
    pixels = item.frames[sample].numpy().astype(np.float64)
    pixels = pixels[top : top + SIZE, left : left + SIZE]
    pixels = pixels[:, ::-1] if flip else pixels
    return ((pixels - RGB_MEAN) / RGB_STD).transpose(2, 0, 1)


def found_window(item: FlowBatchItem, sample: int, result: Tensor) -> tuple[int, int, int]:
    """The one window of the sample that gives this result."""
    matches = [
        window
        for window in all_windows(*SIZES[sample])
        if np.allclose(flow_reference(item, sample, window), result.numpy(), atol=1e-4)
    ]
    assert len(matches) == 1
    return matches[0]


def test_flow_for_training_is_a_random_window_of_the_whole_field() -> None:
    item = flow_item()
    seen = []
    for iteration in range(150):
        inputs, labels = flow_input(item, size=SIZE, seed=5, offset=3 * iteration)
        assert inputs.shape == (3, 2 * LENGTH, SIZE, SIZE)
        assert inputs.dtype == torch.float32
        assert torch.equal(labels, item.labels)
        seen.append(found_window(item, 1, inputs[1]))
        if iteration < 3:
            found_window(item, 0, inputs[0])
            found_window(item, 2, inputs[2])
    assert set(seen) == set(all_windows(*SIZES[1]))  # 8 windows; one is missed with 1e-8


def test_the_same_seed_and_offset_give_the_same_inputs() -> None:
    item, frames = flow_item(), frame_item()
    for make, batch in ((flow_input, item), (frame_input, frames)):
        first = make(batch, size=SIZE, seed=1, offset=2)[0]  # type: ignore[operator]
        assert torch.equal(first, make(batch, size=SIZE, seed=1, offset=2)[0])  # type: ignore[operator]
        assert not torch.equal(first, make(batch, size=SIZE, seed=1, offset=3)[0])  # type: ignore[operator]
        assert not torch.equal(first, make(batch, size=SIZE, seed=2, offset=2)[0])  # type: ignore[operator]


def test_inputs_do_not_depend_on_how_a_batch_is_split() -> None:
    flow, frames = flow_item(), frame_item()
    first = FlowBatchItem(flow.flow[:1], flow.lo[:1], flow.step[:1], flow.mean[:1], flow.labels[:1])
    rest = FlowBatchItem(flow.flow[1:], flow.lo[1:], flow.step[1:], flow.mean[1:], flow.labels[1:])
    whole = flow_input(flow, size=SIZE, seed=1, offset=30)[0]
    split = [flow_input(item, size=SIZE, seed=1, offset=at)[0] for item, at in ((first, 30), (rest, 31))]
    assert torch.equal(torch.cat(split), whole)
    images = frame_input(frames, size=SIZE, seed=1, offset=30)[0]
    pieces = [FrameBatchItem(frames.frames[n : n + 1], frames.labels[n : n + 1]) for n in range(3)]
    split = [frame_input(item, size=SIZE, seed=1, offset=30 + n)[0] for n, item in enumerate(pieces)]
    assert torch.equal(torch.cat(split), images)


def test_without_training_the_centre_is_taken() -> None:
    item, frames = flow_item(), frame_item()
    stacks, _ = flow_input(item, size=SIZE, seed=0, offset=0, train=False)
    images, labels = frame_input(frames, size=SIZE, seed=0, offset=0, train=False)
    assert torch.equal(labels, frames.labels)
    for n, (height, width) in enumerate(SIZES):
        centre = ((height - SIZE) // 2, (width - SIZE) // 2, 0)
        np.testing.assert_allclose(stacks[n], flow_reference(item, n, centre), atol=1e-4)
        np.testing.assert_allclose(images[n], frame_reference(frames, n, centre), atol=1e-5)


def test_frames_for_training_are_cropped_and_shifted_in_colour() -> None:
    item = frame_item()
    inputs, _ = frame_input(item, size=SIZE, seed=3, offset=8)
    shift = colour_jitter(3, seed=3, offset=8).numpy() / np.array(RGB_STD)
    for n, size in enumerate(SIZES):
        matches = [
            window
            for window in all_windows(*size)
            if np.allclose(frame_reference(item, n, window) + shift[n][:, None, None], inputs[n], atol=1e-4)
        ]
        assert len(matches) == 1


def test_colour_jitter_has_the_covariance_of_the_principal_components() -> None:
    """Krizhevsky 2012: components p_i with eigenvalues l_i of the RGB covariance, sigma 0.1."""
    shifts = np.concatenate([colour_jitter(500, seed=1, offset=500 * i).double().numpy() for i in range(100)])
    values, vectors = np.linalg.eigh(np.cov(shifts.T))
    np.testing.assert_allclose(np.sqrt(values[::-1]), [5.546, 0.4794, 0.1148], rtol=0.03)
    # The largest is nearly grey: all three channels move together.
    np.testing.assert_allclose(np.abs(vectors[:, 2]), [0.5675, 0.5808, 0.5836], atol=0.01)
    np.testing.assert_allclose(shifts.mean(0), 0, atol=0.1)
    assert colour_jitter(4, seed=1, offset=0).dtype == torch.float32


def test_flow_views_are_corners_centre_and_their_flips() -> None:
    item = flow_item()
    ten = flow_views(item.flow, item.lo, item.step, item.mean, size=SIZE, crops=10)
    one = flow_views(item.flow, item.lo, item.step, item.mean, size=SIZE, crops=1)
    assert ten.shape == (3, 10, 2 * LENGTH, SIZE, SIZE)
    assert one.shape == (3, 1, 2 * LENGTH, SIZE, SIZE)
    for n, (height, width) in enumerate(SIZES):
        bottom, right = height - SIZE, width - SIZE
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        windows = [(*at, flip) for flip in (0, 1) for at in (*corners, (bottom // 2, right // 2))]
        for k, window in enumerate(windows):
            np.testing.assert_allclose(ten[n, k], flow_reference(item, n, window), atol=1e-4)
        assert torch.equal(one[n, 0], ten[n, 4])


def test_frame_views_are_corners_centre_and_their_flips() -> None:
    item = frame_item()
    ten = frame_views(item.frames, size=SIZE, crops=10)
    one = frame_views(item.frames, size=SIZE, crops=1)
    assert ten.shape == (3, 10, 3, SIZE, SIZE)
    bottom, right = SIZES[2][0] - SIZE, SIZES[2][1] - SIZE
    np.testing.assert_allclose(ten[2, 8], frame_reference(item, 2, (bottom, right, 1)), atol=1e-5)
    assert torch.equal(one[:, 0], ten[:, 4])


def test_what_does_not_fit_is_named() -> None:
    item = flow_item()
    with pytest.raises(SettingsError, match="input size 9 is larger than a frame of 8x8 pixels"):
        flow_input(item, size=9, seed=0, offset=0)
    with pytest.raises(SettingsError, match="input size 10 is larger than a frame of 12x9"):
        frame_views(frame_item().frames, size=10, crops=1)
    with pytest.raises(SettingsError, match="crops must be 1 or 10, got 5"):
        flow_views(item.flow, item.lo, item.step, item.mean, size=SIZE, crops=5)
