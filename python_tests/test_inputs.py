# SPDX-License-Identifier: BSD-3-Clause
"""Inputs of the nets against NumPy, with windows found by trying them all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from twostream_ext.engine import find_stream
from twostream_ext.engine.streams.spatial import colour_jitter
from twostream_ext.errors import SettingsError
from twostream_ext.media import FrameBatch
from twostream_ext.models import RGB_MEAN, RGB_STD, NetSettings
from twostream_ext.ops import FlowBatch

SIZES = [(9, 12), (8, 8), (11, 9)]
SIZE = 7
LENGTH = 3
LABELS = torch.tensor([4, 0, 2])
SPATIAL, TEMPORAL = find_stream("spatial"), find_stream("temporal")


def net_settings(size: int = SIZE) -> NetSettings:
    """Of a net of either stream, as far as its inputs go."""
    return NetSettings("any", {"default": 5}, "none", 0.5, 1.0, size, 2 * LENGTH, takes_flow=True, length=LENGTH)


SETTINGS = net_settings()


def flow_batch() -> FlowBatch:
    random = np.random.default_rng(0)
    flow = [random.integers(0, 256, (LENGTH, *size, 2), dtype=np.uint8) for size in SIZES]
    shape = (len(SIZES), LENGTH, 2)
    lo = random.uniform(-20, 0, shape).astype(np.float32)
    step = random.uniform(0.01, 0.2, shape).astype(np.float32)
    mean = np.stack([lo[n] + step[n] * flow[n].mean((1, 2)) for n in range(len(SIZES))])
    return FlowBatch.pack(
        [torch.from_numpy(f) for f in flow],
        lo=torch.from_numpy(lo),
        step=torch.from_numpy(step),
        mean=torch.from_numpy(mean.astype(np.float32)),
    )


def frame_batch() -> FrameBatch:
    random = np.random.default_rng(1)
    return FrameBatch.pack([random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES])


def all_windows(height: int, width: int) -> list[tuple[int, int, int]]:
    tops, lefts = range(height - SIZE + 1), range(width - SIZE + 1)
    return list(itertools.product(tops, lefts, (0, 1)))


def flow_reference(item: FlowBatch, sample: int, window: tuple[int, int, int]) -> np.ndarray:
    """Paper, equation 1: x and y by turns; minus the mean of the whole field; a flip negates x."""
    top, left, flip = window
    lo, step = item.lo[sample, :, None, None].double(), item.step[sample, :, None, None].double()
    pixels = (lo + step * item.fields[sample].double()).numpy()
    pixels = pixels - pixels.mean((1, 2), keepdims=True)
    pixels = pixels[:, top : top + SIZE, left : left + SIZE]
    if flip:
        pixels = pixels[:, :, ::-1] * np.array([-1.0, 1.0])
    return pixels.transpose(0, 3, 1, 2).reshape(2 * LENGTH, SIZE, SIZE)


def frame_reference(item: FrameBatch, sample: int, window: tuple[int, int, int]) -> np.ndarray:
    top, left, flip = window
    pixels = item.frames[sample].numpy().astype(np.float64)
    pixels = pixels[top : top + SIZE, left : left + SIZE]
    pixels = pixels[:, ::-1] if flip else pixels
    return ((pixels - RGB_MEAN) / RGB_STD).transpose(2, 0, 1)


def found_window(item: FlowBatch, sample: int, result: Tensor) -> tuple[int, int, int]:
    """The one window of the sample that gives this result."""
    matches = [
        window
        for window in all_windows(*SIZES[sample])
        if np.allclose(flow_reference(item, sample, window), result.numpy(), atol=1e-4)
    ]
    assert len(matches) == 1
    return matches[0]


def test_flow_for_training_is_a_random_window_of_the_whole_field() -> None:
    item = flow_batch()
    seen = []
    for iteration in range(150):
        inputs, labels = TEMPORAL.training_input((item, LABELS), settings=SETTINGS, seed=5, offset=3 * iteration)
        assert inputs.shape == (3, 2 * LENGTH, SIZE, SIZE)
        assert inputs.dtype == torch.float32
        assert torch.equal(labels, LABELS)
        seen.append(found_window(item, 1, inputs[1]))
        if iteration < 3:
            found_window(item, 0, inputs[0])
            found_window(item, 2, inputs[2])
    assert set(seen) == set(all_windows(*SIZES[1]))  # 8 windows; one is missed with 1e-8


def test_the_same_seed_and_offset_give_the_same_inputs() -> None:
    item, frames = flow_batch(), frame_batch()
    for stream, batch in ((TEMPORAL, item), (SPATIAL, frames)):
        first = stream.training_input((batch, LABELS), settings=SETTINGS, seed=1, offset=2)[0]
        assert torch.equal(first, stream.training_input((batch, LABELS), settings=SETTINGS, seed=1, offset=2)[0])
        assert not torch.equal(first, stream.training_input((batch, LABELS), settings=SETTINGS, seed=1, offset=3)[0])
        assert not torch.equal(first, stream.training_input((batch, LABELS), settings=SETTINGS, seed=2, offset=2)[0])


def test_inputs_do_not_depend_on_how_a_batch_is_split() -> None:
    for stream, batch in ((TEMPORAL, flow_batch()), (SPATIAL, frame_batch())):
        whole = stream.training_input((batch, LABELS), settings=SETTINGS, seed=1, offset=30)[0]
        split = [
            stream.training_input((batch.part(first, last), LABELS), settings=SETTINGS, seed=1, offset=30 + first)[0]
            for first, last in ((0, 1), (1, 3))
        ]
        assert torch.equal(torch.cat(split), whole)


def test_frames_for_training_are_cropped_and_shifted_in_colour() -> None:
    item = frame_batch()
    inputs, _ = SPATIAL.training_input((item, LABELS), settings=SETTINGS, seed=3, offset=8)
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
    item = flow_batch()
    ten, one = (TEMPORAL.views(item, settings=SETTINGS, crops=crops) for crops in (10, 1))
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
    item = frame_batch()
    ten, one = (SPATIAL.views(item, settings=SETTINGS, crops=crops) for crops in (10, 1))
    assert ten.shape == (3, 10, 3, SIZE, SIZE)
    bottom, right = SIZES[2][0] - SIZE, SIZES[2][1] - SIZE
    np.testing.assert_allclose(ten[2, 8], frame_reference(item, 2, (bottom, right, 1)), atol=1e-5)
    assert torch.equal(one[:, 0], ten[:, 4])


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(SettingsError, match="input size 9 is larger than a frame of 8x8 pixels"):
        TEMPORAL.training_input((flow_batch(), LABELS), settings=net_settings(9), seed=0, offset=0)
    with pytest.raises(SettingsError, match="input size 10 is larger than a frame of 12x9"):
        SPATIAL.views(frame_batch(), settings=net_settings(10), crops=1)
    with pytest.raises(SettingsError, match="crops must be 1 or 10, got 5"):
        TEMPORAL.views(flow_batch(), settings=SETTINGS, crops=5)
