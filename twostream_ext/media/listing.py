# SPDX-License-Identifier: BSD-3-Clause
"""The videos in a folder and its folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twostream_ext.errors import TwoStreamError, VideoError
from twostream_ext.media.directory import list_folders
from twostream_ext.media.numbered_images import is_numbered_images
from twostream_ext.media.video import VIDEO_EXTENSIONS


def list_videos(root: Path, wrong: type[TwoStreamError] = VideoError) -> Iterator[str]:
    """The paths in a folder of all videos: files, "A/b.avi", and folders of numbered images, "A/b".

    `wrong`, naming it, for a folder that cannot be read.
    """
    for folder, files in list_folders(root, wrong):
        if is_numbered_images(files) and folder != ".":
            yield folder
        for file in files:
            if Path(file).suffix.lower() in VIDEO_EXTENSIONS and not file.startswith("."):
                yield file if folder == "." else f"{folder}/{file}"
