# SPDX-License-Identifier: BSD-3-Clause
"""The networks of the two streams, and their fusion."""

from twostream_ext.optional_packages import need_packages

need_packages("twostream_ext.models", "train", ("numpy", "safetensors"))

from twostream_ext.models.backbone_settings import BackboneSettings
from twostream_ext.models.backbones import backbone_names, find_backbone, register_backbone
from twostream_ext.models.chosen_fusion import choose_cost, choose_weights
from twostream_ext.models.cnn_m_2048 import CNN_M_2048, CNNM2048
from twostream_ext.models.fusion import FUSIONS, SVMFusion, fuse_average, fuse_weighted, fused_accuracies
from twostream_ext.models.i3d import (
    I3D,
    I3D_BOUND,
    I3D_FEWEST_FRAMES,
    I3D_KINDS,
    I3D_SIZE,
    i3d_files,
    load_i3d,
)
from twostream_ext.models.measures import Accuracy, accuracy, top1, wilson_interval
from twostream_ext.models.multi_task import UCF101_LIKE_HMDB51, AddedClasses, add_classes
from twostream_ext.models.pretrained import Pretrained, load_pretrained
from twostream_ext.models.rgb import RGB_MEAN, RGB_STD
from twostream_ext.models.streams import (
    FLOW_INPUTS,
    LAYERS,
    ONLY_DATASET,
    SUBTRACTIONS,
    NetSettings,
    SpatialNet,
    StreamNet,
    TemporalInput,
    TemporalNet,
    build_net,
    build_unfilled_net,
    copy_backbone,
    first_filters,
    freeze_backbone,
)
from twostream_ext.models.timm_backbone import TimmBackbone, load_timm_weights, timm_input_size

__all__ = [
    "CNNM2048",
    "CNN_M_2048",
    "FLOW_INPUTS",
    "FUSIONS",
    "I3D",
    "I3D_BOUND",
    "I3D_FEWEST_FRAMES",
    "I3D_KINDS",
    "I3D_SIZE",
    "LAYERS",
    "ONLY_DATASET",
    "RGB_MEAN",
    "RGB_STD",
    "SUBTRACTIONS",
    "UCF101_LIKE_HMDB51",
    "Accuracy",
    "AddedClasses",
    "BackboneSettings",
    "NetSettings",
    "Pretrained",
    "SVMFusion",
    "SpatialNet",
    "StreamNet",
    "TemporalInput",
    "TemporalNet",
    "TimmBackbone",
    "accuracy",
    "add_classes",
    "backbone_names",
    "build_net",
    "build_unfilled_net",
    "choose_cost",
    "choose_weights",
    "copy_backbone",
    "find_backbone",
    "first_filters",
    "freeze_backbone",
    "fuse_average",
    "fuse_weighted",
    "fused_accuracies",
    "i3d_files",
    "load_i3d",
    "load_pretrained",
    "load_timm_weights",
    "register_backbone",
    "timm_input_size",
    "top1",
    "wilson_interval",
]
