# SPDX-License-Identifier: BSD-3-Clause
"""The store of frames; defined in `twostream_ext.flow.frames`, as extraction fills it."""

from twostream_ext.flow.frames import FrameClip, FrameSettings, FrameStore, write_frame_clip

__all__ = ["FrameClip", "FrameSettings", "FrameStore", "write_frame_clip"]
