# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of things before a wall: what scenes of generated videos are drawn with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

_SPRITE_SIDE = 64  # pixels

FloatArray = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]
_Matrix = npt.NDArray[np.float64]


class Pose(NamedTuple):
    x: float  # of the centre, in frame heights from the middle of the frame, right
    y: float  # the same, down
    angle: float  # radians
    radius: float  # frame heights


class Sprite(NamedTuple):
    """A moving thing; its picture spans [-1, 1] in units of its radius."""

    colour: Frame  # [side, side, 3]
    opacity: FloatArray  # [side, side]
    pose: Callable[[int], Pose]


class View(NamedTuple):
    """How the camera shows what there is: shifted, then turned and enlarged about the middle of the frame."""

    x: float  # of the shift, in frame heights, right
    y: float  # the same, down
    turn: float = 0.0  # radians, clockwise as the angle of a pose
    zoom: float = 1.0  # times as large


class Scene(NamedTuple):
    """What a video shows, and how the camera moves before it."""

    background: Frame  # its middle lies where poses count from
    sprites: list[Sprite]  # the last lies over the others
    camera: Callable[[int], View]  # its view at a frame


def draw_frames(scene: Scene, size: tuple[int, int], frames: int) -> Iterator[Frame]:
    """Yield the frames, uint8 RGB [H, W, 3], of the (height, width) `size`."""
    for index in range(frames):
        camera = scene.camera(index)
        picture = _seen(scene.background, camera, *size)
        for sprite in scene.sprites:
            _paint(picture, sprite, camera, index)
        yield picture


