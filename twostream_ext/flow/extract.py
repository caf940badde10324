# SPDX-License-Identifier: BSD-3-Clause
"""Videos to a flow store, and in the same pass to a store of their frames."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from torch import Tensor
from tqdm import tqdm

from twostream_ext import ops
from twostream_ext.errors import ExtractionError, FlowStoreError, SettingsError, VideoError
from twostream_ext.flow.container import open_container
from twostream_ext.flow.directory import claim_directory, clip_path, compare_settings, settings_dict
from twostream_ext.flow.estimate import METHODS, PARAMETERS, estimate_flow
from twostream_ext.flow.frames import FrameSettings, FrameStore, code_frame, write_coded_frames
from twostream_ext.flow.store import (
    DIRECTIONS,
    CodedField,
    FlowSettings,
    FlowStore,
    check_codec,
    code_field,
    write_coded_clip,
)
from twostream_ext.flow.video import (
    VIDEO_EXTENSIONS,
    Frame,
    check_smallest_side,
    open_video,
    to_grey,
)

_SHOWN_FAILURES = 10


class _Job(NamedTuple):
    video: Path
    flow: Path | None  # the file to write; None if it is already there
    frames: Path | None


class _Field(NamedTuple):
    """One field of what `ops.quantize_flow` gives."""

    codes: Tensor  # uint8 [H, W, 2]
    lo: Tensor  # float32 [2]
    step: Tensor
    mean: Tensor


class _StoppedError(Exception):
    """The extraction was given up."""


def extract(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    method: str = "dis",
    backward: bool = False,
    smallest_side: int | None = 256,
    quality: int = 90,
    names: Iterable[str] | None = None,
    frames_out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> FlowStore:
    """Compute the flow of all videos of a directory tree and store it.

    videos: the tree; `videos/A/b.avi` becomes `out/A/b.safetensors`, the clip "A/b".
    method: one of `METHODS`. backward: also flow from each frame to the one before.
    smallest_side: the shorter side in pixels to which frames are rescaled first, which are also the
        pixels flow is measured in; None keeps the size of the file.
    quality: of the JPEGs of flow planes and frames, 1 to 100.
    names: only these videos, as "A/b.avi".
    frames_out: the directory of a frame store to write as well, of the same rescaled frames.
    workers: videos in work at a time, one thread each; by default the processors there are.
    progress: a progress bar on standard error, where that is a terminal.

    Each file is written whole or not at all, and videos whose files are already there are left out:
    a call that was broken off can be repeated, and one on a whole store returns at once.

    SettingsError for an option that cannot be, and if the store was begun with other settings;
    VideoError if there are no videos; ExtractionError if a file cannot be written, or, after all
    others are done, naming the videos that could not be read.
    """
    flow_settings = FlowSettings(
        method=method,
        smallest_side=smallest_side,
        codec="jpeg",
        quality=quality,
        directions=DIRECTIONS if backward else DIRECTIONS[:1],
    )
    frame_settings = FrameSettings(smallest_side, quality)
    workers = _processors() if workers is None else workers
    _check_settings(flow_settings, workers)
    found = _find_videos(Path(videos), names)
    _claim(out, FlowStore.kind, flow_settings)
    if frames_out is not None:
        _claim(frames_out, FrameStore.kind, frame_settings)
    jobs = [
        _Job(
            path,
            _missing(out, name, FlowStore.kind, flow_settings),
            _missing(frames_out, name, FrameStore.kind, frame_settings),
        )
        for name, path in found.items()
    ]
    failures = _run(jobs, flow_settings, frame_settings, workers, progress)
    if failures:
        raise ExtractionError(_failure_text(failures, len(found)))
    return FlowStore.open(out)


def _check_settings(settings: FlowSettings, workers: int) -> None:
    if settings.method not in METHODS:
        raise SettingsError(f"method is {settings.method!r}, expected one of {', '.join(METHODS)}")
    check_smallest_side(settings.smallest_side)
    check_codec(settings.codec, settings.quality)
    if workers < 1:
        raise SettingsError(f"workers is {workers}, expected at least 1")


def _processors() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0))


def _find_videos(root: Path, names: Iterable[str] | None) -> dict[str, Path]:
    """Paths of the videos by name, without extension."""
    if not root.is_dir():
        raise VideoError(f"{root}: no such directory")
    listed = sorted(set(_list_videos(root) if names is None else names))
    if not listed:
        where = root if names is None else "names"
        raise VideoError(f"{where}: no videos ({', '.join(VIDEO_EXTENSIONS)})")
    found: dict[str, Path] = {}
    for file in listed:
        relative = Path(file)
        if relative.is_absolute() or ".." in relative.parts:
            raise SettingsError(f"names: {file!r} is not inside {root}")
        name = relative.with_suffix("").as_posix()
        if name in found:
            raise VideoError(f"{root / relative}: would be stored as {found[name].name} is")
        found[name] = root / relative
    return found


def _list_videos(root: Path) -> Iterator[str]:
    for folder, _, files in os.walk(root, followlinks=True):
        for file in files:
            path = Path(folder, file)
            if path.suffix.lower() in VIDEO_EXTENSIONS and not file.startswith("."):
                yield path.relative_to(root).as_posix()


def _claim(root: str | os.PathLike[str], kind: str, settings: FlowSettings | FrameSettings) -> None:
    with _writing(Path(root)):
        claim_directory(Path(root), kind, settings_dict(settings))


def _missing(
    root: str | os.PathLike[str] | None,
    name: str,
    kind: str,
    settings: FlowSettings | FrameSettings,
) -> Path | None:
    """The file to write, or None if it is there whole, or not wanted."""
    if root is None:
        return None
    path = clip_path(Path(root), name)
    if not path.exists():
        return path
    try:
        noted = open_container(path, kind).description
    except FlowStoreError:
        return path  # damaged: to be made again
    compare_settings(path, noted, settings_dict(settings))
    return None


def _run(
    jobs: list[_Job],
    flow_settings: FlowSettings,
    frame_settings: FrameSettings,
    workers: int,
    progress: bool,
) -> dict[Path, str]:
    """Reasons by video that could not be read."""
    todo = [job for job in jobs if job.flow or job.frames]
    if not todo:
        return {}
    failures = {}
    stop = threading.Event()
    bar = tqdm(
        total=len(jobs),
        initial=len(jobs) - len(todo),
        desc="flow",
        unit="video",
        disable=None if progress else True,
    )
    active = min(workers, len(todo))
    with bar, _opencv_threads(max(1, _processors() // active)), ThreadPoolExecutor(active) as pool:
        futures = {pool.submit(_extract_video, job, flow_settings, frame_settings, stop): job.video for job in todo}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except VideoError as error:
                    failures[futures[future]] = str(error)
                bar.update()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failures


@contextmanager
def _opencv_threads(count: int) -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """A full disk, or a directory that may not be written, ends the extraction."""
    try:
        yield
    except OSError as error:
        raise ExtractionError(f"{place}: cannot be written: {error.strerror}") from error


def _extract_video(
    job: _Job, flow_settings: FlowSettings, frame_settings: FrameSettings, stop: threading.Event
) -> None:
    video = open_video(job.video, smallest_side=flow_settings.smallest_side)
    flow: dict[str, list[CodedField]] = {direction: [] for direction in flow_settings.directions}
    frames: list[bytes] = []
    previous = None
    for frame in video.frames:
        if stop.is_set():
            raise _StoppedError
        if job.frames:
            frames.append(code_frame(frame, frame_settings.quality))
        if job.flow:
            grey = to_grey(frame)
            if previous is not None:
                _add_fields(flow, job.video, previous, grey, flow_settings)
            previous = grey
    if job.flow:
        if not flow["forward"]:
            raise VideoError(f"{job.video}: has 1 frame, flow needs at least 2")
        with _writing(job.flow):
            write_coded_clip(
                job.flow,
                flow,
                settings=flow_settings,
                parameters=PARAMETERS[flow_settings.method],
                fps=video.fps,
                source_size=video.source_size,
            )
    if job.frames:
        with _writing(job.frames):
            write_coded_frames(
                job.frames,
                frames,
                settings=frame_settings,
                fps=video.fps,
                size=video.size,
                source_size=video.source_size,
            )


def _add_fields(
    flow: dict[str, list[CodedField]],
    video: Path,
    previous: Frame,
    frame: Frame,
    settings: FlowSettings,
) -> None:
    """Code the flow between two frames, each way that is there."""
    pairs = {"forward": (previous, frame), "backward": (frame, previous)}
    for direction, coded in flow.items():
        try:
            field = estimate_flow(*pairs[direction], settings.method)
        except VideoError as error:
            raise VideoError(f"{video}: {error}") from error
        quantized = ops.quantize_flow(torch.from_numpy(field)[None, None])
        coded.append(
            code_field(
                _Field(*(part[0][0] for part in quantized)),
                codec=settings.codec,
                quality=settings.quality,
            )
        )


def _failure_text(failures: Mapping[Path, str], count: int) -> str:
    shown = "; ".join(sorted(failures.values())[:_SHOWN_FAILURES])
    more = len(failures) - _SHOWN_FAILURES
    rest = f"; and {more} more" if more > 0 else ""
    return f"{len(failures)} of {count} videos could not be extracted: {shown}{rest}"
