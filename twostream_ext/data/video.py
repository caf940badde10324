# SPDX-License-Identifier: BSD-3-Clause
"""Reading video files; defined in `twostream_ext.flow.video`, as extraction needs it."""

from twostream_ext.flow.video import (
    FALLBACK_FPS,
    VIDEO_EXTENSIONS,
    OpenVideo,
    open_video,
    read_video,
    video_fps,
)

__all__ = [
    "FALLBACK_FPS",
    "VIDEO_EXTENSIONS",
    "OpenVideo",
    "open_video",
    "read_video",
    "video_fps",
]
