# SPDX-License-Identifier: BSD-3-Clause
"""Optical flow between two frames: what it measures, its sign, and threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import cv2
import estimators
import numpy as np
import pytest
import torch
from videos import moving_frames, texture

from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.flow import METHODS, Method, estimate_clip_flow, estimate_flow, register_method
from twostream_ext.flow.estimators import estimator_name, load_estimator, run_estimator


def grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [(3, 0), (0, 2), (-2, 1), (0, 0)])
def test_known_motion(method: str, step: tuple[int, int]) -> None:
    frames = moving_frames(2, size=(80, 96), step=step)
    previous, following = map(grey, frames)
    flow = estimate_flow(previous, following, method)
    assert flow.shape == (80, 96, 2)
    assert flow.dtype == np.float32
    inside = flow[16:-16, 16:-16].reshape(-1, 2)
    np.testing.assert_allclose(np.median(inside, axis=0), step, atol=0.15)
    back = estimate_flow(following, previous, method)[16:-16, 16:-16].reshape(-1, 2)
    np.testing.assert_allclose(np.median(back, axis=0), np.negative(step), atol=0.15)


def test_flow_points_from_a_pixel_to_where_it_went() -> None:
    """Fetching the next frame at p + flow(p) gives the previous one."""
    first = grey(texture(90, 120, seed=3))
    y, x = np.mgrid[:90, :120].astype(np.float32)
    wave = np.stack([1.5 * np.sin(y / 15), 1.5 * np.cos(x / 20)], axis=2)
    second = cv2.remap(first, x - wave[..., 0], y - wave[..., 1], cv2.INTER_CUBIC)
    for method in METHODS:
        flow = estimate_flow(first, second, method)
        fetched = cv2.remap(second, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC)
        error = np.abs(fetched.astype(float) - first)[12:-12, 12:-12].mean()
        unmoved = np.abs(second.astype(float) - first)[12:-12, 12:-12].mean()
        assert error < 0.25 * unmoved


@pytest.mark.parametrize("method", METHODS)
def test_neither_threads_nor_earlier_calls_change_the_result(method: str) -> None:
    frames = [grey(frame) for frame in moving_frames(12, size=(64, 80), step=(2, -1))]
    pairs = list(pairwise(frames))
    alone = [estimate_flow(*pair, method) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: estimate_flow(*pair, method), pairs * 3))
    for index, flow in enumerate(together):
        np.testing.assert_array_equal(flow, alone[index % len(alone)])
    small = [grey(frame) for frame in moving_frames(2, size=(20, 24), step=(1, 0))]
    first = estimate_flow(small[0], small[1], method)  # OpenCV adapts its search to these
    np.testing.assert_array_equal(estimate_flow(*pairs[0], method), alone[0])
    np.testing.assert_array_equal(estimate_flow(small[0], small[1], method), first)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backward", [False, True])
def test_flow_of_a_clip_is_that_of_its_pairs(method: str, backward: bool) -> None:
    frames = [grey(frame) for frame in moving_frames(5, size=(40, 48), step=(1, -2))]
    flow = estimate_clip_flow(torch.from_numpy(np.stack(frames)), method, backward=backward)
    ahead = [estimate_flow(one, other, method) for one, other in pairwise(frames)]
    np.testing.assert_array_equal(flow.forward, ahead)
    if backward:
        assert flow.backward is not None
        np.testing.assert_array_equal(
            flow.backward, [estimate_flow(other, one, method) for one, other in pairwise(frames)]
        )
    else:
        assert flow.backward is None


def test_estimators_are_called_one_at_a_time_and_with_the_reversed_clip_for_backward_flow() -> None:
    inside, together = 0, 0

    def estimator(frames: np.ndarray) -> np.ndarray:
        """The brightness of each first frame, which tells the order."""
        nonlocal inside, together
        inside += 1
        time.sleep(0.005)
        together = max(together, inside)
        inside -= 1
        return np.broadcast_to(frames[:-1, :, :, :1], (*frames[:-1].shape[:3], 2)).astype(np.float32)

    frames = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 3, 5, 3), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        flows = list(pool.map(lambda _: run_estimator(estimator, frames, True), range(8)))
    assert together == 1
    for forward, backward in flows:
        assert forward.shape == (3, 3, 5, 2)
        assert forward[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert backward[:, 0, 0, 0].tolist() == [1, 2, 3]  # from frame t + 1 to frame t


def test_names_of_estimators() -> None:
    assert estimator_name(estimators.constant) == "estimators:constant"
    assert load_estimator("estimators:constant") is estimators.constant
    assert estimator_name("any:thing") == "any:thing"
    assert estimator_name(partial(estimators.constant)) == "functools:partial"


def test_wrong_arguments() -> None:
    frame = np.zeros((32, 32), np.uint8)
    with pytest.raises(SettingsError, match=r"'brox'.*dis, farneback"):
        estimate_flow(frame, frame, "brox")
    with pytest.raises(ValueError, match=r"previous is float32 \[32, 32\], expected uint8"):
        estimate_flow(frame.astype(np.float32), frame)
    with pytest.raises(ValueError, match=r"next is uint8 \[32, 32, 3\]"):
        estimate_flow(frame, np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"next is \[32, 30\], previous is \[32, 32\]"):
        estimate_flow(frame, np.zeros((32, 30), np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 300), (11, 11)])
def test_frames_too_small_for_dis(size: tuple[int, int]) -> None:
    frame = np.zeros(size, np.uint8)
    with pytest.raises(VideoError, match=f"{size[1]}x{size[0]} pixels are too small for dis"):
        estimate_flow(frame, frame, "dis")


@pytest.mark.parametrize(("name", "why"), [("tvl1", "is one of the package's own"), ("mine:still", "holds a colon")])
def test_names_that_a_method_of_ones_own_cannot_have(name: str, why: str) -> None:
    before = dict(METHODS)
    with pytest.raises(SettingsError, match=f"the name '{name}' {why}"):
        register_method(name, Method(METHODS["dis"].estimate, "a user's", {}))
    assert before == METHODS
