# SPDX-License-Identifier: BSD-3-Clause
"""The networks of the two streams, and their fusion."""

from twostream_ext.models.cnn_m_2048 import CNNM2048
from twostream_ext.models.fusion import SVMFusion, fuse_average, top1
from twostream_ext.models.streams import (
    BACKBONES,
    NetSettings,
    SpatialNet,
    StreamNet,
    TemporalNet,
    build_net,
)

__all__ = [
    "BACKBONES",
    "CNNM2048",
    "NetSettings",
    "SVMFusion",
    "SpatialNet",
    "StreamNet",
    "TemporalNet",
    "build_net",
    "fuse_average",
    "top1",
]
