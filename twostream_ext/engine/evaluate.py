# SPDX-License-Identifier: BSD-3-Clause
"""Scores of videos by the paper's test (section 5): 25 frames, 10 windows of each, mean softmax."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from twostream_ext import ops
from twostream_ext.data import ClipSource, InputBatch, VideoSet, equally_spaced
from twostream_ext.devices import processors
from twostream_ext.engine.shared_windows import Region, shared_regions
from twostream_ext.engine.streams import Stream, find_stream
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowClip
from twostream_ext.media import FrameClip
from twostream_ext.models import NetSettings, StreamNet

_INPUTS_PER_PASS = 64  # bounds the memory: 0.26 GB of inputs for the full temporal net
_KEPT_BYTES = 24 << 20
"""Inputs on the CPU: the C library gives blocks above 32 MB back to the system at once, and a pass that asks for them
anew waits for fresh pages, a fifth of its time for the small temporal net."""


_Repeated = tuple[InputBatch, Tensor]
"""Inputs, and how many times each counts, int64 [N]."""


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
    return _score(net, stream, *_read_inputs(stream, net.settings, clip, frames), crops, dataset)


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
    each = each_score(net, videos, frames=frames, crops=crops, dataset=dataset, progress=progress)
    scores = empty_scores(net, videos, dataset)
    for index, row in enumerate(each):
        scores[index] = row
    return scores


def each_score(
    net: StreamNet,
    videos: VideoSet,
    *,
    frames: int,
    crops: int,
    dataset: str | None,
    progress: bool = True,
    share: slice = slice(None),
) -> Iterator[Tensor]:
    """`video_scores` of each video in turn, once all are checked; as for `evaluate`. share: of which videos alone."""
    if not videos.videos:
        raise SettingsError("evaluate: there are no videos")
    _check_dataset(net, dataset)
    stream = find_stream(net.settings.stream)
    names, store = [video.name for video in videos.videos], stream.store(videos)
    for name in names:  # hours before the last one is read
        _check_clip(stream, net.settings, store.peek(name))
    batches = _read_ahead(stream, net.settings, store, names[share], frames)
    quiet = None if progress else True  # None: quiet where standard error is not a terminal
    bar = tqdm(batches, desc="test", total=len(names[share]), unit="video", disable=quiet)
    return (_score(net, stream, batch, counts, crops, dataset) for batch, counts in bar)


def empty_scores(net: StreamNet, videos: VideoSet, dataset: str | None) -> Tensor:
    """Where the scores of all videos go, float32 [V, C] on the CPU: a tensor for each would take as much again."""
    heads = net.settings.classes
    classes = sum(heads.values()) if dataset is None else heads[dataset]
    return torch.empty(len(videos.videos), classes, dtype=torch.float32, device="cpu")


def _read_ahead(
    stream: Stream[Any, Any],
    settings: NetSettings,
    store: ClipSource[Any],
    names: Sequence[str],
    frames_per_video: int,
) -> Iterator[_Repeated]:
    """The inputs of each video in turn, decoded by other threads while the net is busy."""
    workers = min(8, processors())
    pending: deque[Future[_Repeated]] = deque()

    def read(name: str) -> _Repeated:
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
) -> _Repeated:
    """Inputs of one video at equal spacing, as they are stored; whole. Each place once, as short videos have few."""
    if frames_per_video < 1:
        raise SettingsError(f"frames must be at least 1, got {frames_per_video}")
    count = _check_clip(stream, settings, clip)
    places, counts = np.unique(equally_spaced(frames_per_video, count), return_counts=True)
    batch: InputBatch = stream.inputs(settings).read([clip] * len(places), places.tolist(), threads=1)
    return batch, torch.from_numpy(counts)


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


def _score(
    net: StreamNet, stream: Stream[Any, Any], batch: InputBatch, counts: Tensor, crops: int, dataset: str | None
) -> Tensor:
    """Mean softmax over all inputs of a batch, each so many times, and their windows, float32 [C]."""
    batch = batch.to(next(net.parameters()).device)
    step = inputs_per_pass(net.settings, crops, batch.device)
    with _testing(net), torch.inference_mode():
        # One video's inputs are of one size, so that its windows lie alike in all.
        regions = _regions(net, stream, batch.sizes[0]) if crops == 10 else []
        means = []
        for first in range(0, len(batch), step):
            part = batch.part(first, first + step)
            means.append(_softmax(net, stream, part, regions, crops, dataset).double().mean(1))
        each = torch.cat(means).cpu()
        mean: Tensor = (counts.double() @ each / counts.sum()).float()
    return mean.clone()  # not bound to inference mode


def _softmax(
    net: StreamNet,
    stream: Stream[Any, Any],
    batch: InputBatch,
    regions: Sequence[Region],
    crops: int,
    dataset: str | None,
) -> Tensor:
    """Of each window of each input, float32 [N, crops, C]. regions: what holds the windows, or nothing."""
    scores: Any
    if not regions:
        scores = net(stream.views(batch, settings=net.settings, crops=crops).flatten(0, 1), dataset)
        return cast(Tensor, scores.softmax(1).view(len(batch), crops, -1))
    scores = net.from_stem(_stem_maps(net, stream, batch, regions), dataset)
    return cast(Tensor, scores.softmax(1).view(crops, len(batch), -1).transpose(0, 1))


def _regions(net: StreamNet, stream: Stream[Any, Any], frame: tuple[int, int]) -> list[Region]:
    """Larger windows that hold the ten of a frame of that size; none where the net or the stream cannot share them."""
    stride, size = net.stem_stride, net.settings.input_size
    if stride is None or not stream.cuts_alike:
        return []
    windows = ops.ten_crop_windows(torch.tensor([frame], device="cpu"), size)[0].tolist()
    return shared_regions([(top, left, flip) for top, left, flip in windows], size, stride)


def _stem_maps(net: StreamNet, stream: Stream[Any, Any], batch: InputBatch, regions: Sequence[Region]) -> Tensor:
    """What the net's first layers give of the ten windows: of the first window of all inputs, of the second, ..."""
    maps: dict[int, Tensor] = {}
    for region in regions:
        windows = torch.tensor([region.window] * len(batch), dtype=torch.int32, device=batch.device)
        whole = net.stem(stream.cut(batch, windows, region.size, net.settings))
        height = whole.shape[2] - max(place.row for place in region.places)
        width = whole.shape[3] - max(place.column for place in region.places)
        for number, row, column in region.places:
            maps[number] = whole[:, :, row : row + height, column : column + width]
    return torch.cat([maps[number] for number in sorted(maps)])


def inputs_per_pass(settings: NetSettings, crops: int, device: torch.device) -> int:
    """How many inputs, with all their windows, the net gets at a time."""
    most = max(1, _INPUTS_PER_PASS // crops)
    fitting = _KEPT_BYTES // (4 * crops * settings.channels * settings.input_size**2)
    return min(most, fitting) if device.type == "cpu" and fitting > 0 else most


@contextmanager
def _testing(net: StreamNet) -> Iterator[None]:
    """Evaluation mode; afterwards, also after an error, the one the net was in."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
