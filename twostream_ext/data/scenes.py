# SPDX-License-Identifier: BSD-3-Clause
"""What generated videos show: for each set of classes, a function that draws the scene of one video of a class.

`two_streams` is the set of `twostream demo`. The others are there for the paper's tables: what tells their classes
apart, and which net can therefore see it, is said at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twostream_ext.data.drawing import (
    TEXTURES,
    Frame,
    Pose,
    Scene,
    Sprite,
    View,
    make_background,
    outline,
    soft_step,
    sprite_coordinates,
)
from twostream_ext.errors import SettingsError

APPEARANCES = ("Dotted", "Marbled", "Shaded", "Striped")
MOTIONS = ("Bobbing", "Resting", "Sliding", "Spinning")

_TURN = {"Spinning": (28.0, 48.0)}  # frames in which the advancing phase makes a full turn
_SWING = (14.0, 22.0)  # the same, of the other motions


class GeneratedSet(NamedTuple):
    """A set of videos that can be made."""

    classes: tuple[str, ...]
    draw: Callable[[np.random.Generator, int, tuple[int, int], int], Scene]
    """The scene of a video, of random numbers, class, (height, width) and number of frames."""
    text: str
    """What tells the classes apart, and which net can therefore do it."""


def find_generated(name: str) -> GeneratedSet:
    """A generated set by its name; SettingsError if there is none."""
    if name not in GENERATED:
        raise SettingsError(f"generated set is {name!r}, expected one of {', '.join(GENERATED)}")
    return GENERATED[name]


def _two_streams(random: np.random.Generator, label: int, size: tuple[int, int], frames: int) -> Scene:
    """An object of four appearances and four motions, of which one frame tells the one and flow tells the other.

    Whatever its class, the horizontal, vertical, angular and size phase of the object are drawn from the same
    distributions; the motion only decides which of them advances with time. All else is drawn alike for every class:
    outline, colours, size, speed, background, camera pan and distractors.
    """
    appearance, motion = APPEARANCES[label // len(MOTIONS)], MOTIONS[label % len(MOTIONS)]
    pan = random.uniform(-0.08, 0.08, 2) * [1.25, 1.0]  # way of the camera, in frame heights
    background = make_background(random, *size)
    sprites = [_distractor(random, frames) for _ in range(random.integers(2, 5))]
    sprites.append(_advancing(random, appearance, motion))
    return Scene(background, sprites, lambda index: View(*(pan * (index / frames - 0.5))))


def _advancing(random: np.random.Generator, appearance: str, motion: str) -> Sprite:
    """The object that carries the class, of which the motion lets one phase advance."""
    colour = _textured(random, appearance)
    middle = random.uniform(-0.05, 0.05, 2)
    reach = random.uniform(0.10, 0.16, 2)  # of the horizontal and the vertical swing
    radius = random.uniform(0.24, 0.42)
    # All three are drawn for every object, and its motion only lets one of them advance (Resting: none): so a single
    # frame does not tell the motion.
    phases = random.uniform(0, 2 * math.pi, 3)
    rate = random.choice([-1, 1]) * 2 * math.pi / random.uniform(*_TURN.get(motion, _SWING))
    advancing = np.array([motion == name for name in ("Sliding", "Bobbing", "Spinning")])

    def pose(index: int) -> Pose:
        across, down, angle = phases + advancing * rate * index
        return Pose(
            x=middle[0] + reach[0] * math.sin(across),
            y=middle[1] + reach[1] * math.sin(down),
            angle=angle,
            radius=radius,
        )

    return Sprite(colour, outline(random), pose)


def _textured(random: np.random.Generator, appearance: str) -> Frame:
    """A picture of a texture in two colours."""
    pattern = soft_step(4 * TEXTURES[appearance](random, *sprite_coordinates()))
    dark, light = random.uniform(10, 90, 3), random.uniform(165, 250, 3)
    if appearance == "Marbled":  # grey, as marble is, or its veins would look like stripes at this size
        dark, light = np.full(3, dark.mean()), np.full(3, light.mean())
    return (dark + (light - dark) * pattern[..., None]).astype(np.uint8)


def _distractor(random: np.random.Generator, frames: int) -> Sprite:
    """A small plain thing that drifts in a straight line."""
    x, _ = sprite_coordinates()
    colour = np.tile(random.uniform(20, 235, 3), (*x.shape, 1))
    middle = random.uniform([-0.65, -0.48], [0.65, 0.48])
    way = random.uniform(-0.2, 0.2, 2)
    angle, radius = random.uniform(0, 2 * math.pi), random.uniform(0.06, 0.11)

    def pose(index: int) -> Pose:
        place = middle + way * (index / frames - 0.5)
        return Pose(place[0], place[1], angle, radius)

    return Sprite(colour.astype(np.uint8), outline(random), pose)


class _Swing(NamedTuple):
    """A motion that comes back: parts of an object's pose that follow a sine of time."""

    parts: tuple[str, ...]  # of "across", "down", "turn" and "grow"; the second is a quarter of the period late
    period: float  # frames


