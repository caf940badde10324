# SPDX-License-Identifier: BSD-3-Clause
"""The temporal stream: stacks of optical flow (section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from twostream_ext import ops
from twostream_ext.data import FlowStacks
from twostream_ext.engine.streams.stream import Size, Stream
from twostream_ext.flow import FlowClip
from twostream_ext.models import NetSettings, StreamNet, TemporalInput, TemporalNet
from twostream_ext.ops import FlowBatch


class TemporalStream(Stream[FlowClip, FlowBatch]):
    """Inputs are pixels of displacement, [N, 2L, size, size], stacked as the net's settings say."""

    name = "temporal"
    reads = "flow"
    trained_as = "temporal"
    cuts_alike = True

    def new_net(self, classes: int | Mapping[str, int], temporal_input: TemporalInput, **common: Any) -> StreamNet:
        return TemporalNet(classes, **temporal_input._asdict(), **common)

    def inputs(self, settings: NetSettings) -> FlowStacks:
        return FlowStacks(settings.length, settings.bidirectional, camera=settings.subtract == "affine")

    def cut(self, batch: FlowBatch, windows: Tensor, size: Size, settings: NetSettings) -> Tensor:
        subtracted = _subtracted(batch, settings.subtract)
        if settings.input == "stack":
            return ops.flow_stack(batch, windows, size, channels_last=True, **subtracted)
        return ops.trajectory_stack(
            batch, windows, size, bidirectional=settings.bidirectional, channels_last=True, **subtracted
        )


def _subtracted(batch: FlowBatch, subtract: str) -> dict[str, Any]:
    """What says it to the operators, one of `SUBTRACTIONS`."""
    if subtract == "affine":
        return {"camera": batch.camera}
    return {"subtract_mean": subtract == "mean"}
