# SPDX-License-Identifier: BSD-3-Clause
"""How frames are normalised for the spatial net, whatever its backbone."""

from __future__ import annotations

# Of ImageNet's training images, pixels 0 .. 255, RGB.
RGB_MEAN = (123.675, 116.28, 103.53)
RGB_STD = (58.395, 57.12, 57.375)
