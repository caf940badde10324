# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA DALI on the CPU: its fused crop, flip, normalise and transpose, with everything given per sample.

DALI is no dependency. To have it beside CPU torch without touching the environment:

    pip install --target DALI nvidia-dali-cuda120 && PYTHONPATH=DALI python benchmarks/table.py
"""

from __future__ import annotations

import numpy as np
import torch
from workloads import Call


def crop_mirror_normalize(
    images: np.ndarray,
    layout: str,
    size: tuple[int, int],
    top: np.ndarray,
    left: np.ndarray,
    flip: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
) -> Call:
    """Give a call that runs a pipeline over N images: (pixel - mean) / std; top, left from 0 to 1 of what is free."""
    from nvidia.dali import fn, pipeline_def, types

    def given(values: np.ndarray, dtype: type = np.float32) -> object:
        constant = np.ascontiguousarray(values, dtype)
        return fn.external_source(source=lambda: constant, batch=True, no_copy=True)

    @pipeline_def(
        batch_size=len(images),
        num_threads=torch.get_num_threads(),
        device_id=None,
        prefetch_queue_depth=1,
        exec_dynamic=False,
    )
    def pipeline() -> object:
        return fn.crop_mirror_normalize(
            fn.external_source(source=lambda: images, batch=True, no_copy=True, layout=layout),
            crop=size,
            crop_pos_y=given(top),
            crop_pos_x=given(left),
            mirror=given(flip, np.int32),
            mean=given(mean),
            std=given(std),
            dtype=types.FLOAT,
            output_layout="CHW",
        )

    built = pipeline()
    built.build()

    def run() -> torch.Tensor:
        (result,) = built.run()
        return torch.from_dlpack(result.as_tensor())

    return run
