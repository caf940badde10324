# SPDX-License-Identifier: BSD-3-Clause
"""Flow from which the camera's motion is taken away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def without_camera(flow: npt.ArrayLike, camera: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """What is left of a field when the camera stands still: float32 [H, W, 2], (x, y) in pixels.

    flow: [H, W, 2], (x, y) in pixels. camera: [2, 3], the affine map that its background follows, as from
    `ops.camera_motion` or `FlowClip.camera_motion`.

    ValueError if a shape is another.
    """
    field, maps = np.asarray(flow, np.float32), np.asarray(camera, np.float32)
    if field.ndim != 3 or field.shape[2] != 2:
        raise ValueError(f"without_camera: flow is {list(field.shape)}, expected [H, W, 2]")
    if maps.shape != (2, 3):
        raise ValueError(f"without_camera: camera is {list(maps.shape)}, expected [2, 3]")
    x = np.arange(field.shape[1], dtype=np.float32)
    y = np.arange(field.shape[0], dtype=np.float32)[:, None]
    left = np.empty_like(field)
    for component, (of_x, of_y, shift) in enumerate(maps):
        left[..., component] = field[..., component] - (of_x * x + (of_y * y + shift))
    return left
