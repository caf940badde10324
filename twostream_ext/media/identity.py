# SPDX-License-Identifier: BSD-3-Clause
"""Which video a clip was made of: told by content, without reading all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twostream_ext.media.numbered_images import list_images

NOTED_AS = "video"
"""What a clip's description calls the fingerprint of its video."""

_END = 1 << 16  # bytes


def video_fingerprint(path: str | os.PathLike[str]) -> str | None:
    """Another for another video, as far as its size and its first and last 64 KB tell; None if it cannot be read.

    Of a folder of images, names and sizes of all are taken, and the bytes of the first and the last. Times do not
    count: a copy is the same video.
    """
    try:
        files = list_images(Path(path)) if Path(path).is_dir() else [Path(path)]
        found = hashlib.sha256(repr([(file.name, file.stat().st_size) for file in files[1:]]).encode())
        for file in dict.fromkeys((files[0], files[-1])):
            found.update(_ends(file))
    except (OSError, ValueError, IndexError):
        return None
    return found.hexdigest()[:32]


def is_made_of(description: Mapping[str, Any], path: str | os.PathLike[str]) -> bool:
    """Whether a clip with this description is of the video that is there, as far as both can be told.

    Clips of 0.1.0 do not note of which they are.
    """
    noted = description.get(NOTED_AS)
    return noted is None or video_fingerprint(path) in (noted, None)


def _ends(path: Path) -> bytes:
    """Size, head and tail of a file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_END)
        file.seek(max(len(head), size - _END))
        return b"%d %b %b" % (size, head, file.read(_END))
