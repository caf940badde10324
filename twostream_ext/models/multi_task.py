# SPDX-License-Identifier: BSD-3-Clause
"""Two data sets in one softmax: the "classes added" row of table 2."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from twostream_ext.errors import SettingsError

UCF101_LIKE_HMDB51 = {
    "Archery": "shoot_bow",
    "BaseballPitch": "throw",
    "Basketball": "shoot_ball",
    "BasketballDunk": "shoot_ball",
    "Biking": "ride_bike",
    "CliffDiving": "dive",
    "Diving": "dive",
    "Fencing": "fencing",
    "FloorGymnastics": "flic_flac",
    "GolfSwing": "golf",
    "HandstandPushups": "handstand",
    "HandstandWalking": "handstand",
    "HorseRace": "ride_horse",
    "HorseRiding": "ride_horse",
    "LongJump": "jump",
    "PullUps": "pullup",
    "Punch": "punch",
    "PushUps": "pushup",
    "RockClimbingIndoor": "climb",
    "RopeClimbing": "climb",
    "SoccerPenalty": "kick_ball",
    "WalkingWithDog": "walk",
    "WallPushups": "pushup",
}
"""The 23 classes of UCF-101 to leave out beside HMDB-51, each with the class there that it repeats: 78 are added.

Our choice: the paper made its own by hand and does not list it.
"""


class AddedClasses(NamedTuple):
    """Classes of one softmax over two data sets."""

    names: list[str]
    """Of all classes: those of the first data set in their order, so that its labels stay, then those added."""
    labels: list[int | None]
    """The label in this softmax of each class of the second data set; None for one left out."""


def add_classes(classes: Sequence[str], others: Sequence[str], *, leave_out: Collection[str] = ()) -> AddedClasses:
    """Add the classes of a second data set to those of the first, as the paper adds 78 of UCF-101 to HMDB-51.

    leave_out: classes of the second data set that mean what one of the first does; for UCF-101 beside HMDB-51,
        `UCF101_LIKE_HMDB51`.

    SettingsError if a class to be left out is not there, or if one name would stand for two classes.
    """
    unknown = sorted(set(leave_out) - set(others))
    if unknown:
        raise SettingsError(f"add_classes: leave_out has {unknown[0]!r}, which is not a class of the second data set")
    added = [name for name in others if name not in leave_out]
    names = [*classes, *added]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"add_classes: class {name!r} comes twice; leave out the second")
    label = {name: number for number, name in enumerate(names)}
    return AddedClasses(names, [None if name in leave_out else label[name] for name in others])
