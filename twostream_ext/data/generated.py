# SPDX-License-Identifier: BSD-3-Clause
"""Generated videos: real video files whose classes need both streams.

A class is an appearance (the texture of one object) and a motion (how that object moves). Whatever
its class, a video draws the horizontal, vertical, angular and size phase of its object from the same
distributions; the motion only decides which of the four phases advances with time. So one frame
says nothing about the motion. All else is drawn alike for every class: outline, colours, size,
speed, background, camera pan and distractors.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import SettingsError
from twostream_ext.files import atomic_write, remove_leftovers
from twostream_ext.media import write_mp4
from twostream_ext.settings_files import claim

APPEARANCES = ("Dotted", "Marbled", "Shaded", "Striped")
MOTIONS = ("Bobbing", "Resting", "Sliding", "Spinning")
CLASSES = tuple(appearance + motion for appearance in APPEARANCES for motion in MOTIONS)
FRAMES_PER_SECOND = 25.0

_SETTINGS_FILE = "clips.json"  # its name since 0.1.0, whose folders are still completed
_RENDERING = 3  # to be raised whenever the same seed gives other pixels
_SPRITE_SIDE = 64  # pixels
_TURN = {"Spinning": (28.0, 48.0)}  # frames in which the advancing phase makes a full turn
_SWING = (14.0, 22.0)  # the same, of the other motions

FloatArray = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]


class _Pose(NamedTuple):
    x: float  # of the centre, in frame heights from the middle of the frame, right
    y: float  # the same, down
    angle: float  # radians
    radius: float  # frame heights


class _Sprite(NamedTuple):
    """A moving thing; its picture spans [-1, 1] in units of its radius."""

    colour: Frame  # [side, side, 3]
    opacity: FloatArray  # [side, side]
    pose: Callable[[int], _Pose]


class _Planned(NamedTuple):
    """A video to make: its class, its name without folder, and the key of its random draws."""

    label: int
    name: str
    draw: np.random.SeedSequence


def render_video(
    label: int, draw: np.random.SeedSequence, *, size: tuple[int, int] = (96, 128), frames: int = 24
) -> Iterator[Frame]:
    """Yield the `frames` frames, uint8 RGB [H, W, 3], of a video of class `CLASSES[label]`.

    Everything random comes from `draw`: the same draw gives the same pixels.
    """
    random = np.random.default_rng(draw)
    appearance, motion = APPEARANCES[label // len(MOTIONS)], MOTIONS[label % len(MOTIONS)]
    height, width = size
    pan = random.uniform(-0.08, 0.08, 2) * [1.25, 1.0]  # way of the camera, in frame heights
    background = _background(random, height, width)
    sprites = [_distractor(random, frames) for _ in range(random.integers(2, 5))]
    sprites.append(_object(random, appearance, motion))
    for index in range(frames):
        camera = pan * (index / frames - 0.5)
        picture = _seen(background, camera, height, width)
        for sprite in sprites:
            _paint(picture, sprite, camera, index)
        yield picture


def _object(random: np.random.Generator, appearance: str, motion: str) -> _Sprite:
    """The object that carries the class."""
    x, y = _sprite_coordinates()
    pattern = _soft_step(4 * _TEXTURES[appearance](random, x, y))
    dark, light = random.uniform(10, 90, 3), random.uniform(165, 250, 3)
    if appearance == "Marbled":  # grey, as marble is, or its veins would look like stripes at this size
        dark, light = np.full(3, dark.mean()), np.full(3, light.mean())
    colour = dark + (light - dark) * pattern[..., None]
    middle = random.uniform(-0.05, 0.05, 2)
    reach = random.uniform(0.10, 0.16, 2)  # of the horizontal and the vertical swing
    radius = random.uniform(0.24, 0.42)
    # All three are drawn for every object, and its motion only lets one of them advance (Resting: none): so a single
    # frame does not tell the motion.
    phases = random.uniform(0, 2 * math.pi, 3)
    rate = random.choice([-1, 1]) * 2 * math.pi / random.uniform(*_TURN.get(motion, _SWING))
    advancing = np.array([motion == name for name in ("Sliding", "Bobbing", "Spinning")])

    def pose(index: int) -> _Pose:
        across, down, angle = phases + advancing * rate * index
        return _Pose(
            x=middle[0] + reach[0] * math.sin(across),
            y=middle[1] + reach[1] * math.sin(down),
            angle=angle,
            radius=radius,
        )

    return _Sprite(colour.astype(np.uint8), _outline(random, x, y), pose)


def _distractor(random: np.random.Generator, frames: int) -> _Sprite:
    """A small plain thing that drifts in a straight line."""
    x, y = _sprite_coordinates()
    colour = np.tile(random.uniform(20, 235, 3), (*x.shape, 1))
    middle = random.uniform([-0.65, -0.48], [0.65, 0.48])
    way = random.uniform(-0.2, 0.2, 2)
    angle, radius = random.uniform(0, 2 * math.pi), random.uniform(0.06, 0.11)

    def pose(index: int) -> _Pose:
        place = middle + way * (index / frames - 0.5)
        return _Pose(place[0], place[1], angle, radius)

    return _Sprite(colour.astype(np.uint8), _outline(random, x, y), pose)


def _sprite_coordinates() -> tuple[FloatArray, FloatArray]:
    line = np.linspace(-1, 1, _SPRITE_SIDE, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _soft_step(value: FloatArray) -> FloatArray:
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


# Each gives a value for every pixel of the sprite: light where positive, dark where negative.
_TEXTURES = {
    "Dotted": _dotted,
    "Marbled": _marbled,
    "Shaded": _shaded,
    "Striped": _striped,
}


def _outline(random: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Opacity of a blob that touches neither edge of the sprite."""
    direction = np.arctan2(y, x)
    waves = [
        random.uniform(0, 0.09) * np.sin(count * direction + random.uniform(0, 2 * math.pi)) for count in (2, 3, 4)
    ]
    border = 0.7 + np.sum(waves, axis=0)
    return _soft_step((border - np.hypot(x, y)) * _SPRITE_SIDE / 4)


