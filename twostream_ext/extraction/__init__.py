# SPDX-License-Identifier: BSD-3-Clause
"""Videos to stores of their flow and frames: by threads, processes, a cluster, and again after a kill."""

from twostream_ext.extraction.executors import dask_executor
from twostream_ext.extraction.extract import extract
from twostream_ext.extraction.job import code_fields, quantize_fields

__all__ = ["code_fields", "dask_executor", "extract", "quantize_fields"]
