# SPDX-License-Identifier: BSD-3-Clause
"""Videos to stores of their flow and frames: by threads, processes, a cluster, and again after a kill."""

from twostream_ext.extraction.denseflow import Processed, denseflow
from twostream_ext.extraction.executors import dask_executor
from twostream_ext.extraction.extract import extract
from twostream_ext.extraction.job import code_fields, quantize_fields

__all__ = ["Processed", "code_fields", "dask_executor", "denseflow", "extract", "quantize_fields"]
