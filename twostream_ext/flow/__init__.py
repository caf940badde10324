# SPDX-License-Identifier: BSD-3-Clause
"""Optical flow of videos: estimated, stored, read and drawn."""

from twostream_ext.flow.draw import flow_to_colour
from twostream_ext.flow.estimate import METHODS, estimate_flow
from twostream_ext.flow.extract import extract
from twostream_ext.flow.store import (
    FlowClip,
    FlowFields,
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
    "read_flow_clip",
    "write_flow_clip",
]
