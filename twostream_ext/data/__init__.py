# SPDX-License-Identifier: BSD-3-Clause
"""Videos, their lists, and training batches of them; generated videos."""

from twostream_ext.optional_packages import FLOW_PACKAGES, need_packages

need_packages("twostream_ext.data", "flow", FLOW_PACKAGES)

from twostream_ext.data import readers
from twostream_ext.data.batches import read_batches
from twostream_ext.data.data_sets import DataSet, Folders, HMDBLists, TSNLists, UCFLists, find_doubts
from twostream_ext.data.folders import split_folders
from twostream_ext.data.generated import generate_videos
from twostream_ext.data.hmdb import read_hmdb_lists
from twostream_ext.data.inputs import FlowStacks, FrameRuns, InputBatch, Inputs
from twostream_ext.data.sampling import BatchPlan, class_uniform_draws, equally_spaced, hold_out
from twostream_ext.data.scenes import GENERATED, GeneratedSet, find_generated
from twostream_ext.data.sources import (
    FOLDERS,
    FORMATS,
    DataSource,
    OpenedData,
    describe_data,
    find_format,
    listed_splits,
    open_data,
    read,
    read_source,
)
from twostream_ext.data.split import Split, Video
from twostream_ext.data.tsn import read_tsn_lists
from twostream_ext.data.ucf import read_ucf_lists, write_ucf_lists
from twostream_ext.data.video_sets import ClipSource, VideoSet, join_video_sets

__all__ = [
    "FOLDERS",
    "FORMATS",
    "GENERATED",
    "BatchPlan",
    "ClipSource",
    "DataSet",
    "DataSource",
    "FlowStacks",
    "Folders",
    "FrameRuns",
    "GeneratedSet",
    "HMDBLists",
    "InputBatch",
    "Inputs",
    "OpenedData",
    "Split",
    "TSNLists",
    "UCFLists",
    "Video",
    "VideoSet",
    "class_uniform_draws",
    "describe_data",
    "equally_spaced",
    "find_doubts",
    "find_format",
    "find_generated",
    "generate_videos",
    "hold_out",
    "join_video_sets",
    "listed_splits",
    "open_data",
    "read",
    "read_batches",
    "read_hmdb_lists",
    "read_source",
    "read_tsn_lists",
    "read_ucf_lists",
    "readers",
    "split_folders",
    "write_ucf_lists",
]
