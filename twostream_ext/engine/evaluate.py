# SPDX-License-Identifier: BSD-3-Clause
"""Scores of videos by the paper's test (section 5): 25 frames, 10 windows of each, mean softmax."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, cast

import torch
from torch import Tensor
from tqdm import tqdm

from twostream_ext.data import ClipSource, VideoSet, equally_spaced
from twostream_ext.engine.inputs import flow_views, frame_views
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowClip, FlowFields
from twostream_ext.media import FrameClip
from twostream_ext.models import NetSettings, StreamNet

_INPUTS_PER_PASS = 64  # bounds the memory: 0.26 GB of inputs for the full temporal net

Stacks: TypeAlias = Sequence[FlowFields]
Frames: TypeAlias = Sequence[Tensor]


def video_scores(
    net: StreamNet,
    clip: FlowClip | FrameClip,
    *,
    frames: int = 25,
    crops: int = 10,
    dataset: str | None = None,
) -> Tensor:
    """Mean softmax scores of one video, float32 [C] on the CPU.

    clip: of a flow store for a temporal net, of a frame store for a spatial one.
    frames: inputs taken at equal spacing from all positions; positions repeat if they are fewer.
    crops: 10 windows of each input (corners, centre, and their flips), or 1, the centre.
    dataset: whose classes, where the net has several heads.

    SettingsError, naming the video, if it has too few frames or pixels for one input.
    """
    _check_dataset(net, dataset)
    return _score(net, _read_inputs(net.settings, clip, frames), crops, dataset)


def evaluate(
    net: StreamNet,
    videos: VideoSet,
    *,
    frames: int = 25,
    crops: int = 10,
    dataset: str | None = None,
    progress: bool = True,
) -> Tensor:
    """`video_scores` of all videos, float32 [V, C] on the CPU; runs where the net's weights are.

    progress: a progress bar on standard error, where that is a terminal.
    """
    if not videos.videos:
        raise SettingsError("evaluate: there are no videos")
    _check_dataset(net, dataset)
    store = videos.frame_store() if net.settings.stream == "spatial" else videos.flow_store()
    names = [video.name for video in videos.videos]
    inputs = _read_ahead(net.settings, store, names, frames)
    quiet = None if progress else True  # None: quiet where standard error is not a terminal
    bar = tqdm(inputs, desc="test", total=len(names), unit="video", disable=quiet)
    return torch.stack([_score(net, samples, crops, dataset) for samples in bar])


def _read_ahead(
    settings: NetSettings, store: ClipSource[FlowClip] | ClipSource[FrameClip], names: Sequence[str], frames: int
) -> Iterator[Stacks | Frames]:
    """The inputs of each video in turn, decoded by other threads while the net is busy."""
    workers = min(8, os.cpu_count() or 1)
    pending: deque[Future[Stacks | Frames]] = deque()

    def read(name: str) -> Stacks | Frames:
        return _read_inputs(settings, store[name], frames)

    with ThreadPoolExecutor(workers) as pool:
        for name in names:
            pending.append(pool.submit(read, name))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read_inputs(settings: NetSettings, clip: FlowClip | FrameClip, frames: int) -> Stacks | Frames:
    """`frames` inputs of one video at equal spacing: flow as stored, frames as pixels; whole."""
    if frames < 1:
        raise SettingsError(f"frames must be at least 1, got {frames}")
    height, width = clip.size
    if min(height, width) < settings.input_size:
        raise SettingsError(
            f"{clip.name}: its frames of {width}x{height} pixels are smaller than the net's input "
            f"of {settings.input_size}x{settings.input_size}"
        )
    if settings.stream == "spatial":
        if not isinstance(clip, FrameClip):
            raise SettingsError(f"{clip.name}: a spatial net needs a frame store, got flow")
        return [torch.from_numpy(clip.read(int(at))) for at in equally_spaced(frames, len(clip))]
    if not isinstance(clip, FlowClip):
        raise SettingsError(f"{clip.name}: a temporal net needs a flow store, got frames")
    return _read_flow(settings, clip, frames)


def _read_flow(settings: NetSettings, clip: FlowClip, frames: int) -> Stacks:
    length = settings.length
    starts = [int(start) for start in equally_spaced(frames, clip.count_stacks(length))]
    if not settings.bidirectional:
        return _read_stacks(clip, starts, length, "forward")
    # From frame tau = start + L/2: d_tau, d_tau+1, ... forward, then b_tau, b_tau-1, ... backward.
    half = length // 2
    forward = _read_stacks(clip, [start + half for start in starts], half, "forward")
    backward = _read_stacks(clip, [start + 1 for start in starts], half, "backward")
    return [
        FlowFields(*(torch.cat([f, b.flip(0)]) for f, b in zip(ahead, behind, strict=True)))
        for ahead, behind in zip(forward, backward, strict=True)
    ]


def _read_stacks(clip: FlowClip, starts: Sequence[int], length: int, direction: str) -> Stacks:
    """The fields start .. start + length - 1 for each start; where stacks overlap, decoded once."""
    first, span = starts[0], starts[-1] - starts[0] + length
    if span > len(starts) * length:
        return [clip.read(start, length, direction) for start in starts]
    fields = clip.read(first, span, direction)
    return [FlowFields(*(part[start - first : start - first + length] for part in fields)) for start in starts]


def _check_dataset(net: StreamNet, dataset: str | None) -> None:
    heads = net.settings.classes
    if dataset not in heads and (dataset is not None or len(heads) > 1):
        raise SettingsError(f"dataset must be one of {', '.join(heads)}, got {dataset!r}")


def _score(net: StreamNet, samples: Stacks | Frames, crops: int, dataset: str | None) -> Tensor:
    """Mean softmax over all samples and windows, float32 [C]."""
    step = max(1, _INPUTS_PER_PASS // crops)
    training = net.training
    net.eval()
    with torch.inference_mode():
        softmax = [
            net(_views(net, samples[at : at + step], crops), dataset).softmax(1) for at in range(0, len(samples), step)
        ]
        mean = torch.cat(softmax).double().mean(0).float().cpu()
    net.train(training)
    return mean.clone()  # not bound to inference mode


def _views(net: StreamNet, samples: Stacks | Frames, crops: int) -> Tensor:
    """Inputs [samples * crops, channels, input_size, input_size] on the net's device."""
    size = net.settings.input_size
    device = next(net.parameters()).device
    if net.settings.stream == "spatial":
        frames = cast(Frames, samples)
        return frame_views(frames, size=size, crops=crops, device=device).flatten(0, 1)
    codes, lo, step, mean = zip(*cast(Stacks, samples), strict=True)
    return flow_views(
        codes,
        torch.stack(lo),
        torch.stack(step),
        torch.stack(mean),
        size=size,
        crops=crops,
        device=device,
    ).flatten(0, 1)
