# SPDX-License-Identifier: BSD-3-Clause
"""Folders of numbered images, which stand for a video: img_00001.jpg (TSN), frame_0000000001.jpg (EPIC), ..."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from twostream_ext.errors import VideoError

_NAME = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)(?P<ending>\.(?:jpg|jpeg|png))", re.IGNORECASE | re.DOTALL)

# Flow that other tools have put beside the frames: x_00001.jpg, flow_x_00001.jpg, flow_y_m1_00001.jpg, flow_00001.png
_FLOW_PREFIX = re.compile(r"(?:(?:flow_)?[xy]_|flow_)(?:[pm][0-9]+_)?")


class NumberedImages(NamedTuple):
    pattern: str  # their names as FFmpeg wants them
    first: int  # number of the first


def is_numbered_images(files: Iterable[str]) -> bool:
    """Whether the names of the files in a folder look like those of the frames of a video: two numbers of a series."""
    return any(len(numbers) > 1 for numbers in _group(files).values())


def find_numbered_images(folder: Path) -> NumberedImages:
    """The frames in a folder; VideoError, naming it, if there are none, two series of them, or one is missing."""
    try:
        groups = _group(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read: {error.strerror}") from error
    if not groups:
        raise VideoError(f"{folder}: is a directory without numbered images (img_00001.jpg, ...)")
    if len(groups) > 1:
        shown = " and ".join(f"{prefix}*{ending}" for prefix, ending in sorted(groups))
        raise VideoError(f"{folder}: holds images of several kinds ({shown}), which may be of several videos")
    ((prefix, ending), numbers) = next(iter(groups.items()))
    width = min(map(len, numbers))
    first = min(map(int, numbers))
    for number in range(first, first + len(numbers)):
        if f"{number:0{width}d}" not in numbers:
            raise VideoError(f"{folder}: {prefix}{number:0{width}d}{ending} is missing of {len(numbers)} images")
    start = f"{folder.absolute()}{os.sep}{prefix}".replace("%", "%%")
    return NumberedImages(f"{start}%0{width}d{ending.replace('%', '%%')}", first)


def is_flow_image(name: str) -> bool:
    """Whether an image has a name that tools give to flow which they put beside a video's frames."""
    found = _NAME.fullmatch(name)
    return found is not None and _FLOW_PREFIX.fullmatch(found["prefix"]) is not None


def list_images(folder: Path) -> list[Path]:
    """The files of all numbered images in a folder, by name; OSError if it cannot be read."""
    groups = _group(entry.name for entry in os.scandir(folder))
    names = (f"{prefix}{number}{ending}" for (prefix, ending), numbers in groups.items() for number in numbers)
    return [folder / name for name in sorted(names)]


def _group(files: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """The numbers, as written, by what stands before and behind them."""
    groups: dict[tuple[str, str], set[str]] = {}
    for name in files:
        found = _NAME.fullmatch(name)
        if found and not name.startswith(".") and not _FLOW_PREFIX.fullmatch(found["prefix"]):
            groups.setdefault((found["prefix"], found["ending"]), set()).add(found["number"])
    return groups
