# SPDX-License-Identifier: BSD-3-Clause
"""The vectors of the windows of one video, in the memory of one window."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, repeat, tee
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from twostream_ext.engine.feature_nets import FeatureNets
from twostream_ext.engine.predictor import Pixels, read_pixels
from twostream_ext.engine.streams.stream import CROPS
from twostream_ext.engine.window_nets import Stretch, WindowNet
from twostream_ext.errors import DamagedVideoWarning, SettingsError, VideoError
from twostream_ext.flow import ClipFlow, estimate_clip_flow
from twostream_ext.media import OpenVideo, check_rate, open_video

_PAIRS = 16  # of frames in a stretch

Item = TypeVar("Item")


class WindowFeatures(NamedTuple):
    """A window of a video, and its vectors."""

    first: int
    """Number of its first frame; below 0 where the first frame stands for those before it."""
    vectors: Tensor
    """Float32 [crops, D] on the CPU, those of several nets one after the other."""


@dataclass(frozen=True)
class Windows:
    """Which windows of a video there are, and what is cut out of their frames."""

    window: int  # frames
    stride: int  # frames from one to the next
    pad: bool
    crops: int
    fps: float | None

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("stride", self.stride)):
            if value < 1:
                raise SettingsError(f"{name} is {value}, expected at least 1 frame")
        if self.crops not in CROPS:
            raise SettingsError(f"crops is {self.crops}, expected {' or '.join(map(str, CROPS))}")
        check_rate(1, self.fps)


def window_features(
    video: str | os.PathLike[str],
    nets: FeatureNets,
    *,
    window: int = 16,
    stride: int = 4,
    pad: bool = False,
    crops: int = 1,
    fps: float | None = None,
) -> Iterator[WindowFeatures]:
    """The vectors of a video's windows, one by one, in the memory of one window however long it is.

    Args:
        video: a video file, or a folder of numbered images.
        nets: see `load_feature_nets`.
        window: frames. The vector of a net of ours or of timm is the mean over the frames, or the stacks of flow, that
            lie in the window; I3D sees the window as one input.
        stride: frames from the beginning of one window to that of the next.
        pad: by default windows lie in the video, (frames - window) // stride + 1 of them, and a video of fewer frames
            than one has none. With pad there is one around every stride-th frame, ceil(frames / stride) of them, frame
            k * stride being number window // 2 of window k; the first and the last frame (stack, field) stand for what
            lies before and behind.
        crops: 1, the centre, or 10: the corners, the centre and their flips.
        fps: take frames at this rate by their times; see `media.open_video`.

    A video that has lost frames is told of by a DamagedVideoWarning at the end.

    SettingsError for a number that cannot be or a window too short for a net; VideoError for a video that cannot be
    read, or has no window.
    """
    windows = Windows(window, stride, pad, crops, fps)
    check_windows(nets, windows)
    return _warning(Path(video), nets, windows)


def check_windows(nets: FeatureNets, windows: Windows) -> None:
    """SettingsError if a window is too short for one of the nets."""
    for net in nets.nets:
        net.check_window(windows.window)


def _warning(video: Path, nets: FeatureNets, windows: Windows) -> Iterator[WindowFeatures]:
    opened = open_video(video, smallest_side=nets.sight.smallest_side, fps=windows.fps)
    yield from vectors_of(video, opened, nets, windows)
    if opened.damage:
        warnings.warn(f"{video}: {opened.damage}", DamagedVideoWarning, stacklevel=2)


def vectors_of(video: Path, opened: OpenVideo, nets: FeatureNets, windows: Windows) -> Iterator[WindowFeatures]:
    """All windows; the nets take them in step, so that what one has seen waits for the others and no longer."""
    before = windows.window // 2 if windows.pad else 0
    number = -1
    with closing(iter(read_pixels(opened))) as pixels:
        counted = _Counted(pixels)
        copies = tee(_stretches(video, counted, nets), len(nets.nets))
        each = [_net_vectors(net, copy, windows) for net, copy in zip(nets.nets, copies, strict=True)]
        # One that finds the video too short ends all of them.
        for number, vectors in enumerate(zip(*each, strict=False)):
            yield WindowFeatures(number * windows.stride - before, torch.cat(vectors, 1))
    if number < 0:
        raise VideoError(f"{video}: has {counted.count} frames{_needs(nets, windows)}")


def _net_vectors(net: WindowNet, stretches: Iterator[Stretch], windows: Windows) -> Iterator[Tensor]:
    """Those of one net, float32 [crops, D] of each window."""
    items = net.items(stretches, windows.crops)
    if windows.pad:
        items = _padded(items, windows.window // 2, windows.window - 1 - windows.window // 2)
    for run in _runs(items, windows.window - net.least + 1, windows.stride):
        yield net.vectors(run, windows.crops)


class _Counted:
    """The frames of a video, and how many there were so far."""

    def __init__(self, frames: Iterator[Pixels]) -> None:
        self.count = 0
        self._frames = frames

    def __iter__(self) -> Iterator[Pixels]:
        for frame in self._frames:
            self.count += 1
            yield frame


def _stretches(video: Path, frames: Iterable[Pixels], nets: FeatureNets) -> Iterator[Stretch]:
    """All frames, and the flow between them where a net takes it."""
    last: list[Pixels] = []
    waiting = iter(frames)
    while fresh := list(islice(waiting, _PAIRS)):
        seen = [*last, *fresh]
        flow = _flow(video, seen, nets) if nets.takes_flow and len(seen) > 1 else None
        yield Stretch(fresh, flow)
        last = fresh[-1:]


def _flow(video: Path, frames: list[Pixels], nets: FeatureNets) -> ClipFlow:
    grey = torch.from_numpy(np.stack([pixels.grey for pixels in frames]))
    try:
        return estimate_clip_flow(grey, nets.sight.method, device=nets.flow_device, backward=nets.takes_backward)
    except VideoError as error:
        raise VideoError(f"{video}: {error}") from error


def _padded(items: Iterator[Item], before: int, after: int) -> Iterator[Item]:
    """The items, with the first and the last of them repeated."""
    last: list[Item] = []
    for item in items:
        if not last:
            yield from repeat(item, before)
        yield item
        last = [item]
    for item in last:
        yield from repeat(item, after)


def _runs(items: Iterator[Item], length: int, stride: int) -> Iterator[list[Item]]:
    """Items 0 .. length - 1, stride .. stride + length - 1, and so on, as far as there are whole runs."""
    ring: deque[Item] = deque(maxlen=length)
    for number, item in enumerate(items):
        ring.append(item)
        beyond = number + 1 - length
        if beyond >= 0 and beyond % stride == 0:
            yield list(ring)


def _needs(nets: FeatureNets, windows: Windows) -> str:
    """Why a video has no window."""
    if not windows.pad:
        return f", a window takes {windows.window}"
    net = max(nets.nets, key=lambda each: each.fewest)
    return f", {net.name} needs at least {net.fewest}"
