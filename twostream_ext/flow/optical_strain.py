# SPDX-License-Identifier: BSD-3-Clause
"""Optical strain: how flow deforms what it moves, as work on micro-expressions measures it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating]


class Strain(NamedTuple):
    """The symmetric part of a flow field's gradient, and its size; each [..., H, W], pixels of displacement a pixel."""

    exx: Plane
    """Stretch along x."""
    eyy: Plane
    """Stretch along y."""
    exy: Plane
    """Shear: half the sum of the two mixed derivatives."""
    magnitude: Plane
    """sqrt(exx^2 + eyy^2 + 2 exy^2)."""


def strain(flow: npt.ArrayLike) -> Strain:
    """Optical strain of flow fields (Shreve et al., 2011).

    flow: [..., H, W, 2], (x, y) in pixels, H and W at least 2: arrays, or tensors on the CPU. Derivatives are central
    differences, and at the border those to the one neighbour. A turn or a shift of everything has no strain but in the
    second order of its angle.

    Float32 planes, of float64 fields float64. ValueError if the shape is another.
    """
    field = np.asarray(flow)
    if field.ndim < 3 or field.shape[-1] != 2 or min(field.shape[-3:-1]) < 2:
        raise ValueError(f"strain: flow is {list(field.shape)}, expected [..., H, W, 2] with H and W at least 2")
    if field.dtype != np.float64:
        field = field.astype(np.float32)
    x_by_y, x_by_x = np.gradient(field[..., 0], axis=(-2, -1))
    y_by_y, y_by_x = np.gradient(field[..., 1], axis=(-2, -1))
    shear = (x_by_y + y_by_x) / 2
    return Strain(x_by_x, y_by_y, shear, np.sqrt(x_by_x**2 + y_by_y**2 + 2 * shear**2))
