# SPDX-License-Identifier: BSD-3-Clause
"""Files of moving pictures: videos, coded planes and frames, and the stores that hold them."""

from twostream_ext.optional_packages import FLOW_PACKAGES, need_packages

need_packages("twostream_ext.media", "flow", FLOW_PACKAGES)

from twostream_ext.media import container, directory, jpeg, png
from twostream_ext.media.conversion import Frame
from twostream_ext.media.decoding import FALLBACK_FPS, Damage
from twostream_ext.media.frame_batch import FrameBatch, read_frame_batch
from twostream_ext.media.frames import (
    FrameClip,
    FrameSettings,
    FramesInMemory,
    FrameStore,
    code_frame,
    write_coded_frames,
    write_frame_clip,
)
from twostream_ext.media.identity import NOTED_AS, files_fingerprint, is_made_of, video_fingerprint
from twostream_ext.media.jpeg import CODECS, check_codec
from twostream_ext.media.listing import list_videos
from twostream_ext.media.mp4 import Picture, check_mp4, write_mp4
from twostream_ext.media.numbered_images import is_flow_image, is_numbered_images
from twostream_ext.media.random_access import FrameReader
from twostream_ext.media.raw import RAW_PIXELS, RawFrames, open_camera, open_raw
from twostream_ext.media.video import (
    VIDEO_EXTENSIONS,
    OpenVideo,
    VideoFrame,
    check_rate,
    check_smallest_side,
    open_as,
    open_video,
    read_video,
    video_fps,
)

__all__ = [
    "CODECS",
    "FALLBACK_FPS",
    "NOTED_AS",
    "RAW_PIXELS",
    "VIDEO_EXTENSIONS",
    "Damage",
    "Frame",
    "FrameBatch",
    "FrameClip",
    "FrameReader",
    "FrameSettings",
    "FrameStore",
    "FramesInMemory",
    "OpenVideo",
    "Picture",
    "RawFrames",
    "VideoFrame",
    "check_codec",
    "check_mp4",
    "check_rate",
    "check_smallest_side",
    "code_frame",
    "container",
    "directory",
    "files_fingerprint",
    "is_flow_image",
    "is_made_of",
    "is_numbered_images",
    "jpeg",
    "list_videos",
    "open_as",
    "open_camera",
    "open_raw",
    "open_video",
    "png",
    "read_frame_batch",
    "read_video",
    "video_fingerprint",
    "video_fps",
    "write_coded_frames",
    "write_frame_clip",
    "write_mp4",
]
