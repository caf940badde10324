# SPDX-License-Identifier: BSD-3-Clause
"""The colour wheel, against colorsys pixel by pixel."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from twostream_ext.flow import flow_to_colour


def reference(x: float, y: float, maximum: float) -> list[float]:
    hue = math.atan2(y, x) / (2 * math.pi) % 1.0
    saturation = min(math.hypot(x, y) / maximum, 1.0)
    return [255 * channel for channel in colorsys.hsv_to_rgb(hue, saturation, 1.0)]


@pytest.mark.parametrize("maximum", [None, 2.5])
def test_against_colorsys(maximum: float | None) -> None:
    flow = np.random.default_rng(0).normal(scale=2, size=(13, 17, 2)).astype(np.float32)
    longest = maximum or float(np.hypot(flow[..., 0], flow[..., 1]).max())
    expected = [[reference(x, y, longest) for x, y in row] for row in flow.tolist()]
    picture = flow_to_colour(flow, maximum=maximum)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture, expected, atol=2)


def test_directions() -> None:
    flow = np.array([[[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]]], np.float32)
    picture = flow_to_colour(flow)[0]
    np.testing.assert_allclose(picture[0], [255, 0, 0], atol=2)  # right: red
    np.testing.assert_allclose(picture[1], [128, 255, 0], atol=2)
    np.testing.assert_allclose(picture[2], [0, 255, 255], atol=2)  # left: cyan
    np.testing.assert_allclose(picture[3], [128, 0, 255], atol=2)
    np.testing.assert_array_equal(picture[4], [255, 255, 255])


def test_stillness_is_white() -> None:
    assert (flow_to_colour(np.zeros((4, 5, 2))) == 255).all()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"\[2, 4, 5\], expected \[H, W, 2\]"):
        flow_to_colour(np.zeros((2, 4, 5)))
    with pytest.raises(ValueError, match="maximum is 0"):
        flow_to_colour(np.zeros((4, 5, 2)), maximum=0)
