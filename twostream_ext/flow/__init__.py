# SPDX-License-Identifier: BSD-3-Clause
"""Optical flow of videos: estimated, stored, read and drawn."""

from twostream_ext.flow.clip import FlowClip, FlowFields, FlowSettings, read_flow_batch
from twostream_ext.flow.draw import (
    colour_wheel,
    draw_arrows,
    draw_flow,
    flow_to_colour,
    flow_to_planes,
)
from twostream_ext.flow.estimate import METHODS, ClipFlow, Estimator, Method, estimate_clip_flow, estimate_flow
from twostream_ext.flow.extract import extract
from twostream_ext.flow.preview import draw_clip, write_flow_video
from twostream_ext.flow.store import (
    FlowStore,
    read_flow_clip,
    write_flow_clip,
)

__all__ = [
    "METHODS",
    "ClipFlow",
    "Estimator",
    "FlowClip",
    "FlowFields",
    "FlowSettings",
    "FlowStore",
    "Method",
    "colour_wheel",
    "draw_arrows",
    "draw_clip",
    "draw_flow",
    "estimate_clip_flow",
    "estimate_flow",
    "extract",
    "flow_to_colour",
    "flow_to_planes",
    "read_flow_batch",
    "read_flow_clip",
    "write_flow_clip",
    "write_flow_video",
]