class _Class(NamedTuple):
    """What tells a class apart; None: drawn for every video from what the classes of the set have."""

    appearance: str | None = None
    swing: _Swing | None = None


def _swinging(
    random: np.random.Generator,
    label: int,
    size: tuple[int, int],
    frames: int,
    *,
    classes: Sequence[_Class],
    appearances: Sequence[str],
    swings: Sequence[_Swing],
    shake: float,
    spin: float,
) -> Scene:
    """An object that swings before a wall and a few distractors.

    shake: highest speed of the camera along each axis, in frame heights a frame. The camera swings as objects do,
        with periods of the `swings`; so the whole field moves as an object of some other class might.
    spin: highest speed at which it turns, in radians a frame, and zooms, as a share of the size; in the same way.
    """
    appearance, swing = classes[label]
    appearance = appearance or str(random.choice(appearances))
    swing = swing or swings[int(random.integers(len(swings)))]
    background = make_background(random, *size, halves=4 if spin else 3)  # it ends outside what the camera sees
    shift = _camera_swings(random, swings, shake)
    sprites = [_distractor(random, frames) for _ in range(random.integers(1, 3))]
    sprites.append(_swinging_object(random, appearance, swing))
    change = _camera_swings(random, swings, spin)

    def camera(index: int) -> View:
        (x, y), (turn, growth) = shift(index), change(index)
        return View(x, y, turn, math.exp(growth))

    return Scene(background, sprites, camera)


def _camera_swings(
    random: np.random.Generator, swings: Sequence[_Swing], speed: float
) -> Callable[[int], npt.NDArray[np.float64]]:
    """Two swings of the camera, of which the highest speed is `speed` or down to half of it: how far each is when."""
    periods = random.choice([each.period for each in swings], 2) * random.uniform(0.9, 1.1, 2)
    phases = random.uniform(0, 2 * math.pi, 2)
    reach = random.uniform(0.5, 1.0, 2) * speed * periods / (2 * math.pi)
    return lambda index: np.asarray(reach * np.sin(phases + 2 * math.pi * index / periods))


def _swinging_object(random: np.random.Generator, appearance: str, swing: _Swing) -> Sprite:
    """The object that carries the class. Its edge has the same speeds whatever swings, and however slowly."""
    colour = _textured(random, appearance)
    middle = random.uniform([-0.2, -0.12], [0.2, 0.12])
    radius, angle = random.uniform(0.26, 0.36), random.uniform(0, 2 * math.pi)
    period = swing.period * random.uniform(0.9, 1.1)
    phase, direction = random.uniform(0, 2 * math.pi), random.choice([-1, 1])
    reach = random.uniform(0.02, 0.035) * period / (2 * math.pi)  # of the edge, in frame heights

    def pose(index: int) -> Pose:
        turns = phase + 2 * math.pi * index / period
        way = dict.fromkeys(("across", "down", "turn", "grow"), 0.0)
        for late, part in enumerate(swing.parts):
            way[part] = reach * direction**late * math.sin(turns - late * math.pi / 2)
        return Pose(
            middle[0] + way["across"], middle[1] + way["down"], angle + way["turn"] / radius, radius + way["grow"]
        )

    return Sprite(colour, outline(random), pose)


_SHIFTED = {"Across": ("across",), "Down": ("down",)}
_PLAIN = _SHIFTED | {"Turning": ("turn",)}
_GROWING = {"Growing": ("grow",)}
_CIRCLING = {"Circling": ("across", "down")}


def _swings(kinds: Mapping[str, tuple[str, ...]], **periods: float) -> dict[str, _Swing]:
    """Every kind at every period, by the name of both: "AcrossSlow"."""
    return {kind + name: _Swing(parts, period) for kind, parts in kinds.items() for name, period in periods.items()}


def _set(
    text: str,
    classes: Mapping[str, _Class],
    looks: Sequence[str],
    swings: Mapping[str, _Swing],
    *,
    shake: float = 0.01,
    spin: float = 0.0,
) -> GeneratedSet:
    """A set; `looks` and `swings` are what the classes have, or what is drawn from where they do not say."""
    draw = partial(
        _swinging,
        classes=list(classes.values()),
        appearances=looks,
        swings=list(swings.values()),
        shake=shake,
        spin=spin,
    )
    return GeneratedSet(tuple(classes), draw, text)


