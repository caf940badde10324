# SPDX-License-Identifier: BSD-3-Clause
"""Vectors of windows of videos, for whoever localises, segments or finds what is odd in them."""

from __future__ import annotations

import os
import queue
import shutil
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from twostream_ext.devices import processors
from twostream_ext.done_markers import MARKERS, forget_done, note_done, read_marker
from twostream_ext.engine.feature_files import (
    H5_FILE,
    PARTS_FOLDER,
    Layout,
    Vectors,
    add_to_h5,
    check_h5_names,
    find_layout,
    names_in_h5,
    write_array,
)
from twostream_ext.engine.feature_nets import FeatureNets
from twostream_ext.engine.predict import is_image_folder
from twostream_ext.engine.window_features import WindowFeatures, Windows, check_windows, vectors_of
from twostream_ext.errors import (
    CheckpointError,
    DamagedVideoWarning,
    ExtractionError,
    ReplacedVideoWarning,
    SettingsError,
    TwoStreamError,
    VideoError,
    describe,
    failure_text,
)
from twostream_ext.extraction import Progress, find_videos, writing
from twostream_ext.files import remove_leftovers
from twostream_ext.media import NOTED_AS, is_made_of, open_video, video_fingerprint
from twostream_ext.optional_packages import import_h5py
from twostream_ext.settings_files import claim
from twostream_ext.threads import single_threads

FEATURES_FILE = "features.json"
"""What a directory of features was made with."""

_SERIES = "features"  # what markers call them
_WAIT = 0.5  # seconds between two updates of the progress bar where no video ends


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
    todo = target.lacking({name: root / file for name, file in found.items()})
    bar = Progress(len(found), len(found) - len(todo), progress, work="features", counted="windows")
    with closing(bar), single_threads():
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


class _Target(NamedTuple):
    """Where the features of videos go."""

    root: Path
    layout: Layout
    is_h5: bool

    def path(self, name: str) -> Path:
        """The array of a video; of the layout h5 until all are in the one file."""
        return (self.root / PARTS_FOLDER if self.is_h5 else self.root) / f"{name}.npy"

    def lacking(self, videos: Mapping[str, Path]) -> dict[str, Path]:
        """Those of the videos that have no features, or features of another one of their name, which is told."""
        kept = names_in_h5(self.root / H5_FILE) if self.is_h5 else set()
        todo = {}
        for name, video in videos.items():
            noted = (read_marker(self.marker(name)) or {}).get(_SERIES)
            if not isinstance(noted, dict) or not (name in kept or self.path(name).exists()):
                todo[name] = video
            elif not is_made_of(noted, video):
                text = f"{video}: not the video that was done under this name before; done again"
                warnings.warn(text, ReplacedVideoWarning, stacklevel=3)
                todo[name] = video
        return todo

    def marker(self, name: str) -> Path:
        """Where it is noted of which video the features are."""
        return self.root / MARKERS / f"{name}.json"

    def write(self, name: str, video: str, rows: Iterable[Vectors]) -> None:
        """Write the features of a video with this fingerprint; ExtractionError if they cannot be written."""
        with writing(self.path(name)):
            forget_done(self.marker(name), _SERIES)
            write_array(self.path(name), rows, self.layout)
            note_done(self.marker(name), _SERIES, {NOTED_AS: video})

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
    progress: Progress,
) -> _Outcome:
    outcome, stop = _Outcome([], []), threading.Event()

    def make(name: str, video: Path) -> str:
        """The file of a video; what it has lost, in words."""
        fingerprint = video_fingerprint(video)  # before it is read
        opened = open_video(video, smallest_side=nets.sight.smallest_side, fps=windows.fps)
        rows = _until(stop, vectors_of(video, opened, nets, windows), progress)
        target.write(name, fingerprint, rows)
        return f"{video}: {opened.damage}" if opened.damage else ""

    finished: queue.SimpleQueue[Future[str]] = queue.SimpleQueue()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        futures = {pool.submit(make, name, video): video for name, video in todo.items()}
        for future in futures:
            future.add_done_callback(finished.put)
        try:
            while futures:
                try:
                    future = finished.get(timeout=_WAIT)
                except queue.Empty:
                    progress.refresh()
                    continue
                _note(future, futures.pop(future), outcome)
                progress.add_video()
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


def _until(stop: threading.Event, rows: Iterable[WindowFeatures], progress: Progress) -> Iterator[Vectors]:
    for row in rows:
        if stop.is_set():
            raise _StoppedError
        progress.add(1)
        yield row.vectors.numpy()
