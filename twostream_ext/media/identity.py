# SPDX-License-Identifier: BSD-3-Clause
"""Which video a clip was made of: told by content, without reading all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twostream_ext.errors import VideoError
from twostream_ext.media.numbered_images import list_images

NOTED_AS = "video"
"""What a clip's description calls the fingerprint of its video."""

_END = 1 << 16  # bytes


def video_fingerprint(path: str | os.PathLike[str]) -> str:
    """Another for another video, as far as its size and its first and last 64 KB tell.

    Of a folder of images, names and sizes of all are taken, and the bytes of the first and the last. Times do not
    count: a copy is the same video.

    VideoError, naming it, if it cannot be read.
    """
    try:
        return files_fingerprint(list_images(Path(path)) if Path(path).is_dir() else [Path(path)])
    except FileNotFoundError:
        raise VideoError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except IndexError:
        raise VideoError(f"{path}: holds no images") from None


def files_fingerprint(files: Sequence[Path]) -> str:
    """`video_fingerprint` of the images of a video; OSError if one cannot be read, IndexError if there are none."""
    found = hashlib.sha256(repr([(file.name, file.stat().st_size) for file in files[1:]]).encode())
    for file in dict.fromkeys((files[0], files[-1])):
        found.update(_ends(file))
    return found.hexdigest()[:32]


def is_made_of(description: Mapping[str, Any], path: str | os.PathLike[str]) -> bool:
    """Whether a clip with this description is of the video that is there, as far as both can be told.

    Clips of 0.1.0 do not note of which they are; a video that is gone, or cannot be read, is taken for the same.
    """
    noted = description.get(NOTED_AS)
    if noted is None:
        return True
    try:
        return bool(video_fingerprint(path) == noted)
    except VideoError:
        return True


def _ends(path: Path) -> bytes:
    """Size, head and tail of a file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_END)
        file.seek(max(len(head), size - _END))
        return b"%d %b %b" % (size, head, file.read(_END))
