# SPDX-License-Identifier: BSD-3-Clause
"""Videos to stores of their flow and frames: by threads, processes, a cluster, and again after a kill."""

from twostream_ext.optional_packages import FLOW_PACKAGES, need_packages

need_packages("twostream_ext.extraction", "flow", FLOW_PACKAGES)

from twostream_ext.extraction.denseflow import Processed, denseflow
from twostream_ext.extraction.executors import Progress, dask_executor
from twostream_ext.extraction.extract import extract, find_videos
from twostream_ext.extraction.job import code_fields, quantize_fields, writing

__all__ = [
    "Processed",
    "Progress",
    "code_fields",
    "dask_executor",
    "denseflow",
    "extract",
    "find_videos",
    "quantize_fields",
    "writing",
]
