# SPDX-License-Identifier: BSD-3-Clause
"""Labelled videos together with the stores that hold what the nets read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor, int64, tensor

from twostream_ext.data.split import Video
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowClip
from twostream_ext.media import FrameClip

Clip = TypeVar("Clip")
AnyClip = TypeVar("AnyClip", covariant=True)


class ClipSource(Protocol[AnyClip]):
    """What is asked of a store, be it one or several joined."""

    def __getitem__(self, name: str) -> AnyClip:
        """A clip, once its file is checked."""

    def peek(self, name: str) -> AnyClip:
        """A clip of which only numbers are wanted."""


class JoinedStore(Generic[Clip]):
    """The stores of several data sets as one: clip "<data set>/<name>" is `name` in that data set's."""

    def __init__(self, stores: Mapping[str, ClipSource[Clip]]) -> None:
        self._stores = dict(stores)

    def __getitem__(self, name: str) -> Clip:
        dataset, _, rest = name.partition("/")
        return self._stores[dataset][rest]

    def peek(self, name: str) -> Clip:
        dataset, _, rest = name.partition("/")
        return self._stores[dataset].peek(rest)


class VideoSet(NamedTuple):
    """What `engine.train` and `engine.evaluate` take: the videos, and the stores of which a stream reads one."""

    videos: Sequence[Video]
    flow: ClipSource[FlowClip] | None = None
    frames: ClipSource[FrameClip] | None = None

    @property
    def labels(self) -> Tensor:
        """int64 [videos]."""
        return tensor([video.label for video in self.videos], dtype=int64, device="cpu")

    def flow_store(self) -> ClipSource[FlowClip]:
        """Give the flow store; SettingsError if the set was made without one."""
        if self.flow is None:
            raise SettingsError("no flow store was given (flow=, --flow)")
        return self.flow

    def frame_store(self) -> ClipSource[FrameClip]:
        """Give the frame store; SettingsError if the set was made without one."""
        if self.frames is None:
            raise SettingsError("no frame store was given (frames=, --frames)")
        return self.frames


def join_video_sets(sets: Mapping[str, VideoSet], classes: Mapping[str, int]) -> VideoSet:
    """Several data sets as one to train on (paper, section 4): with a head for each, or with all classes in one head.

    A class counts through all data sets, in the order of `classes`; so batches are drawn uniformly across the classes
    of all. `TemporalNet(classes)` then learns each data set in a head of its own, `TemporalNet(sum(classes.values()))`
    all classes in one.

    sets: the videos of each data set by its name, which has no "/"; all with a flow store, or all with a frame store,
        or both.
    classes: their numbers of classes; of a net, `net.settings.classes`.
    """
    if sets.keys() != classes.keys() or any("/" in name for name in sets):
        raise SettingsError(f"data sets are {', '.join(sets)}, expected {', '.join(classes)}, without '/'")
    videos = []
    first = 0
    for name, count in classes.items():
        videos += [
            video._replace(name=f"{name}/{video.name}", label=first + video.label) for video in sets[name].videos
        ]
        first += count
    flow = {name: each.flow for name, each in sets.items() if each.flow is not None}
    frames = {name: each.frames for name, each in sets.items() if each.frames is not None}
    return VideoSet(
        videos,
        JoinedStore(flow) if len(flow) == len(sets) else None,
        JoinedStore(frames) if len(frames) == len(sets) else None,
    )
