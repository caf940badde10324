# SPDX-License-Identifier: BSD-3-Clause
"""Flow fields of which the camera's motion is known: an affine background, and things that move on their own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def camera_scene(
    seed: int, share: float, size: tuple[int, int] = (256, 340), noise: float = 0.1
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Draw a field [H, W, 2], the map [2, 3] of its background, and which pixels [H, W] show the background.

    The camera pans up to 6 px, zooms and turns; ellipses with motions of their own, and which turn and grow, cover
    `share` of the area.
    """
    random = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    places = np.stack([x, y, np.ones(size)], axis=-1)
    slopes = random.normal(0, 0.01, (2, 2))
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    camera = np.column_stack([slopes, random.uniform(-6, 6, 2) - slopes @ centre])
    field = places @ camera.T
    background = np.ones(size, dtype=bool)
    while (left := share - 1 + background.mean()) > 0:
        middle = random.uniform(0, 1, 2) * (width, height)
        radii = random.uniform(0.05, 0.35, 2) * min(size)
        radii *= min(1, np.sqrt((left * height * width + 1) / (np.pi * radii.prod())))
        inside = ((x - middle[0]) / radii[0]) ** 2 + ((y - middle[1]) / radii[1]) ** 2 < 1
        own = np.stack([x - middle[0], y - middle[1]], axis=-1) @ random.normal(0, 0.02, (2, 2))
        field[inside] = (places @ camera.T + random.normal(0, 5, 2) + own)[inside]
        background &= ~inside
    return field + random.normal(0, noise, field.shape), camera, background


def background_error(found: npt.NDArray[np.floating], scene: tuple[Array, Array, npt.NDArray[np.bool_]]) -> float:
    """How far from still the background is once the map is subtracted, in pixels, on average."""
    _, camera, background = scene
    height, width = background.shape
    y, x = np.mgrid[:height, :width]
    left = np.stack([x, y, np.ones(background.shape)], axis=-1) @ (found - camera).T
    return float(np.hypot(left[..., 0], left[..., 1])[background].mean())
