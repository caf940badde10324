# SPDX-License-Identifier: BSD-3-Clause
"""Labelled videos together with the stores that hold what the nets read of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, tensor

from twostream_ext.data.frames import FrameStore
from twostream_ext.data.lists import Video, read_ucf_lists
from twostream_ext.errors import SettingsError
from twostream_ext.flow.store import FlowStore


class VideoSet(NamedTuple):
    """What `engine.train` and `engine.evaluate` take: the spatial net reads frames, the temporal net flow."""

    videos: Sequence[Video]
    flow: FlowStore | None = None
    frames: FrameStore | None = None

    @property
    def labels(self) -> Tensor:
        """int64 [videos]."""
        return tensor([video.label for video in self.videos])

    def flow_store(self) -> FlowStore:
        """Give the flow store; SettingsError if the set was made without one."""
        if self.flow is None:
            raise SettingsError("the temporal net reads flow, and these videos came without a flow store (flow=)")
        return self.flow

    def frame_store(self) -> FrameStore:
        """Give the frame store; SettingsError if the set was made without one."""
        if self.frames is None:
            raise SettingsError("the spatial net reads frames, and these videos came without a frame store (frames=)")
        return self.frames


class UCFLists:
    """The training and the test videos of one split, listed as UCF-101's are.

    Args:
        videos: directory with `<Class>/<video>` files.
        lists: directory with `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`; see `read_ucf_lists`.
        split: N of the lists.
        flow: directory of a flow store of these videos, as `flow.extract` writes it, or of a tree of another tool; or
            the store itself, of which `FlowStore.open` can be told more.
        frames: directory of a frame store (`flow.extract(..., frames_out=)`).

    Raises:
        ListError: a list is missing or wrong; names the list and the line.
        FlowStoreError: a directory holds no store of its kind.
    """

    classes: list[str]
    train: VideoSet
    test: VideoSet

    def __init__(
        self,
        videos: str | os.PathLike[str],
        lists: str | os.PathLike[str],
        *,
        split: int = 1,
        flow: str | os.PathLike[str] | FlowStore | None = None,
        frames: str | os.PathLike[str] | None = None,
    ) -> None:
        self.classes, train, test = read_ucf_lists(videos, lists, split)
        flow_store = flow if flow is None or isinstance(flow, FlowStore) else FlowStore.open(flow)
        frame_store = None if frames is None else FrameStore.open(frames)
        self.train = VideoSet(train, flow_store, frame_store)
        self.test = VideoSet(test, flow_store, frame_store)
