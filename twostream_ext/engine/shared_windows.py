# SPDX-License-Identifier: BSD-3-Clause
"""The ten windows of an input share most of their pixels: the first layers see them once, in larger windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Window = tuple[int, int, int]  # top, left, flip


class Place(NamedTuple):
    """Where in the maps that the first layers give of a region those of a window begin."""

    window: int  # its number
    row: int
    column: int


class Region(NamedTuple):
    """A larger window that covers several, all flipped or none."""

    window: Window
    size: tuple[int, int]  # height and width
    places: list[Place]


def shared_regions(windows: Sequence[Window], size: int, stride: int) -> list[Region]:
    """Regions of which the first layers give the maps of all windows of side `size`, each in one of them.

    stride: of the first layers together: maps fit where windows lie whole strides apart. Windows that would take more
    pixels together than one by one are a region each.
    """
    alike: dict[tuple[int, int, int], list[int]] = {}
    for number, (top, left, flip) in enumerate(windows):
        alike.setdefault((flip, top % stride, left % stride), []).append(number)
    regions = []
    for numbers in alike.values():
        whole = _region(windows, numbers, size, stride)
        height, width = whole.size
        if height * width <= len(numbers) * size**2:
            regions.append(whole)
        else:
            regions += [_region(windows, [number], size, stride) for number in numbers]
    return regions


def _region(windows: Sequence[Window], numbers: Sequence[int], size: int, stride: int) -> Region:
    tops, lefts, flips = zip(*(windows[number] for number in numbers), strict=True)
    top, left, flip = min(tops), min(lefts), flips[0]
    height, width = max(tops) - top + size, max(lefts) - left + size
    places = []
    for number in numbers:
        column = windows[number][1] - left
        if flip:  # counted from the other side
            column = width - size - column
        places.append(Place(number, (windows[number][0] - top) // stride, column // stride))
    return Region((top, left, flip), (height, width), places)
