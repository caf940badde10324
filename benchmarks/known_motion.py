# SPDX-License-Identifier: BSD-3-Clause
"""Pairs of frames whose true flow is known, made of real frames: smooth motion, and layers with exact borders.

Both frames get noise of two grey levels of their own. What moves in over the border is there: the pictures are larger
than what is cut out of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.media import read_video

Grey = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

SIZE = (256, 340)  # height, width
MARGIN = 16
LEAST, MOST = 2.0, 9.0  # pixels that the fastest pixel of a pair moves
NOISE = 2.0  # grey levels


class KnownPair(NamedTuple):
    """Two frames, uint8 [H, W], and the flow from the first to the second, float32 [H, W, 2]."""

    first: Grey
    second: Grey
    flow: Plane


def picture_of(video: Path, place: float) -> Plane:
    """The frame at `place` of a video, 0 its first and 1 its last, filling `SIZE` and a margin around it."""
    frames = list(read_video(video, smallest_side=None, grey=True))
    frame = frames[round(place * (len(frames) - 1))]
    height, width = (side + 2 * MARGIN for side in SIZE)
    scale = max(height / frame.shape[0], width / frame.shape[1])
    size = (max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale)))
    larger = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (larger.shape[0] - height) // 2, (larger.shape[1] - width) // 2
    return larger[top : top + height, left : left + width].astype(np.float32)


def smooth_pair(picture: Plane, seed: int) -> KnownPair:
    """A picture that is moved by a smooth field: pan, zoom, turn and waves."""
    draw = np.random.default_rng(seed)
    y, x = _grid()
    waves = [cv2.GaussianBlur(draw.normal(size=SIZE), (0, 0), 40.0) for _ in "xy"]
    affine = _random_affine(draw, turn=0.02, stretch=0.02)
    flow = np.stack([plane / plane.std() for plane in waves], -1) + _affine_flow(affine, x, y)
    flow = _scaled(flow, draw)
    return _noisy(_sampled(picture, x + flow[..., 0], y + flow[..., 1]), _sampled(picture, x, y), flow, draw)


def layered_pair(picture: Plane, textures: Sequence[Plane], seed: int) -> KnownPair:
    """Ellipses of other pictures, each with a motion of its own, over a moving background."""
    draw = np.random.default_rng(seed)
    y, x = _grid()
    background = _affine_of(draw, (SIZE[1] / 2, SIZE[0] / 2), speed=draw.uniform(0.0, 3.0), turn=0.01)
    flow = _affine_flow(background, x, y)
    first = _sampled(picture, x, y)
    second = _sampled(picture, *_back(background, x, y))
    for texture in textures:
        centre = draw.uniform((0.2 * SIZE[1], 0.2 * SIZE[0]), (0.8 * SIZE[1], 0.8 * SIZE[0]))
        axes, angle = draw.uniform(25.0, 70.0, 2), draw.uniform(0.0, np.pi)
        motion = _affine_of(draw, centre, speed=draw.uniform(LEAST, MOST), turn=0.05)
        inside = _inside(x, y, centre, axes, angle)
        flow = np.where((inside > 0.5)[..., None], _affine_flow(motion, x, y), flow)
        first += inside * (_sampled(texture, x, y) - first)
        was_x, was_y = _back(motion, x, y)
        second += _inside(was_x, was_y, centre, axes, angle) * (_sampled(texture, was_x, was_y) - second)
    return _noisy(first, second, flow, draw)


def _grid() -> tuple[Plane, Plane]:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return y.astype(np.float32), x.astype(np.float32)


def _scaled(flow: Plane, draw: np.random.Generator) -> Plane:
    most = np.linalg.norm(flow, axis=-1).max()
    return (flow * (draw.uniform(LEAST, MOST) / most)).astype(np.float32)


def _random_affine(draw: np.random.Generator, turn: float, stretch: float) -> Plane:
    """A map of (x, y, 1) to displacements, around the middle of the frame, in units of a few pixels."""
    linear = draw.normal(scale=stretch, size=(2, 2)) + draw.normal(scale=turn) * np.array([[0, -1], [1, 0]])
    middle = np.array([SIZE[1] / 2, SIZE[0] / 2])
    shift = draw.normal(scale=2.0, size=2) - linear @ middle
    return np.column_stack([linear, shift]).astype(np.float32)


def _affine_of(draw: np.random.Generator, centre: npt.ArrayLike, speed: float, turn: float) -> Plane:
    """A turn around a centre, which itself moves `speed` pixels in any direction."""
    heading, angle = draw.uniform(0.0, 2 * np.pi), draw.normal(scale=turn)
    linear = np.array([[np.cos(angle) - 1, -np.sin(angle)], [np.sin(angle), np.cos(angle) - 1]])
    shift = speed * np.array([np.cos(heading), np.sin(heading)]) - linear @ np.asarray(centre)
    return np.column_stack([linear, shift]).astype(np.float32)


def _affine_flow(affine: Plane, x: Plane, y: Plane) -> Plane:
    return np.stack([row[0] * x + row[1] * y + row[2] for row in affine], axis=-1)


def _back(affine: Plane, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Where what is at (x, y) after the motion was before it."""
    inverse = np.linalg.inv(affine[:, :2] + np.eye(2, dtype=np.float32))
    moved_x, moved_y = x - affine[0, 2], y - affine[1, 2]
    return (
        (inverse[0, 0] * moved_x + inverse[0, 1] * moved_y).astype(np.float32),
        (inverse[1, 0] * moved_x + inverse[1, 1] * moved_y).astype(np.float32),
    )


def _inside(x: Plane, y: Plane, centre: npt.ArrayLike, axes: npt.ArrayLike, angle: float) -> Plane:
    """How much of each pixel lies in an ellipse: 0 to 1, half at its border."""
    (centre_x, centre_y), (long, short) = np.asarray(centre), np.asarray(axes)
    along = (np.cos(angle) * (x - centre_x) + np.sin(angle) * (y - centre_y)) / long
    across = (np.cos(angle) * (y - centre_y) - np.sin(angle) * (x - centre_x)) / short
    radius = np.sqrt(along**2 + across**2)
    slope = np.sqrt((along / long) ** 2 + (across / short) ** 2) / np.maximum(radius, 1e-6)
    return np.clip(0.5 + (1 - radius) / np.maximum(slope, 1e-6), 0, 1).astype(np.float32)


def _sampled(picture: Plane, x: Plane, y: Plane) -> Plane:
    """A picture at places of the frame that is cut out of it."""
    place = (x + MARGIN).astype(np.float32), (y + MARGIN).astype(np.float32)
    return cv2.remap(picture, *place, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)


def _noisy(first: Plane, second: Plane, flow: Plane, draw: np.random.Generator) -> KnownPair:
    frames = [frame + draw.normal(scale=NOISE, size=SIZE) for frame in (first, second)]
    one, other = (np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in frames)
    return KnownPair(one, other, flow.astype(np.float32))
