# SPDX-License-Identifier: BSD-3-Clause
"""Optical flow of videos: estimated, stored, read and drawn."""

from twostream_ext.flow.clip import FlowClip, FlowFields, read_flow_batch
from twostream_ext.flow.draw import flow_to_colour
from twostream_ext.flow.estimate import METHODS, estimate_flow
from twostream_ext.flow.extract import extract
from twostream_ext.flow.store import (
    FlowSettings,
    FlowStore,
    read_flow_clip,
    write_flow_clip,
)

__all__ = [
    "METHODS",
    "FlowClip",
    "FlowFields",
    "FlowSettings",
    "FlowStore",
    "estimate_flow",
    "extract",
    "flow_to_colour",
    "read_flow_batch",
    "read_flow_clip",
    "write_flow_clip",
]
