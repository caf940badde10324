# SPDX-License-Identifier: BSD-3-Clause
"""Generated videos: real video files of a set of classes that can be drawn, with lists in UCF-101's format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from twostream_ext.data.drawing import Frame, draw_frames
from twostream_ext.data.scenes import find_generated
from twostream_ext.errors import SettingsError
from twostream_ext.files import atomic_write, remove_leftovers
from twostream_ext.media import write_mp4
from twostream_ext.settings_files import claim

FRAMES_PER_SECOND = 25.0

_SETTINGS_FILE = "clips.json"  # its name since 0.1.0, whose folders are still completed
_RENDERING = 3  # to be raised whenever the same seed gives other pixels
_UNNOTED = {"scenes": "two_streams", "splits": 1}  # all that 0.1.0 knew


class _Planned(NamedTuple):
    """A video to make: its class by number and name, its group, and the key of its random draws."""

    label: int
    of_class: str
    group: int
    draw: np.random.SeedSequence


def render_video(
    label: int,
    draw: np.random.SeedSequence,
    *,
    scenes: str = "two_streams",
    size: tuple[int, int] = (96, 128),
    frames: int = 24,
) -> Iterator[Frame]:
    """Yield the `frames` frames, uint8 RGB [H, W, 3], of a video of class `label` of a generated set.

    Everything random comes from `draw`: the same draw gives the same pixels.
    """
    scene = find_generated(scenes).draw(np.random.default_rng(draw), label, size, frames)
    return draw_frames(scene, size, frames)


def generate_videos(
    out_dir: str | os.PathLike[str],
    *,
    scenes: str = "two_streams",
    seed: int = 0,
    train_per_class: int = 24,
    test_per_class: int = 8,
    splits: int = 1,
    size: tuple[int, int] = (96, 128),
    frames: int = 24,
) -> None:
    """Write a set of video files and its lists in UCF-101's format.

    `scenes` is one of `GENERATED`. `out_dir` receives `<Class>/v_<Class>_gGG_c01.mp4` for each of its classes,
    `classInd.txt`, and `trainlist0N.txt` and `testlist0N.txt` of each of the `splits`. Groups count from 1; the first
    `test_per_class` are the test videos of split 1, the next of split 2, and so on, and the `train_per_class` others
    train, as in UCF-101; every video is a group of its own, drawn independently of all others.
    `size` is (height, width) in pixels, both even; the videos have `frames` frames.

    Videos that are already there are kept, so a broken-off call can be repeated and a call on a
    whole set returns at once. A folder that holds anything but a set of the same settings raises
    `SettingsError`; a video that cannot be written raises `VideoError`.
    """
    always_train = train_per_class - (splits - 1) * test_per_class  # groups that are test videos of no split
    _check_settings(always_train, test_per_class, splits, size, frames)
    classes = find_generated(scenes).classes
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
            "scenes": scenes,
            "splits": splits,
        },
    )
    train_draw, test_draw = np.random.SeedSequence(seed).spawn(2)
    tested = splits * test_per_class
    videos = _plan(classes, test_draw, tested, first_group=1)
    videos += _plan(classes, train_draw, always_train, first_group=tested + 1)
    missing = [video for video in videos if not (root / _listed_name(video)).exists()]
    remove_leftovers(root)
    for video in missing:
        pictures = render_video(video.label, video.draw, scenes=scenes, size=size, frames=frames)
        write_mp4(root / _listed_name(video), pictures, FRAMES_PER_SECOND)
    _write_lines(root / "classInd.txt", [f"{i} {name}" for i, name in enumerate(classes, 1)])
    for split in range(1, splits + 1):
        groups = range((split - 1) * test_per_class + 1, split * test_per_class + 1)
        train = [f"{_listed_name(video)} {video.label + 1}" for video in videos if video.group not in groups]
        test = [_listed_name(video) for video in videos if video.group in groups]
        _write_lines(root / f"trainlist{split:02d}.txt", train)
        _write_lines(root / f"testlist{split:02d}.txt", test)


def _check_settings(always_train: int, test: int, splits: int, size: tuple[int, int], frames: int) -> None:
    for name, value, least in (
        ("splits", splits, 1),
        ("test_per_class", test, 1),
        ("train_per_class less the test videos of other splits", always_train, 1),
        ("frames", frames, 2),
    ):
        if value < least:
            raise SettingsError(f"generate_videos: {name} is {value}, expected at least {least}")
    if min(size) < 32 or size[0] % 2 or size[1] % 2:
        raise SettingsError(f"generate_videos: size is {size}, expected even numbers of at least 32")


def _claim_folder(root: Path, settings: dict[str, int | str | list[int]]) -> None:
    """Note the settings in the folder, or check that it was begun with the same ones."""
    path = root / _SETTINGS_FILE
    is_empty = not root.exists() or all(entry.name.startswith(".") for entry in root.iterdir())
    if not is_empty and not path.exists():  # in this order: another process may begin a set at this moment
        raise SettingsError(f"{root}: expected an empty folder or generated videos")
    claim(path, settings, SettingsError, unnoted=_UNNOTED)


def _plan(classes: Sequence[str], draw: np.random.SeedSequence, per_class: int, *, first_group: int) -> list[_Planned]:
    draws = iter(draw.spawn(len(classes) * per_class))
    return [
        _Planned(label, name, group, next(draws))
        for label, name in enumerate(classes)
        for group in range(first_group, first_group + per_class)
    ]


def _listed_name(video: _Planned) -> str:
    return f"{video.of_class}/v_{video.of_class}_g{video.group:02d}_c01.mp4"


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
