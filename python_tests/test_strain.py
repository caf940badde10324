# SPDX-License-Identifier: BSD-3-Clause
"""Optical strain beside fields whose derivatives are known, and beside differences taken one by one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from modules import load_module
from videos import moving_frames

import twostream_ext as ts

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "apex.py"


def field(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([u, v], axis=-1)


def grid(height: int = 7, width: int = 9) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x, y


@pytest.mark.parametrize(
    ("matrix", "exx", "eyy", "exy"),
    [
        (((0.0, 0.0), (0.0, 0.0)), 0.0, 0.0, 0.0),
        (((0.25, 0.0), (0.0, -0.5)), 0.25, -0.5, 0.0),
        (((0.0, 0.5), (0.25, 0.0)), 0.0, 0.0, 0.375),
        (((0.0, -0.125), (0.125, 0.0)), 0.0, 0.0, 0.0),  # a turn
        (((0.5, 1.0), (2.0, 0.25)), 0.5, 0.25, 1.5),
    ],
)
def test_linear_fields_have_the_same_strain_everywhere(
    matrix: tuple[tuple[float, float], ...], exx: float, eyy: float, exy: float
) -> None:
    """At the border, too, and shifted by anything."""
    (a, b), (c, d) = matrix
    x, y = grid()
    found = ts.flow.strain(field(a * x + b * y + 3, c * x + d * y - 8))
    expected = (exx, eyy, exy, math.sqrt(exx**2 + eyy**2 + 2 * exy**2))
    for plane, value in zip(found, expected, strict=True):
        assert plane.shape == (7, 9)
        assert plane.dtype == np.float64
        np.testing.assert_allclose(plane, value, atol=1e-12)


def test_a_curved_field_has_the_derivatives_of_its_formula() -> None:
    """Central differences of a quadratic are exact inside."""
    x, y = grid(12, 10)
    found = ts.flow.strain(field(0.1 * x**2 + 0.2 * x * y, 0.3 * y**2 - 0.1 * x * y))
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(found.exx[inside], (0.2 * x + 0.2 * y)[inside], atol=1e-12)
    np.testing.assert_allclose(found.eyy[inside], (0.6 * y - 0.1 * x)[inside], atol=1e-12)
    np.testing.assert_allclose(found.exy[inside], ((0.2 * x - 0.1 * y) / 2)[inside], atol=1e-12)


@given(arrays(np.float32, (2, 4, 5, 2), elements=st.floats(-50, 50, width=32)))
def test_batches_are_differences_one_by_one(flow: np.ndarray) -> None:
    found = ts.flow.strain(flow)
    wide = flow.astype(np.float64)
    for place in np.ndindex(2, 4, 5):
        batch, row, column = place
        above, below, left, right = max(row - 1, 0), min(row + 1, 3), max(column - 1, 0), min(column + 1, 4)
        by_y = (wide[batch, below, column] - wide[batch, above, column]) / (below - above)
        by_x = (wide[batch, row, right] - wide[batch, row, left]) / (right - left)
        exx, eyy, exy = by_x[0], by_y[1], (by_y[0] + by_x[1]) / 2
        expected = (exx, eyy, exy, np.sqrt(exx**2 + eyy**2 + 2 * exy**2))
        np.testing.assert_allclose([plane[place] for plane in found], expected, rtol=1e-5, atol=1e-5)
    assert {plane.dtype for plane in found} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_tensors_are_taken_and_left_as_they_are(dtype: torch.dtype) -> None:
    flow = torch.randn(3, 6, 5, 2, generator=torch.Generator().manual_seed(2)).to(dtype)
    before = flow.clone()
    for plane, other in zip(ts.flow.strain(flow), ts.flow.strain(flow.float().numpy()), strict=True):
        np.testing.assert_array_equal(plane, other)
    assert torch.equal(flow, before)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (1, 5, 2), (4, 1, 2), (2,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^strain: flow is .*, expected \[..., H, W, 2\] with H and W at least 2$"):
        ts.flow.strain(np.zeros(shape))


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are not beside the tests")
def test_the_example_finds_the_frame_that_is_deformed_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A still picture whose middle swells and falls back, by folders of frames as the data sets have them."""
    import cv2

    apex = load_module(EXAMPLE)
    (still,) = moving_frames(1, size=(64, 64))
    x, y = grid(64, 64)
    away = np.exp(-((x - 32) ** 2 + (y - 32) ** 2) / 200)
    for number, swollen in enumerate((0.0, 0.04, 0.08, 0.12, 0.06, 0.02), 1):
        maps = [(each - swollen * away * (each - 32)).astype(np.float32) for each in (x, y)]
        picture = cv2.remap(still, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        cv2.imwrite(str(tmp_path / f"img_{number:05}.png"), picture)
    apex.main(tmp_path, tmp_path / "out.png")
    assert capsys.readouterr().out.startswith("apex: frame 3 of 6, mean strain ")
    assert cv2.imread(str(tmp_path / "out.png")).shape == (256, 768, 3)
