# SPDX-License-Identifier: BSD-3-Clause
"""Flow as a picture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def flow_to_colour(flow: npt.ArrayLike, *, maximum: float | None = None) -> npt.NDArray[np.uint8]:
    """Colour wheel of a flow field: uint8 RGB [H, W, 3].

    flow: [H, W, 2], (x, y) in pixels. The direction gives the hue (right red, down yellow-green,
    left cyan, up violet) and the length the saturation: white stands still, full colour moves by
    `maximum` pixels or more. maximum: by default the longest displacement of this field.

    ValueError if the shape is another or `maximum` is not positive.
    """
    field = np.asarray(flow, dtype=np.float32)
    if field.ndim != 3 or field.shape[2] != 2:
        raise ValueError(f"flow_to_colour: flow is {list(field.shape)}, expected [H, W, 2]")
    if maximum is not None and not maximum > 0:
        raise ValueError(f"flow_to_colour: maximum is {maximum}, expected a positive number")
    length, degrees = cv2.cartToPolar(
        np.ascontiguousarray(field[..., 0]),
        np.ascontiguousarray(field[..., 1]),
        angleInDegrees=True,
    )
    longest = maximum if maximum is not None else float(length.max(initial=0)) or 1.0
    saturation = np.minimum(length / longest, 1)
    hsv = np.stack([np.mod(degrees, 360), saturation, np.ones_like(length)], axis=2)
    rgb = cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)
    return np.rint(rgb * 255).astype(np.uint8)
