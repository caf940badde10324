# SPDX-License-Identifier: BSD-3-Clause
"""The kernels: pure functions of tensors, on the CPU and on CUDA, registered as `torch.ops.twostream`.

This room needs torch alone. Shapes, units and the conventions of windows and codes: see each function.
"""

from twostream_ext.ops.build import BuildInfo, build_info, built_with_cuda
from twostream_ext.ops.camera_motion import camera_motion
from twostream_ext.ops.crop_frames import crop_frames
from twostream_ext.ops.dequantize_flow import dequantize_flow
from twostream_ext.ops.flow_batch import FlowBatch
from twostream_ext.ops.flow_stack import flow_stack
from twostream_ext.ops.local_response_norm import local_response_norm
from twostream_ext.ops.mean_flow import mean_flow
from twostream_ext.ops.quantize_flow import QuantizedFlow, quantize_flow
from twostream_ext.ops.random_windows import random_windows
from twostream_ext.ops.ten_crop_windows import ten_crop_windows
from twostream_ext.ops.trajectory_stack import trajectory_stack
from twostream_ext.ops.tvl1_flow import TVL1_FAST, tvl1_clip_flow, tvl1_flow

__all__ = [
    "TVL1_FAST",
    "BuildInfo",
    "FlowBatch",
    "QuantizedFlow",
    "build_info",
    "built_with_cuda",
    "camera_motion",
    "crop_frames",
    "dequantize_flow",
    "flow_stack",
    "local_response_norm",
    "mean_flow",
    "quantize_flow",
    "random_windows",
    "ten_crop_windows",
    "trajectory_stack",
    "tvl1_clip_flow",
    "tvl1_flow",
]
