# SPDX-License-Identifier: BSD-3-Clause
"""Vectors of windows of videos, for whoever localises, segments or finds what is odd in them."""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice, repeat, tee
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from twostream_ext.devices import processors
from twostream_ext.engine.feature_files import (
    H5_FILE,
    PARTS_FOLDER,
    Layout,
    Vectors,
    add_to_h5,
    check_h5_names,
    find_layout,
    import_h5py,
    names_in_h5,
    write_array,
)
from twostream_ext.engine.feature_nets import FeatureNets, Stretch, WindowNet
from twostream_ext.engine.predict import is_image_folder
from twostream_ext.engine.predictor import Pixels, read_pixels
from twostream_ext.engine.streams.stream import CROPS
from twostream_ext.errors import (
    CheckpointError,
    DamagedVideoWarning,
    ExtractionError,
    SettingsError,
    TwoStreamError,
    VideoError,
    describe,
)
from twostream_ext.extraction import failure_text, find_videos, single_threads, writing
from twostream_ext.files import remove_leftovers
from twostream_ext.flow import ClipFlow, estimate_clip_flow
from twostream_ext.media import OpenVideo, check_rate, open_video
from twostream_ext.settings_files import claim

FEATURES_FILE = "features.json"
"""What a directory of features was made with."""

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