def _motion_alone(text: str, swings: Mapping[str, _Swing], *, shake: float = 0.01, spin: float = 0.0) -> GeneratedSet:
    """Objects of any look, told apart by how they move."""
    classes = {name: _Class(None, swing) for name, swing in swings.items()}
    return _set(text, classes, APPEARANCES, swings, shake=shake, spin=spin)


def _appearance_alone(text: str, looks: Sequence[str]) -> GeneratedSet:
    """Objects that move anyhow, told apart by their look."""
    return _set(text, {look: _Class(look, None) for look in looks}, looks, _swings(_PLAIN, Slow=24.0))


def _mixed(text: str, looks: Sequence[str], swings: Mapping[str, _Swing]) -> GeneratedSet:
    """Eight classes of six looks and six motions: two pairs of them look alike, and two other pairs move alike."""
    (a, b, c, d, e, f), (u, v, w, x, y, z) = looks, swings
    pairs = ((a, u), (a, v), (b, w), (b, x), (c, y), (d, y), (e, z), (f, z))
    return _set(text, {look + name: _Class(look, swings[name]) for look, name in pairs}, looks, swings)


_MIXED = (
    "Eight classes of six looks and six motions: a frame mixes up two pairs of classes, flow two other pairs, so that "
    "neither stream can pass 3 of 4 and both together can. "
)

GENERATED = {
    "two_streams": GeneratedSet(
        tuple(look + motion for look in APPEARANCES for motion in MOTIONS),
        _two_streams,
        "Four looks and four motions in all pairs: a frame tells the look, flow the motion, only both the class.",
    ),
    "shaken": _motion_alone(
        "An object swings across or down, fast, medium or slowly, with the same speeds at every period: one field "
        "tells the direction alone (1 of 3), and only how the fields follow each other tells the period, best where "
        "the stack spans it. The camera swings further than the object, with the same periods, so that the whole field "
        "moves as an object of another class would, unless its mean is subtracted. Camera and object move the points "
        "of a slow class by many pixels within a stack, which trajectories follow; bi-directional stacks span as many "
        "frames as others, and nothing forces them to win.",
        _swings(_SHIFTED, Fast=6.0, Medium=12.0, Slow=24.0),
        shake=0.05,
    ),
    "zoomed": _motion_alone(
        "An object swings across, down, in angle or in size, fast or medium, and the camera does all four at once and "
        "faster: the whole field moves as objects of other classes would. Subtracting its mean takes away what the "
        "camera pans; what it turns and zooms stays, and has no mean. The affine map takes away all.",
        _swings(_PLAIN | _GROWING, Fast=6.0, Medium=12.0),
        shake=0.05,
        spin=0.05,
    ),
    "many_motions": _motion_alone(
        "Four kinds of swing, fast and slow: the large set that a small one learns from.",
        _swings(_PLAIN | _GROWING, Fast=6.0, Slow=24.0),
    ),
    "few_motions": _motion_alone(
        "The kinds of swing of `many_motions` at a period between, and circling: no class of that set, but what its "
        "first layers learn serves here, where there are too few videos to learn it.",
        _swings(_PLAIN | _GROWING, Medium=12.0) | _swings(_CIRCLING, Fast=6.0, Slow=24.0),
    ),
    "many_looks": _appearance_alone(
        "Four patterns, coarse and fine: stands for ImageNet's pictures, of which spatial nets learn their layers.",
        [kind + size for kind in ("Barred", "Ringed", "Rayed", "Studded") for size in ("Coarse", "Fine")],
    ),
    "few_looks": _appearance_alone(
        "The patterns of `many_looks` at a size between, and checks: told by a frame alone, of too few videos to learn "
        "all layers from, so that starting from a net trained on `many_looks` must help.",
        ["BarredMiddle", "RingedMiddle", "RayedMiddle", "StuddedMiddle", "CheckedCoarse", "CheckedFine"],
    ),
    "many_mixed": _mixed(
        _MIXED + "With many videos.",
        ["BarredCoarse", "BarredFine", "RingedCoarse", "RingedFine", "CheckedCoarse", "CheckedFine"],
        _swings(_PLAIN, Fast=6.0, Slow=24.0),
    ),
    "few_mixed": _mixed(
        _MIXED + "With few videos, and other looks and periods than `many_mixed`.",
        ["BarredMiddle", "RingedMiddle", "RayedMiddle", "StuddedMiddle", "CheckedCoarse", "CheckedFine"],
        _swings(_PLAIN | _GROWING, Medium=12.0) | _swings(_CIRCLING, Fast=6.0, Slow=24.0),
    ),
}
"""The sets by name."""
