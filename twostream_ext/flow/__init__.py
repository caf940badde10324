# SPDX-License-Identifier: BSD-3-Clause
"""Optical flow of videos: estimated, stored, read and drawn."""

from twostream_ext.optional_packages import FLOW_PACKAGES, need_packages

need_packages("twostream_ext.flow", "flow", FLOW_PACKAGES)

from twostream_ext.flow.camera import without_camera
from twostream_ext.flow.clip import DIRECTIONS, FlowClip, FlowSettings, read_flow_batch
from twostream_ext.flow.draw import (
    colour_wheel,
    draw_arrows,
    draw_flow,
    flow_to_colour,
    flow_to_planes,
)
from twostream_ext.flow.estimators import (
    Estimator,
    estimator_name,
    estimator_parameters,
    find_estimator,
    load_estimator,
    run_estimator,
)
from twostream_ext.flow.export import EXPORT_LAYOUTS, export
from twostream_ext.flow.field_files import (
    Append,
    Field,
    PictureNames,
    denseflow_codes,
    h5_path,
    png_codes,
    step_mark,
    write_h5,
    write_pictures,
)
from twostream_ext.flow.flow_store import FlowStore
from twostream_ext.flow.memory import FlowInMemory
from twostream_ext.flow.methods import (
    METHODS,
    ClipFlow,
    Method,
    estimate_clip_flow,
    estimate_flow,
    find_method,
    register_method,
)
from twostream_ext.flow.nets import NetEstimator, net_estimator
from twostream_ext.flow.optical_strain import Strain, strain
from twostream_ext.flow.preview import draw_clip, write_flow_video
from twostream_ext.flow.store import (
    FLOW_KIND,
    CodedFlow,
    code_flow,
    join_coded_flow,
    read_flow_clip,
    write_coded_clip,
    write_flow_clip,
)

__all__ = [
    "DIRECTIONS",
    "EXPORT_LAYOUTS",
    "FLOW_KIND",
    "METHODS",
    "Append",
    "ClipFlow",
    "CodedFlow",
    "Estimator",
    "Field",
    "FlowClip",
    "FlowInMemory",
    "FlowSettings",
    "FlowStore",
    "Method",
    "NetEstimator",
    "PictureNames",
    "Strain",
    "code_flow",
    "colour_wheel",
    "denseflow_codes",
    "draw_arrows",
    "draw_clip",
    "draw_flow",
    "estimate_clip_flow",
    "estimate_flow",
    "estimator_name",
    "estimator_parameters",
    "export",
    "find_estimator",
    "find_method",
    "flow_to_colour",
    "flow_to_planes",
    "h5_path",
    "join_coded_flow",
    "load_estimator",
    "net_estimator",
    "png_codes",
    "read_flow_batch",
    "read_flow_clip",
    "register_method",
    "run_estimator",
    "step_mark",
    "strain",
    "without_camera",
    "write_coded_clip",
    "write_flow_clip",
    "write_flow_video",
    "write_h5",
    "write_pictures",
]