def features(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    nets: FeatureNets,
    *,
    window: int = 16,
    stride: int = 4,
    pad: bool = False,
    crops: int = 1,
    fps: float | None = None,
    layout: str = "actionformer",
    workers: int | None = None,
    progress: bool = True,
) -> list[str]:
    """Write the vectors of the windows of all videos of a directory tree; see `window_features`.

    Args:
        videos: the tree, whose `A/b.avi` is the video "A/b"; or one video, a file or a folder of numbered images.
        out: where "A/b" becomes `A/b.npy`, float32, or a part of `features.h5`; a video that is there already is left
            out.
        layout: one of `LAYOUTS`: "actionformer" [T, D] and "ms-tcn" [D, T], with the mean of the crops; "ten-crop"
            [T, 10, D]; "h5", one HDF5 file with a data set [T, D] or, of ten crops, [T, 10, D] for each video.
        workers: videos at a time; by default the processors there are.
        progress: a progress bar on standard error, where that is a terminal.

    Returns the names of all videos. Each file is written whole or not at all, so that a call that was broken off can be
    repeated; what `out` was made with, the nets by their weights, is noted in `features.json` there.

    Raises:
        SettingsError: an option that cannot be, or `out` was begun with others; h5py is wanted and not there.
        VideoError: there are no videos, or a folder cannot be read.
        ExtractionError: a file cannot be written; or, after all others are done, naming the videos that have no
            features, with the reason.
    """
    windows = Windows(window, stride, pad, crops, fps)
    check_windows(nets, windows)
    kind = find_layout(layout, crops)
    workers = processors() if workers is None else workers
    if workers < 1:
        raise SettingsError(f"workers is {workers}, expected at least 1")
    root, found = _found(Path(videos))
    target = _Target(Path(out), kind, is_h5=layout == "h5")
    target.check(found)
    with writing(target.root):
        claim(target.root / FEATURES_FILE, {**nets.noted(), **asdict(windows), "layout": layout}, CheckpointError)
        remove_leftovers(target.root)
    done = target.done(found)
    todo = {name: root / file for name, file in found.items() if name not in done}
    bar = tqdm(total=len(found), initial=len(done), desc="features", unit="video", disable=None if progress else True)
    with bar, single_threads():
        threads = max(1, workers // len(found))  # the same however many are left: no number depends on that
        outcome = _work(todo, target, nets, windows, min(workers, len(found)), threads, bar)
    target.finish()
    for damage in sorted(outcome.damages):
        warnings.warn(damage, DamagedVideoWarning, stacklevel=2)
    if outcome.failures:
        raise ExtractionError(
            failure_text(outcome.failures, len(found), "given features"), tuple(sorted(outcome.failures))
        )
    return list(found)


def check_windows(nets: FeatureNets, windows: Windows) -> None:
    """SettingsError if a window is too short for one of the nets."""
    for net in nets.nets:
        net.check_window(windows.window)


# ---- many videos ----------------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """Where the features of videos go."""

    root: Path
    layout: Layout
    is_h5: bool

    def path(self, name: str) -> Path:
        """The array of a video; of the layout h5 until all are in the one file."""
        return (self.root / PARTS_FOLDER if self.is_h5 else self.root) / f"{name}.npy"

    def done(self, names: Iterable[str]) -> set[str]:
        """Those of the videos that are there."""
        kept = names_in_h5(self.root / H5_FILE) if self.is_h5 else set()
        return {name for name in names if name in kept or self.path(name).exists()}

    def check(self, names: Iterable[str]) -> None:
        """SettingsError if the one file, if there is to be one, cannot be written or have all these videos."""
        if self.is_h5:
            import_h5py()
            check_h5_names({*names, *names_in_h5(self.root / H5_FILE), *self._parts()})

    def finish(self) -> None:
        """Put what is done into the one file, if there is to be one."""
        if self.is_h5 and (parts := self._parts()):
            with writing(self.root):
                add_to_h5(self.root / H5_FILE, parts)
                shutil.rmtree(self.root / PARTS_FOLDER)

    def _parts(self) -> dict[str, Path]:
        """What is not yet in the one file, by the names of the videos; also those of another call."""
        folder = self.root / PARTS_FOLDER
        found = sorted(path for path in folder.rglob("*.npy") if not path.name.startswith("."))
        return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


class _Outcome(NamedTuple):
    failures: list[str]
    damages: list[str]


class _StoppedError(Exception):
    """The work was given up."""


def _found(videos: Path) -> tuple[Path, dict[str, str]]:
    """The directory of the videos, and their paths in it by their names."""
    is_one = is_image_folder(videos) or videos.is_file()
    if not is_one:
        return videos, find_videos(videos, None)
    place = videos.resolve() if videos.is_dir() else videos  # "." has no name
    return place.parent, find_videos(place.parent, [place.name])


def _work(
    todo: dict[str, Path],
    target: _Target,
    nets: FeatureNets,
    windows: Windows,
    workers: int,
    threads: int,
    bar: tqdm[None],
) -> _Outcome:
    outcome, stop = _Outcome([], []), threading.Event()

    def make(name: str, video: Path) -> str:
        """The file of a video; what it has lost, in words."""
        opened = open_video(video, smallest_side=nets.sight.smallest_side, fps=windows.fps)
        rows = _until(stop, _vectors(video, opened, nets, windows))
        with writing(target.path(name)):
            write_array(target.path(name), rows, target.layout)
        return f"{video}: {opened.damage}" if opened.damage else ""

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        futures = {pool.submit(make, name, video): video for name, video in todo.items()}
        try:
            for future in as_completed(futures):
                _note(future, futures[future], outcome)
                bar.update()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcome


def _note(future: Future[str], video: Path, outcome: _Outcome) -> None:
    """What came of a video; raises what is not its own fault."""
    try:
        if damage := future.result():
            outcome.damages.append(damage)
    except (VideoError, SettingsError) as error:
        outcome.failures.append(str(error))
    except TwoStreamError:
        raise
    except Exception as error:
        outcome.failures.append(f"{video}: {describe(error)}")


def _until(stop: threading.Event, rows: Iterable[WindowFeatures]) -> Iterator[Vectors]:
    for row in rows:
        if stop.is_set():
            raise _StoppedError
        yield row.vectors.numpy()


# ---- one video ------------------------------------------------------------------------------------------------------


def _warning(video: Path, nets: FeatureNets, windows: Windows) -> Iterator[WindowFeatures]:
    opened = open_video(video, smallest_side=nets.sight.smallest_side, fps=windows.fps)
    yield from _vectors(video, opened, nets, windows)
    if opened.damage:
        warnings.warn(f"{video}: {opened.damage}", DamagedVideoWarning, stacklevel=2)


def _vectors(video: Path, opened: OpenVideo, nets: FeatureNets, windows: Windows) -> Iterator[WindowFeatures]:
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
