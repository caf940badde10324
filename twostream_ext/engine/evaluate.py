# SPDX-License-Identifier: BSD-3-Clause
"""Scores of videos by the paper's test (section 5): 25 frames, 10 windows of each, mean softmax."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from twostream_ext.data import ClipSource, InputBatch, VideoSet, equally_spaced
from twostream_ext.devices import processors
from twostream_ext.engine.streams import Stream, find_stream
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowClip
from twostream_ext.media import FrameClip
from twostream_ext.models import NetSettings, StreamNet

_INPUTS_PER_PASS = 64  # bounds the memory: 0.26 GB of inputs for the full temporal net


def video_scores(
    net: StreamNet,
    clip: FlowClip | FrameClip,
    *,
    frames: int = 25,
    crops: int = 10,
    dataset: str | None = None,
) -> Tensor:
    """Mean softmax scores of one video, float32 [C] on the CPU.

    clip: of the kind of store that the net's stream reads.
    frames: inputs taken at equal spacing from all positions; positions repeat if they are fewer.
    crops: 10 windows of each input (corners, centre, and their flips), or 1, the centre.
    dataset: whose classes, where the net has several heads.

    SettingsError, naming the video, if it has too few frames or pixels for one input.
    """
    _check_dataset(net, dataset)
    stream = find_stream(net.settings.stream)
    return _score(net, stream, _read_inputs(stream, net.settings, clip, frames), crops, dataset)


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
    stream = find_stream(net.settings.stream)
    names, store = [video.name for video in videos.videos], stream.store(videos)
    for name in names:  # hours before the last one is read
        _check_clip(stream, net.settings, store.peek(name))
    batches = _read_ahead(stream, net.settings, store, names, frames)
    quiet = None if progress else True  # None: quiet where standard error is not a terminal
    bar = tqdm(batches, desc="test", total=len(names), unit="video", disable=quiet)
    return torch.stack([_score(net, stream, batch, crops, dataset) for batch in bar])


def _read_ahead(
    stream: Stream[Any, Any],
    settings: NetSettings,
    store: ClipSource[Any],
    names: Sequence[str],
    frames_per_video: int,
) -> Iterator[InputBatch]:
    """The inputs of each video in turn, decoded by other threads while the net is busy."""
    workers = min(8, processors())
    pending: deque[Future[InputBatch]] = deque()

    def read(name: str) -> InputBatch:
        return _read_inputs(stream, settings, store[name], frames_per_video)

    with ThreadPoolExecutor(workers) as pool:
        for name in names:
            pending.append(pool.submit(read, name))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read_inputs(
    stream: Stream[Any, Any], settings: NetSettings, clip: FlowClip | FrameClip, frames_per_video: int
) -> InputBatch:
    """Inputs of one video at equal spacing, as they are stored; whole."""
    if frames_per_video < 1:
        raise SettingsError(f"frames must be at least 1, got {frames_per_video}")
    count = _check_clip(stream, settings, clip)
    places = equally_spaced(frames_per_video, count).tolist()
    batch: InputBatch = stream.inputs(settings).read([clip] * len(places), places, threads=1)
    return batch


def _check_clip(stream: Stream[Any, Any], settings: NetSettings, clip: FlowClip | FrameClip) -> int:
    """Number of a clip's inputs; SettingsError, naming it, if it has none for a net of these settings."""
    height, width = clip.size
    if min(height, width) < settings.input_size:
        raise SettingsError(
            f"{clip.name}: its frames of {width}x{height} pixels are smaller than the net's input "
            f"of {settings.input_size}x{settings.input_size}"
        )
    stream.check_clip(clip)
    count: int = stream.inputs(settings).count(clip)
    return count


def _check_dataset(net: StreamNet, dataset: str | None) -> None:
    heads = net.settings.classes
    if dataset not in heads and (dataset is not None or len(heads) > 1):
        raise SettingsError(f"dataset must be one of {', '.join(heads)}, got {dataset!r}")


def _score(net: StreamNet, stream: Stream[Any, Any], batch: InputBatch, crops: int, dataset: str | None) -> Tensor:
    """Mean softmax over all inputs of a batch and their windows, float32 [C]."""
    step = max(1, _INPUTS_PER_PASS // crops)
    batch = batch.to(next(net.parameters()).device)
    with _testing(net), torch.inference_mode():
        softmax = []
        for first in range(0, len(batch), step):
            views = stream.views(batch.part(first, first + step), settings=net.settings, crops=crops)
            softmax.append(net(views.flatten(0, 1), dataset).softmax(1))
        mean = torch.cat(softmax).double().mean(0).float().cpu()
    return mean.clone()  # not bound to inference mode


@contextmanager
def _testing(net: StreamNet) -> Iterator[None]:
    """Evaluation mode; afterwards, also after an error, the one the net was in."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
