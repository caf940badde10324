# SPDX-License-Identifier: BSD-3-Clause
"""What a backbone is told of the net that it is made for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneSettings:
    """Plain values; see `register_backbone` for what a backbone does with them."""

    channels: int
    """Of the input: 3 for an RGB frame, 2L for a stack of L flow fields."""
    takes_flow: bool
    """The input is displacements in pixels, x and y in turn; otherwise RGB, normalised by `RGB_MEAN` and `RGB_STD`."""
    input_size: int
    """Side of the square input in pixels."""
    dropout: float
    """Probability of dropping a unit in training."""
    width: float = 1.0
    """Factor of the widths of all layers."""
    pretrained: bool = False
    """Start from the weights that the backbone itself knows where to get."""
    unfilled: bool = False
    """All weights will come from a file: the first ones may be left out (on the meta device, say)."""
