# SPDX-License-Identifier: BSD-3-Clause
"""The videos in a folder and its folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twostream_ext.errors import TwoStreamError, VideoError
from twostream_ext.media.directory import clip_name, list_folders
from twostream_ext.media.numbered_images import is_numbered_images
from twostream_ext.media.video import VIDEO_EXTENSIONS


def list_videos(root: Path, wrong: type[TwoStreamError] = VideoError) -> Iterator[tuple[str, str]]:
    """All videos in a folder, files and folders of numbered images, each with its path there and its clip's name.

    `wrong`, naming it, for a folder that cannot be read.
    """
    for folder, files in list_folders(root, wrong):
        if is_numbered_images(files) and folder != ".":
            yield folder, folder  # which may have a dot in its name
        for each in files:
            if each.lower().endswith(VIDEO_EXTENSIONS) and not each.startswith("."):
                file = each if folder == "." else f"{folder}/{each}"
                yield file, clip_name(file)
