# SPDX-License-Identifier: BSD-3-Clause
"""Videos to a flow store, and in the same pass to a store of their frames."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import NamedTuple

from twostream_ext.devices import find_device, parse_device, processors
from twostream_ext.errors import (
    DamagedVideoWarning,
    ExtractionError,
    FlowStoreError,
    ReplacedVideoWarning,
    SettingsError,
    VideoError,
    failure_text,
)
from twostream_ext.extraction.executors import Progress, run_on_executor, run_on_threads
from twostream_ext.extraction.job import Job, Plan, make_files, run_job, writing
from twostream_ext.files import check_directory, is_inside, is_same, remove_leftovers
from twostream_ext.flow import (
    DIRECTIONS,
    FLOW_KIND,
    Estimator,
    FlowSettings,
    FlowStore,
    NetEstimator,
    estimator_name,
    find_estimator,
    find_method,
    load_estimator,
)
from twostream_ext.media import (
    VIDEO_EXTENSIONS,
    FrameSettings,
    FrameStore,
    check_codec,
    check_rate,
    check_smallest_side,
    is_made_of,
    list_videos,
)
from twostream_ext.media.container import open_container
from twostream_ext.media.directory import check_inside, claim_directory, clip_name, clip_path, compare_clip

_SHOWN_REPLACED = 10

PREVIEW_SUFFIX = ".png"


def extract(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    method: str = "tvl1",
    estimator: Estimator | str | None = None,
    estimator_weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    backward: bool = False,
    frame_step: int = 1,
    fps: float | None = None,
    deinterlace: bool = False,
    square_pixels: bool = False,
    smallest_side: int | None = 256,
    bound: float | None = None,
    codec: str = "jpeg",
    quality: int = 90,
    names: Iterable[str] | None = None,
    shard: tuple[int, int] = (1, 1),
    frames_out: str | os.PathLike[str] | None = None,
    preview: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> FlowStore:
    """Compute the flow of all videos of a directory tree and store it.

    Args:
        videos: the tree; `videos/A/b.avi` becomes `out/A/b.safetensors`, the clip "A/b". A folder of numbered images,
            `videos/A/b/img_00001.jpg` and so on, is a video, too.
        method: one of `METHODS`.
        estimator: a flow of your own in place of `method`: a function, or its name as "module:function". It is given
            frames uint8 RGB [T, H, W, 3], T from 2 to 17, and returns float32 [T - 1, H, W, 2]: (x, y) in pixels from
            each frame to the next. Backward flow is its flow of the reversed frames. It is not called by two threads at
            once; for more than one at a time give an `executor` of processes. A video for which it raises or returns
            something else fails. Or "torchvision:raft_small", "ptlflow:rapidflow" or "nvidia-of:slow", say, which needs
            no function of yours: see `flow.net_estimator`.
        estimator_weights: the file with the weights of such a net, which the store notes by their digest.
        device: where the method or the net computes: "auto" (a GPU, if there is one and the method can use it), "cpu",
            "cuda" or "cuda:N". A function of your own sees to that itself.
        backward: also flow from each frame to the one before.
        frame_step: keep frames 0, frame_step, 2 * frame_step, ... alone, as if the video had no others: flow is between
            those kept, and the number of frames and frames per second are theirs.
        fps: in place of a step, frames at this rate by their times in the file, whatever its own rate; which frame is
            taken says `media.open_video`.
        deinterlace: make interlaced frames of one of their fields (FFmpeg's bwdif); by default they are read whole.
        square_pixels: give frames the width that they are shown with, where a file's pixels are not square.
        smallest_side: the shorter side in pixels to which frames are rescaled first, which are also the pixels flow is
            measured in; None keeps the size of the file.
        bound: clip displacements at +- bound pixels, as TSN and its heirs do (bound 20); None lets each component of
            each field keep its own range, as in the paper (section 5).
        codec: of the flow planes, "jpeg" or "raw".
        quality: of the JPEGs of flow planes and frames, 1 to 100.
        names: only these videos, as "A/b.avi", or "A/b" where that is a folder of images.
        shard: (i, n) takes the i-th of n parts, 1 <= i <= n, of the videos in the order of their names, for n calls on
            machines that share a disk; they may run at the same time.
        frames_out: the directory of a frame store to write as well, of the same rescaled frames.
        preview: also write a picture of each video beside its flow, `out/A/b.png`: the frame in the middle, its flow in
            colours, its x and y plane.
        workers: threads; by default the processors there are. They share even a single video.
        executor: have its workers do the videos, one thread each, in place of threads of this process: processes (start
            them by "spawn" or "forkserver"), MPI, Dask. They must see the same directories.
        progress: a progress bar on standard error, where that is a terminal.

    Each file is written whole or not at all, and videos whose files are already there are left out: a call that was
    broken off can be repeated, and one on a whole store returns at once. Neither the number of threads nor the executor
    changes a byte.

    Each folder of the tree is taken once, links to it or into it notwithstanding; see `list_folders`.

    What is kept of a video is tied to its content, by its size and both its ends (`media.video_fingerprint`): one that
    was replaced by another of its name is extracted again, which a ReplacedVideoWarning tells. (Stores of 0.1.0 have
    not noted it, and are kept.)

    A video that has lost frames is told of by a DamagedVideoWarning at the end, once, and what it has lost is noted in
    its clips as "damage".

    Raises:
        SettingsError: an option that cannot be, or the store was begun with other settings.
        CheckpointError: `estimator_weights` is missing, damaged or of another net.
        VideoError: there are no videos, or a folder cannot be read.
        ExtractionError: a file cannot be written, or a worker process died; or, after all others are done, naming the
            videos that could not be extracted.
    """
    check_rate(frame_step, fps)
    estimator = find_estimator(estimator, estimator_weights, device)
    flow_settings = FlowSettings(
        method=method if estimator is None else estimator_name(estimator),
        smallest_side=smallest_side,
        codec=codec,
        quality=quality if codec == "jpeg" else None,
        directions=DIRECTIONS if backward else DIRECTIONS[:1],
        bound=None if bound is None else float(bound),
        frame_step=frame_step,
        sampled_fps=None if fps is None else float(fps),
        deinterlace=deinterlace,
        square_pixels=square_pixels,
    )
    frame_settings = FrameSettings(
        smallest_side=smallest_side,
        quality=quality,
        frame_step=frame_step,
        sampled_fps=flow_settings.sampled_fps,
        deinterlace=deinterlace,
        square_pixels=square_pixels,
    )
    plan = Plan(flow_settings, frame_settings, estimator, device)
    if executor is not None and workers is not None:
        raise SettingsError(f"workers is {workers}, but the executor has workers of its own")
    workers = processors() if workers is None else workers
    _check_settings(plan, workers, is_here=executor is None)
    # Workers elsewhere have other working directories.
    videos, out = (Path(each) if executor is None else Path(each).absolute() for each in (videos, out))
    mine = _take_shard(find_videos(videos, names), shard)
    if preview and is_inside(out, videos):
        raise SettingsError(f"{out}: lies in {videos}, where pictures of flow would be taken for those of a video")
    _claim(out, FLOW_KIND, flow_settings)
    if frames_out is not None:
        frames_out = Path(frames_out) if executor is None else Path(frames_out).absolute()
        _claim(frames_out, FrameStore.kind, plan.frames)
    lacking = {name: _find_lacking(name, videos / file, out, frames_out, preview, plan) for name, file in mine.items()}
    todo = {name: lacks for name, lacks in lacking.items() if lacks.flow or lacks.frames or lacks.preview}
    if replaced := [videos / mine[name] for name, lacks in todo.items() if lacks.is_replaced]:
        warnings.warn(_replaced_text(replaced), ReplacedVideoWarning, stacklevel=2)
    jobs = (_job(name, videos / mine[name], out, frames_out, lacks) for name, lacks in todo.items())
    bar = Progress(len(mine), len(mine) - len(todo), progress)
    try:
        if executor is None:
            outcome = run_on_threads(jobs, partial(make_files, plan), workers, bar)
        else:
            outcome = run_on_executor(jobs, partial(run_job, plan), executor, bar)
    finally:
        bar.close()
        for root in (out, frames_out):
            if root is not None:
                remove_leftovers(root)
    for damage in sorted(outcome.damages.values()):
        warnings.warn(damage, DamagedVideoWarning, stacklevel=2)
    if failures := outcome.failures:
        raise ExtractionError(failure_text(failures.values(), len(mine), "extracted"), tuple(sorted(failures.values())))
    return FlowStore.open(out)


def _check_settings(plan: Plan, workers: int, *, is_here: bool) -> None:
    settings = plan.flow
    _check_device(plan, is_here)
    check_smallest_side(settings.smallest_side)
    check_codec(settings.codec, settings.quality)
    check_codec("jpeg", plan.frames.quality)
    if settings.bound is not None and not 0 < settings.bound < float("inf"):
        raise SettingsError(f"bound is {settings.bound}, expected a positive number of pixels")
    if workers < 1:
        raise SettingsError(f"workers is {workers}, expected at least 1")


def _check_device(plan: Plan, is_here: bool) -> None:
    """Whether the method can run on the device; other machines' devices are found there."""
    if plan.estimator is not None:
        load_estimator(plan.estimator)
        if isinstance(plan.estimator, NetEstimator) and plan.device in ("auto", plan.estimator.device):
            if is_here:
                plan.estimator.find_device()
        elif plan.device != "auto":
            raise SettingsError(f"device is {plan.device!r}, but an estimator of your own chooses its device itself")
        return
    can_cuda = find_method(plan.flow.method).runs_on_cuda
    if plan.device == "auto":
        return
    if parse_device(plan.device).type == "cuda" and not can_cuda:
        raise SettingsError(f"device is {plan.device!r}, but {plan.flow.method} runs on the CPU only")
    if is_here:
        find_device(plan.device)


def _take_shard(found: dict[str, str], shard: tuple[int, int]) -> dict[str, str]:
    number, count = shard
    if not 1 <= number <= count:
        raise SettingsError(f"shard is {number}/{count}, expected i/n with i from 1 to n")
    if number > len(found):
        raise SettingsError(f"shard is {number}/{count}, but there are only {len(found)} videos")
    return dict(list(found.items())[number - 1 :: count])


class _Lacking(NamedTuple):
    """What is left to do for a video."""

    flow: bool
    frames: bool
    preview: bool
    is_replaced: bool  # what there is was made of another video of its name


def _find_lacking(name: str, video: Path, out: Path, frames_out: Path | None, preview: bool, plan: Plan) -> _Lacking:
    for root in (out, frames_out):
        if root is not None:
            check_inside(clip_path(root, name), root)  # whoever reads the store would not find it there
    picture = _preview_path(out, name)
    flow = _kept(clip_path(out, name), FLOW_KIND, plan.flow, video)
    frames = (
        _Kept.CURRENT if frames_out is None else _kept(clip_path(frames_out, name), FrameStore.kind, plan.frames, video)
    )
    if flow is _Kept.OF_ANOTHER and picture.exists() and not is_same(picture.parent, video.parent):
        preview = True  # that of the other one must not stay
    return _Lacking(
        flow=flow is not _Kept.CURRENT,
        frames=frames is not _Kept.CURRENT,
        preview=preview and (flow is not _Kept.CURRENT or not picture.exists()),
        is_replaced=_Kept.OF_ANOTHER in (flow, frames),
    )


def _job(name: str, video: Path, out: Path, frames_out: Path | None, lacks: _Lacking) -> Job:
    return Job(
        video=video,
        flow=clip_path(out, name),
        frames=clip_path(frames_out, name) if frames_out is not None and lacks.frames else None,
        preview=_preview_path(out, name) if lacks.preview else None,
        has_flow=not lacks.flow,
    )


def _preview_path(out: Path, name: str) -> Path:
    return out / f"{name}{PREVIEW_SUFFIX}"


def find_videos(root: Path, names: Iterable[str] | None) -> dict[str, str]:
    """The videos in a tree, or some of them, by the names of their clips."""
    check_directory(root, VideoError)
    listed = sorted(list_videos(root) if names is None else _given_videos(root, names))
    if not listed:
        where = root if names is None else "names"
        raise VideoError(f"{where}: no videos ({', '.join(VIDEO_EXTENSIONS)})")
    found: dict[str, str] = {}
    for file, name in listed:
        if name in found:
            raise VideoError(f"{root / file}: would be stored as {Path(found[name]).name} is")
        found[name] = file
    return found


def _given_videos(root: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those videos, each with the name of its clip; SettingsError for one that is not in the tree."""
    for given in sorted(set(names)):
        relative = Path(given)
        if relative.is_absolute() or ".." in relative.parts:
            raise SettingsError(f"names: {given!r} is not inside {root}")
        file = relative.as_posix()
        yield file, file if (root / relative).is_dir() else clip_name(file)


def _claim(root: Path, kind: str, settings: FlowSettings | FrameSettings) -> None:
    with writing(root):
        claim_directory(root, kind, settings)
        remove_leftovers(root)


class _Kept(Enum):
    """What there is of a video."""

    NOTHING = auto()
    CURRENT = auto()
    OF_ANOTHER = auto()  # that had its name


def _kept(path: Path, kind: str, settings: FlowSettings | FrameSettings, video: Path) -> _Kept:
    """What a file holds, if it is whole; SettingsError if it was made with other settings."""
    try:
        if not path.exists():
            return _Kept.NOTHING
        noted = open_container(path, kind).description
    except (FlowStoreError, OSError):
        return _Kept.NOTHING  # a damaged file is made anew; a name that is too long will fail alone
    compare_clip(path, noted, settings)
    return _Kept.CURRENT if is_made_of(noted, video) else _Kept.OF_ANOTHER


def _replaced_text(replaced: list[Path]) -> str:
    shown = ", ".join(map(str, sorted(replaced)[:_SHOWN_REPLACED]))
    more = f" and {len(replaced) - _SHOWN_REPLACED} more" if len(replaced) > _SHOWN_REPLACED else ""
    return f"{shown}{more}: not the video that was extracted under this name before; extracted again"
