# SPDX-License-Identifier: BSD-3-Clause
"""Videos, their lists, and training batches of them; generated videos."""

from twostream_ext.data import readers
from twostream_ext.data.batches import read_batches
from twostream_ext.data.generated import generate_videos
from twostream_ext.data.inputs import FlowStacks, FrameRuns, InputBatch, Inputs
from twostream_ext.data.lists import Split, Video, read_ucf_lists
from twostream_ext.data.sampling import BatchPlan, class_uniform_draws, equally_spaced, hold_out
from twostream_ext.data.scenes import GENERATED, GeneratedSet, find_generated
from twostream_ext.data.video_sets import ClipSource, UCFLists, VideoSet, join_video_sets

__all__ = [
    "GENERATED",
    "BatchPlan",
    "ClipSource",
    "FlowStacks",
    "FrameRuns",
    "GeneratedSet",
    "InputBatch",
    "Inputs",
    "Split",
    "UCFLists",
    "Video",
    "VideoSet",
    "class_uniform_draws",
    "equally_spaced",
    "find_generated",
    "generate_videos",
    "hold_out",
    "join_video_sets",
    "read_batches",
    "read_ucf_lists",
    "readers",
]
