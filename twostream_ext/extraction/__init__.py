# SPDX-License-Identifier: BSD-3-Clause
"""Videos to stores of their flow and frames: by threads, processes, a cluster, and again after a kill."""

from twostream_ext.extraction.executors import Progress, dask_executor, single_threads
from twostream_ext.extraction.extract import extract, failure_text, find_videos
from twostream_ext.extraction.job import code_fields, quantize_fields, writing

__all__ = [
    "Progress",
    "code_fields",
    "dask_executor",
    "extract",
    "failure_text",
    "find_videos",
    "quantize_fields",
    "single_threads",
    "writing",
]