def _background(random: np.random.Generator, height: int, width: int) -> Frame:
    """A low-contrast cloudy wall, a quarter larger than the frame on each side."""
    rows, columns = height * 3 // 2, width * 3 // 2
    wall = np.tile(random.uniform(70, 180, 3).astype(np.float32), (rows, columns, 1))
    for cells, contrast in ((3, 20.0), (9, 14.0), (30, 9.0)):
        shape = (cells, cells * columns // rows)
        noise = random.normal(0, contrast, (*shape, 1))  # mostly grey
        noise = noise + random.normal(0, contrast / 2, (*shape, 3))
        wall += cv2.resize(noise.astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.clip(wall, 0, 255).astype(np.uint8)


def _seen(wall: Frame, camera: npt.NDArray[np.float64], height: int, width: int) -> Frame:
    """The part of the wall that the camera sees, [height, width, 3]; `camera` is in heights."""
    x, y = camera * height - [width / 4, height / 4]
    matrix = np.array([[1, 0, x], [0, 1, y]])
    return np.asarray(cv2.warpAffine(wall, matrix, (width, height)), dtype=np.uint8)


def _paint(picture: Frame, sprite: _Sprite, camera: npt.NDArray[np.float64], index: int) -> None:
    """Lay a sprite over frame number `index`, in place."""
    height, width = picture.shape[:2]
    pose = sprite.pose(index)
    radius = pose.radius * height
    x = (pose.x + camera[0]) * height + (width - 1) / 2
    y = (pose.y + camera[1]) * height + (height - 1) / 2
    # The outline stays inside the circle of one radius, so this box holds all of it.
    left, right = max(math.floor(x - radius), 0), min(math.ceil(x + radius) + 1, width)
    top, bottom = max(math.floor(y - radius), 0), min(math.ceil(y + radius) + 1, height)
    if left >= right or top >= bottom:
        return
    scale = 2 * radius / _SPRITE_SIDE
    cosine, sine = scale * math.cos(pose.angle), scale * math.sin(pose.angle)
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


def generate_videos(
    out_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    train_per_class: int = 24,
    test_per_class: int = 8,
    size: tuple[int, int] = (96, 128),
    frames: int = 24,
) -> None:
    """Write a set of video files and its lists in UCF-101's format.

    `out_dir` receives `<Class>/v_<Class>_gGG_c01.mp4` for each of the 16 `CLASSES`, `classInd.txt`,
    `trainlist01.txt` and `testlist01.txt`. Groups count from 1 and the first are the test videos,
    as in UCF-101; every video is a group of its own, drawn independently of all others.
    `size` is (height, width) in pixels, both even; the videos have `frames` frames.

    Videos that are already there are kept, so a broken-off call can be repeated and a call on a
    whole set returns at once. A folder that holds anything but a set of the same settings raises
    `SettingsError`; a video that cannot be written raises `VideoError`.
    """
    _check_settings(train_per_class, test_per_class, size, frames)
    root = Path(out_dir)
    _claim_folder(
        root,
        {
            "rendering": _RENDERING,
            "seed": seed,
            "train_per_class": train_per_class,
            "test_per_class": test_per_class,
            "size": list(size),
            "frames": frames,
        },
    )
    train_draw, test_draw = np.random.SeedSequence(seed).spawn(2)
    test = _plan(test_draw, test_per_class, first_group=1)
    train = _plan(train_draw, train_per_class, first_group=test_per_class + 1)
    missing = [video for video in train + test if not (root / _listed_name(video)).exists()]
    remove_leftovers(root)
    for video in missing:
        pictures = render_video(video.label, video.draw, size=size, frames=frames)
        write_mp4(root / _listed_name(video), pictures, FRAMES_PER_SECOND)
    _write_lines(root / "classInd.txt", [f"{i} {name}" for i, name in enumerate(CLASSES, 1)])
    _write_lines(root / "trainlist01.txt", [f"{_listed_name(video)} {video.label + 1}" for video in train])
    _write_lines(root / "testlist01.txt", [_listed_name(video) for video in test])


def _check_settings(train: int, test: int, size: tuple[int, int], frames: int) -> None:
    for name, value, least in (
        ("train_per_class", train, 1),
        ("test_per_class", test, 1),
        ("frames", frames, 2),
    ):
        if value < least:
            raise SettingsError(f"generate_videos: {name} is {value}, expected at least {least}")
    if min(size) < 32 or size[0] % 2 or size[1] % 2:
        raise SettingsError(f"generate_videos: size is {size}, expected even numbers of at least 32")


def _claim_folder(root: Path, settings: dict[str, int | list[int]]) -> None:
    """Note the settings in the folder, or check that it was begun with the same ones."""
    path = root / _SETTINGS_FILE
    is_empty = not root.exists() or all(entry.name.startswith(".") for entry in root.iterdir())
    if not is_empty and not path.exists():  # in this order: another process may begin a set at this moment
        raise SettingsError(f"{root}: expected an empty folder or generated videos")
    claim(path, settings, SettingsError)


def _plan(draw: np.random.SeedSequence, per_class: int, *, first_group: int) -> list[_Planned]:
    draws = iter(draw.spawn(len(CLASSES) * per_class))
    return [
        _Planned(label, f"v_{name}_g{group:02d}_c01", next(draws))
        for label, name in enumerate(CLASSES)
        for group in range(first_group, first_group + per_class)
    ]


def _listed_name(video: _Planned) -> str:
    return f"{CLASSES[video.label]}/{video.name}.mp4"


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