def sprite_coordinates() -> tuple[FloatArray, FloatArray]:
    """Give x and y of every pixel of a sprite, -1 to 1."""
    line = np.linspace(-1, 1, _SPRITE_SIDE, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def soft_step(value: FloatArray) -> FloatArray:
    """0 below -1/2, 1 above 1/2, straight between."""
    return np.asarray(np.clip(value + 0.5, 0, 1), dtype=np.float32)


def _wave(random: np.random.Generator, frequency: float, position: FloatArray) -> FloatArray:
    """A sine of random phase with `frequency` periods in one radius."""
    phase = random.uniform(0, 2 * math.pi)
    wave = np.sin(2 * math.pi * frequency * position + phase)
    return np.asarray(wave, dtype=np.float32)


def _dotted(random: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    frequency = random.uniform(1.6, 2.2)
    return _wave(random, frequency, x) + _wave(random, frequency, y) - 0.8


def _shaded(random: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    return np.float32(random.uniform(0.12, 0.2)) * x


def _striped(random: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    return _wave(random, random.uniform(1.6, 2.6), x)


def _marbled(random: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    noise = random.standard_normal(x.shape, dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), random.uniform(3.0, 4.5))
    return np.asarray(2 * (smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def _barred(random: np.random.Generator, x: FloatArray, y: FloatArray, frequency: float) -> FloatArray:
    return _wave(random, frequency, x)


def _studded(random: np.random.Generator, x: FloatArray, y: FloatArray, frequency: float) -> FloatArray:
    return _wave(random, frequency, x) + _wave(random, frequency, y) - 0.8


def _checked(random: np.random.Generator, x: FloatArray, y: FloatArray, frequency: float) -> FloatArray:
    return 2 * _wave(random, frequency, x) * _wave(random, frequency, y)


def _ringed(random: np.random.Generator, x: FloatArray, y: FloatArray, frequency: float) -> FloatArray:
    return _wave(random, frequency, np.hypot(x, y))


def _rayed(random: np.random.Generator, x: FloatArray, y: FloatArray, frequency: float) -> FloatArray:
    return _wave(random, round(3 * frequency), np.asarray(np.arctan2(y, x) / (2 * math.pi), dtype=np.float32))


_PATTERNS = {"Barred": _barred, "Checked": _checked, "Rayed": _rayed, "Ringed": _ringed, "Studded": _studded}
_FREQUENCIES = {"Coarse": (0.9, 1.2), "Middle": (1.6, 2.0), "Fine": (2.6, 3.2)}  # periods in one radius


def _patterned(
    random: np.random.Generator, x: FloatArray, y: FloatArray, *, kind: str, frequencies: tuple[float, float]
) -> FloatArray:
    return _PATTERNS[kind](random, x, y, random.uniform(*frequencies))


TEXTURES: dict[str, Callable[[np.random.Generator, FloatArray, FloatArray], FloatArray]] = {
    "Dotted": _dotted,
    "Marbled": _marbled,
    "Shaded": _shaded,
    "Striped": _striped,
    **{
        kind + name: partial(_patterned, kind=kind, frequencies=frequencies)
        for kind in _PATTERNS
        for name, frequencies in _FREQUENCIES.items()
    },
}
"""Each gives a value for every pixel of the sprite: light where positive, dark where negative."""


def outline(random: np.random.Generator) -> FloatArray:
    """Opacity of a blob that touches neither edge of the sprite."""
    x, y = sprite_coordinates()
    direction = np.arctan2(y, x)
    waves = [
        random.uniform(0, 0.09) * np.sin(count * direction + random.uniform(0, 2 * math.pi)) for count in (2, 3, 4)
    ]
    border = 0.7 + np.sum(waves, axis=0)
    return soft_step((border - np.hypot(x, y)) * _SPRITE_SIDE / 4)


def make_background(random: np.random.Generator, height: int, width: int, halves: int = 3) -> Frame:
    """A low-contrast cloudy wall, each side so many halves of the frame's."""
    rows, columns = height * halves // 2, width * halves // 2
    wall = np.tile(random.uniform(70, 180, 3).astype(np.float32), (rows, columns, 1))
    for cells, contrast in ((halves, 20.0), (3 * halves, 14.0), (10 * halves, 9.0)):
        shape = (cells, cells * columns // rows)
        noise = random.normal(0, contrast, (*shape, 1))  # mostly grey
        noise = noise + random.normal(0, contrast / 2, (*shape, 3))
        wall += cv2.resize(noise.astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.clip(wall, 0, 255).astype(np.uint8)


def _seen(wall: Frame, camera: View, height: int, width: int) -> Frame:
    """The part of the wall that the camera sees, [height, width, 3]."""
    turned = _turned(camera)
    from_middle = _middle(height, width) - turned @ _middle(*wall.shape[:2])
    shift = turned @ [camera.x * height, camera.y * height] + from_middle
    return np.asarray(cv2.warpAffine(wall, np.column_stack([turned, shift]), (width, height)), dtype=np.uint8)


def _turned(camera: View) -> _Matrix:
    """What a view does to the way between two places, [2, 2]."""
    cosine, sine = camera.zoom * math.cos(camera.turn), camera.zoom * math.sin(camera.turn)
    return np.array([[cosine, -sine], [sine, cosine]])


def _middle(height: int, width: int) -> _Matrix:
    """Of a picture, (x, y) in pixels."""
    return np.array([(width - 1) / 2, (height - 1) / 2])


def _paint(picture: Frame, sprite: Sprite, camera: View, index: int) -> None:
    """Lay a sprite over frame number `index`, in place."""
    height, width = picture.shape[:2]
    pose = sprite.pose(index)
    radius = pose.radius * camera.zoom * height
    place = _turned(camera) @ [pose.x + camera.x, pose.y + camera.y]
    x, y = place * height + _middle(height, width)
    # The outline stays inside the circle of one radius, so this box holds all of it.
    left, right = max(math.floor(x - radius), 0), min(math.ceil(x + radius) + 1, width)
    top, bottom = max(math.floor(y - radius), 0), min(math.ceil(y + radius) + 1, height)
    if left >= right or top >= bottom:
        return
    scale, angle = 2 * radius / _SPRITE_SIDE, pose.angle + camera.turn
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    centre = (_SPRITE_SIDE - 1) / 2
    matrix = np.array(
        [
            [cosine, -sine, x - left - (cosine - sine) * centre],
            [sine, cosine, y - top - (sine + cosine) * centre],
        ]
    )
    box_size = (right - left, bottom - top)
    colour = cv2.warpAffine(sprite.colour, matrix, box_size, borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.warpAffine(sprite.opacity, matrix, box_size)
    box = picture[top:bottom, left:right]
    box[:] = cv2.blendLinear(box, colour, 1 - opacity, opacity)
