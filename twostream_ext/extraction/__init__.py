# SPDX-License-Identifier: BSD-3-Clause
"""Videos to stores of their flow and frames: by threads, processes, a cluster, and again after a kill."""

from twostream_ext.extraction.executors import dask_executor
from twostream_ext.extraction.extract import extract

__all__ = ["dask_executor", "extract"]
