# SPDX-License-Identifier: BSD-3-Clause
"""Flow that is coded as in a store, but lies in memory: that of a video which is still coming in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from twostream_ext.errors import FlowStoreError
from twostream_ext.flow.clip import DIRECTIONS, FieldSlots, FlowClip, FlowSettings
from twostream_ext.flow.store import CodedFlow
from twostream_ext.media.jpeg import decode_jpeg


class FlowInMemory(FlowClip):
    """Consecutive frames' flow, each field coded by itself."""

    def __init__(
        self,
        name: str,
        fields: Mapping[str, Sequence[CodedFlow]],
        *,
        settings: FlowSettings,
        fps: float,
        source_size: tuple[int, int],
    ) -> None:
        """fields: by direction, one in each `CodedFlow`, at least one, as JPEGs; see `code_flow`."""
        self.name = name
        self.path = Path(name)
        self.settings = settings
        self.frame_count = len(fields["forward"]) + 1
        self.fps = fps
        self.size = fields["forward"][0].size
        self.source_size = source_size
        self.metadata = {}
        self._fields = fields

    def load(self, direction: str, first: int, slots: FieldSlots) -> None:
        begin = first - DIRECTIONS.index(direction)
        for place, planes in enumerate(slots.planes):
            field = self._fields[direction][begin + place]
            slots.lo[place], slots.step[place], slots.mean[place] = field.ranges[0]
            for picture, plane in zip(field.planes, planes, strict=True):
                if not decode_jpeg(np.frombuffer(picture, np.uint8), plane):
                    raise FlowStoreError(f"{self.name}: a plane cannot be decoded")

    def stored_camera(self, direction: str, first: int, count: int) -> npt.NDArray[np.float32] | None:
        maps = [field.camera for field in self._fields[direction][first : first + count]]
        known = [each for each in maps if each is not None]
        return np.concatenate(known) if len(known) == count else None
