# SPDX-License-Identifier: BSD-3-Clause
"""Videos, their lists, and training batches of them; generated clips."""

from twostream_ext.data.batches import read_batches
from twostream_ext.data.clips import make_clips
from twostream_ext.data.inputs import FlowStacks, FrameRuns, InputBatch, Inputs
from twostream_ext.data.lists import Split, Video, read_ucf_lists
from twostream_ext.data.sampling import BatchPlan, class_uniform_draws, equally_spaced
from twostream_ext.data.video_sets import ClipSource, UCFLists, VideoSet, join_video_sets

__all__ = [
    "BatchPlan",
    "ClipSource",
    "FlowStacks",
    "FrameRuns",
    "InputBatch",
    "Inputs",
    "Split",
    "UCFLists",
    "Video",
    "VideoSet",
    "class_uniform_draws",
    "equally_spaced",
    "join_video_sets",
    "make_clips",
    "read_batches",
    "read_ucf_lists",
]
