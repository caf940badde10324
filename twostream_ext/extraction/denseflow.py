# SPDX-License-Identifier: BSD-3-Clause
"""Videos to the trees of files that denseflow writes, by the rules of its newest version (open-mmlab/denseflow).

What it gets wrong is left out: it loses the last batch of a long video, crashes where a video has too few frames, gives
up a whole list for one missing file or an empty line, takes one step for another once a video is marked as done, and
writes two videos of one name into one folder.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from twostream_ext import ops
from twostream_ext.devices import find_device, processors
from twostream_ext.done_markers import MARKERS, forget_done, note_done, read_marker
from twostream_ext.errors import (
    DamagedVideoWarning,
    ExtractionError,
    ReplacedVideoWarning,
    SettingsError,
    VideoError,
    failure_text,
)
from twostream_ext.extraction.executors import Progress, run_on_threads
from twostream_ext.extraction.job import Made, Submit, device_turn, in_order, most_pairs, naming_video, writing
from twostream_ext.files import is_same, remove_leftovers
from twostream_ext.flow import (
    Field,
    PictureNames,
    denseflow_codes,
    find_method,
    h5_path,
    png_codes,
    step_mark,
    write_h5,
    write_pictures,
)
from twostream_ext.media import Frame, files_fingerprint, is_flow_image, open_video, video_fingerprint
from twostream_ext.media.jpeg import LONGEST_JPEG_SIDE, code_jpeg
from twostream_ext.media.png import code_png
from twostream_ext.optional_packages import import_h5py

ALGORITHMS = ("nv", "tvl1", "farn", "brox")
SAVE_TYPES = ("jpg", "png", "h5")

_NOT_HERE = {
    "nv": "is NVIDIA's optical-flow hardware, which needs its own SDK",
    "brox": "is offered by OpenCV for CUDA alone (cudalegacy), and by no package for other processors",
}
_LIST = ".txt"
_FRAME = ".jpg"
# Those of cuda::FarnebackOpticalFlow::create(), which are not those of the CPU's function.
_FARN = {
    "pyr_scale": 0.5,
    "levels": 5,
    "winsize": 13,
    "iterations": 10,
    "poly_n": 5,
    "poly_sigma": 1.1,
    "flags": 0,
}
_NO_GUESS: Any = None  # OpenCV starts from zero; its type stubs ask for an array

Parts = list[bytes] | Field
"""A field or frame as it is written: pictures, or for HDF5 the field itself."""


@dataclass(frozen=True)
class _Plan:
    """What is the same for all videos."""

    algorithm: str
    step: int
    bound: int
    new_width: int
    new_height: int
    new_short: int
    save_type: str
    input_frames: bool
    device: torch.device
    verbose: bool

    @property
    def series(self) -> str:
        """What markers call the files of a video."""
        return f"flow_{step_mark(self.step)} {self.save_type}" if self.step else "img"

    @property
    def made_with(self) -> dict[str, Any]:
        """What the content of these files depends on, beside the video."""
        noted: dict[str, Any] = {
            "newWidth": self.new_width,
            "newHeight": self.new_height,
            "newShort": self.new_short,
        }
        if self.step:
            noted["algorithm"] = self.algorithm
        if self.step and self.save_type == "jpg":
            noted["bound"] = self.bound
        return noted

    def names(self, folder: Path) -> PictureNames:
        """The files of a video's pictures; frames count from 0, fields have the number of the frame they start from."""
        if not self.step:
            return PictureNames((folder / "img_",), ".jpg", 0)
        mark = step_mark(self.step)
        stems = ("flow_x_", "flow_y_") if self.save_type == "jpg" else ("flow_",)
        return PictureNames(tuple(folder / f"{stem}{mark}" for stem in stems), f".{self.save_type}", max(0, -self.step))

    def first_file(self, folder: Path) -> Path:
        if self.step and self.save_type == "h5":
            return h5_path(folder, self.step)
        return self.names(folder).files(0)[0]


class _Job(NamedTuple):
    """One video, and where its files go."""

    video: Path  # or the folder of its frames
    folder: Path
    marker: Path | None  # of a video in a list


class _Frames(NamedTuple):
    size: tuple[int, int]  # (height, width) of the first
    frames: Iterator[Frame]  # RGB
    damage: Callable[[], str]  # what the file has lost, in words, once they have been read


class _Coded(NamedTuple):
    """What came of a stretch of a video."""

    parts: list[Parts]

    @property
    def pairs(self) -> int:
        return len(self.parts)


class Processed(NamedTuple):
    """What `denseflow` did."""

    videos: int
    """That are whole now."""
    skipped: int
    """Of these, that were before."""
    flows: int
    """Fields computed; for step 0 frames."""


def denseflow(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] = ".",
    *,
    algorithm: str = "tvl1",
    step: int = 0,
    bound: int = 32,
    new_width: int = 0,
    new_height: int = 0,
    new_short: int = 0,
    class_folder: bool = False,
    input_frames: bool = False,
    save_type: str = "jpg",
    force: bool = False,
    device: str = "auto",
    workers: int | None = None,
    verbose: bool = False,
    progress: bool = True,
) -> Processed:
    """Write the frames or the flow of videos as denseflow does: the same names, numbers, sizes and codes.

    Args:
        source: a video, `a/b.avi`, or a list of videos, one a line, in a `.txt` file.
        out: where the folder `b` of that video is made.
        algorithm: "tvl1", or "farn" (Farneback's flow by OpenCV, with the settings of its CUDA function). "nv" and
            "brox" are refused.
        step: 0 writes the frames, `img_00000.jpg`. Else each field takes frame t to frame t + step, and has t in its
            name: `flow_x_00000.jpg`, `flow_y_00000.jpg` for step 1, `flow_x_p2_00000.jpg` for 2, `flow_x_m1_00001.jpg`
            for -1. A video of n frames has n - abs(step) fields.
        bound: whole pixels; displacements from -bound to bound become codes 0 to 255, in "jpg".
        new_width, new_height: pixels to which frames are rescaled first, bilinearly, as OpenCV does; with one of them
            the other keeps the aspect. 0 leaves them.
        new_short: in place of them, the shorter side of frames that are larger; smaller ones stay.
        class_folder: of videos in a list, the folder they lie in comes before their own: `a/b`.
        input_frames: videos are folders of frames (`*.jpg`, in the order of their names). Flow that tools have put
            beside them, as this one does, is left out.
        save_type: "jpg"; "png": one picture a field with bounds of its own (see `png_codes`); or "h5": all fields in
            `b.h5` in float32, which needs h5py. Frames are always "jpg".
        force: also do videos of a list that are marked as done.
        device: where TV-L1 is computed: "auto", "cpu", "cuda" or "cuda:N".
        workers: threads; by default the processors there are. They share even a single video.
        verbose: print a line for each video that is done.
        progress: a progress bar on standard error, where that is a terminal.

    Each file is written whole or not at all. A video of a list that is done is marked in `out/.done`, where denseflow
    does, and left out the next time. Unlike denseflow's, a mark tells which step it is of, how it was made, and of
    which video: another of its name is done again, which a ReplacedVideoWarning tells. An empty mark, denseflow's own,
    counts where files of this step are there. A call that was broken off can be repeated, and ends with the same bytes,
    by however many threads.

    A video that has lost frames is told of by a DamagedVideoWarning at the end.

    Raises:
        SettingsError: an option that cannot be, two videos that would share a folder, frames that would be written onto
            themselves, a video that was done with other settings, or h5py is missing.
        VideoError: the list cannot be read or is empty.
        ExtractionError: a file cannot be written; or, after all others are done, naming the videos that could not be
            done: no such file, damaged, too few frames.
    """
    plan = _Plan(
        algorithm=algorithm,
        step=step,
        bound=bound,
        new_width=new_width,
        new_height=new_height,
        new_short=new_short,
        save_type=save_type,
        input_frames=input_frames,
        device=torch.device("cpu"),
        verbose=verbose,
    )
    workers = processors() if workers is None else workers
    _check_settings(plan, workers)
    if step and algorithm == "tvl1":
        plan = replace(plan, device=find_device(device))
    jobs = _find_jobs(Path(source), Path(out), plan, class_folder)
    with writing(Path(out)):
        remove_leftovers(Path(out) / MARKERS)
    todo = jobs if force else [job for job in jobs if not _is_done(job, plan)]
    bar = Progress(len(jobs), len(jobs) - len(todo), progress, counted="pairs" if step else "frames")
    try:
        outcome = run_on_threads(todo, partial(_make_files, plan), workers, bar)
    finally:
        bar.close()
    for damage in sorted(outcome.damages.values()):
        warnings.warn(damage, DamagedVideoWarning, stacklevel=2)
    if failures := outcome.failures:
        if len(jobs) == 1:
            raise ExtractionError("; ".join(failures.values()))
        raise ExtractionError(failure_text(failures.values(), len(jobs), "extracted"), tuple(sorted(failures.values())))
    return Processed(len(jobs), len(jobs) - len(todo), bar.count)


def _check_settings(plan: _Plan, workers: int) -> None:
    if plan.algorithm not in ALGORITHMS:
        raise SettingsError(f"algorithm is {plan.algorithm!r}, expected one of {', '.join(ALGORITHMS)}")
    if plan.step and plan.algorithm in _NOT_HERE:
        raise SettingsError(f"algorithm {plan.algorithm} {_NOT_HERE[plan.algorithm]}; use tvl1 or farn")
    if plan.save_type not in SAVE_TYPES:
        raise SettingsError(f"saveType is {plan.save_type!r}, expected one of {', '.join(SAVE_TYPES)}")
    if plan.bound < 1:
        raise SettingsError(f"bound is {plan.bound}, expected a whole number of pixels above 0")
    sides = {"newWidth": plan.new_width, "newHeight": plan.new_height, "newShort": plan.new_short}
    for name, side in sides.items():
        if not 0 <= side <= LONGEST_JPEG_SIDE:
            raise SettingsError(f"{name} is {side}, expected a number of pixels from 0 to {LONGEST_JPEG_SIDE}")
    if plan.new_short and (plan.new_width or plan.new_height):
        raise SettingsError("newShort stands in place of newWidth and newHeight; give the one or the others")
    if workers < 1:
        raise SettingsError(f"workers is {workers}, expected at least 1")
    if plan.step and plan.save_type == "h5":
        import_h5py()


def _find_jobs(source: Path, out: Path, plan: _Plan, class_folder: bool) -> list[_Job]:
    """VideoError if the list cannot be read; SettingsError if files would get in each other's way."""
    if source.suffix == _LIST and not source.is_dir():
        jobs = [_listed_job(video, out, class_folder) for video in _read_list(source)]
    else:
        jobs = [_Job(source, out / _stem(source), None)]
    by_folder: dict[Path, Path] = {}
    for job in jobs:
        if job.folder in by_folder:
            hint = "" if class_folder else "; -cf (class_folder) puts their folders between"
            raise SettingsError(f"{job.video}: would be written where {by_folder[job.folder]} is, {job.folder}{hint}")
        by_folder[job.folder] = job.video
        if plan.input_frames and not plan.step and is_same(job.folder, job.video):
            raise SettingsError(f"{job.folder}: holds the frames that are read, others would be written onto them")
        if is_same(h5_path(job.folder, plan.step), job.video):
            raise SettingsError(f"{job.video}: is read, and would be overwritten; use another directory")
    return jobs


def _read_list(path: Path) -> list[Path]:
    """The paths in a list, without what denseflow stumbles over: empty lines, line ends and marks of Windows."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    if any("\0" in line for line in lines):
        raise VideoError(f"{path}: is no list of videos: it holds null bytes")
    videos = [Path(line.strip()) for line in lines if line.strip()]
    if not videos:
        raise VideoError(f"{path}: lists no videos, expected a path in each line")
    return list(dict.fromkeys(videos))


def _listed_job(video: Path, out: Path, class_folder: bool) -> _Job:
    group = _named(video.parent).name if class_folder else ""
    return _Job(video, out / group / _stem(video), out / MARKERS / group / _stem(video))


def _stem(video: Path) -> str:
    """The name of a video's folder: without what follows the last dot, also if it is a folder of frames itself."""
    return _named(video).stem or video.resolve().stem


def _named(path: Path) -> Path:
    return path.resolve() if path.name == ".." else path


def _is_done(job: _Job, plan: _Plan) -> bool:
    """SettingsError if it was done with other settings."""
    if job.marker is None:
        return False
    try:
        noted = read_marker(job.marker)
        if noted is None or not plan.first_file(job.folder).exists():
            return False
    except OSError:  # a name that is too long, say, which will fail alone
        return False
    if not noted:  # denseflow's own, which tells nothing
        return True
    ours = noted.get(plan.series)
    if not isinstance(ours, dict):
        return False
    for setting, value in plan.made_with.items():
        if ours.get(setting) != value:
            raise SettingsError(
                f"{job.folder}: was made with {setting} {ours.get(setting)}, not {value}; use another directory or the "
                "same setting, or -f (force) to make it again"
            )
    try:
        is_same_video = ours.get("video") == _fingerprint(job.video, plan)
    except VideoError:  # it is gone since, or cannot be read
        return True
    if not is_same_video:
        text = f"{job.video}: not the video that was done under this name before; done again"
        warnings.warn(text, ReplacedVideoWarning, stacklevel=3)
    return is_same_video


def _fingerprint(video: Path, plan: _Plan) -> str:
    """VideoError if it cannot be read, or is a folder where a file is expected, or a file for a folder."""
    if not plan.input_frames:
        if video.is_dir():
            raise VideoError(f"{video}: is a directory; -if (input_frames) takes the frames in it")
        return video_fingerprint(video)
    try:
        return files_fingerprint(_list_frames(video))
    except OSError as error:
        raise VideoError(f"{video}: cannot be read: {error.strerror}") from error


def _make_files(plan: _Plan, job: _Job, submit: Submit) -> Made:
    """VideoError, naming the video, if it cannot be done; ExtractionError if a file cannot be written."""
    with naming_video(job.video):
        source = _fingerprint(job.video, plan)  # before it is read: of two that change places, the earlier one
        video = _open_frames(job.video, plan)
        size = _new_size(video.size, plan)
        if max(size) > LONGEST_JPEG_SIDE:
            raise VideoError(f"{job.video}: frames of {size[1]}x{size[0]} pixels are too large")
        frames = _resized(job.video, video.frames, size, grey=plan.step != 0)
        calls = _flow_calls(frames, plan, size) if plan.step else _frame_calls(frames, plan, size)
        with writing(job.folder):
            if job.marker is not None:
                forget_done(job.marker, plan.series)
            count = 0
            with _writer(job, plan) as write:
                for coded in in_order(calls, submit):
                    for parts in coded.parts:
                        write(parts)
                    count += len(coded.parts)
                if not count:
                    needs = abs(plan.step) + 1
                    raise VideoError(
                        f"{job.video}: flow of step {plan.step} needs at least {needs} frames, it has fewer"
                    )
            if job.marker is not None:
                note_done(job.marker, plan.series, {**plan.made_with, "video": source})
    what = f"{plan.algorithm} flows" if plan.step else "frames"
    return Made(count, video.damage(), f"done video {job.folder}: {count} {what}" if plan.verbose else "")


def _writer(job: _Job, plan: _Plan) -> AbstractContextManager[Callable[[Any], object]]:
    if plan.step and plan.save_type == "h5":
        return write_h5(job.folder, plan.step)
    return write_pictures(plan.names(job.folder))


def _open_frames(path: Path, plan: _Plan) -> _Frames:
    """VideoError, naming it, if it cannot be read."""
    if not plan.input_frames:
        video = open_video(path, smallest_side=None)
        return _Frames(
            video.source_size,
            (frame.rgb() for frame in video.frames),
            lambda: str(video.damage) if video.damage else "",
        )
    files = _list_frames(path)
    first = _read_frame(files[0])
    return _Frames((first.shape[0], first.shape[1]), map(_read_frame, files), lambda: "")


def _list_frames(folder: Path) -> list[Path]:
    """VideoError, naming it, if it holds none."""
    if not folder.is_dir():
        raise VideoError(f"{folder}: is no folder of frames, as -if (input_frames) wants one")
    try:
        files = [path for path in folder.iterdir() if path.suffix == _FRAME and path.is_file()]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read: {error.strerror}") from error
    frames = sorted(path for path in files if not is_flow_image(path.name))
    if not frames:
        raise VideoError(f"{folder}: holds no frames (*{_FRAME})")
    return frames


def _read_frame(path: Path) -> Frame:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    frame = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    if frame is None:
        raise VideoError(f"{path}: is no image that can be decoded")
    return np.asarray(frame, np.uint8)


def _new_size(size: tuple[int, int], plan: _Plan) -> tuple[int, int]:
    """(height, width) out of those of the source; halves are rounded up, as C does."""
    height, width = size
    if plan.new_width and plan.new_height:
        return plan.new_height, plan.new_width
    short = plan.new_short if min(size) > plan.new_short else 0
    if plan.new_width or (short and width < height):
        new_width = plan.new_width or short
        return max(1, int(height / width * new_width + 0.5)), new_width
    if plan.new_height or short:
        new_height = plan.new_height or short
        return new_height, max(1, int(width / height * new_height + 0.5))
    return size


def _resized(video: Path, frames: Iterator[Frame], size: tuple[int, int], *, grey: bool) -> Iterator[Frame]:
    """Frames in grey or in BGR, of one size: coloured first, then rescaled, as denseflow does."""
    height, width = size
    source_shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        source_shape = source_shape or frame.shape
        converted = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY if grey else cv2.COLOR_RGB2BGR)
        if converted.shape[:2] != (height, width):
            if (height, width) == source_shape[:2]:
                other = f"{frame.shape[1]}x{frame.shape[0]}"
                raise VideoError(f"{video}: frame {number} is of {other} pixels, the first of {width}x{height}")
            converted = cv2.resize(converted, (width, height), interpolation=cv2.INTER_LINEAR)
        yield np.asarray(converted, np.uint8)


def _flow_calls(frames: Iterator[Frame], plan: _Plan, size: tuple[int, int]) -> Iterator[Callable[[], _Coded]]:
    pairs = most_pairs(plan.device.type, size)
    for earlier, later in _pairs_of_stretches(frames, abs(plan.step), pairs):
        yield partial(_code_flow, plan, earlier, later)


def _pairs_of_stretches(frames: Iterator[Frame], gap: int, pairs: int) -> Iterator[tuple[list[Frame], list[Frame]]]:
    """All pairs of frames so many apart, the earlier and the later ones of so many pairs at a time."""
    held: deque[Frame] = deque()
    earlier: list[Frame] = []
    later: list[Frame] = []
    for frame in frames:
        held.append(frame)
        if len(held) > gap:
            earlier.append(held.popleft())
            later.append(frame)
        if len(earlier) == pairs:
            yield earlier, later
            earlier, later = [], []
    if earlier:
        yield earlier, later


def _code_flow(plan: _Plan, earlier: list[Frame], later: list[Frame]) -> _Coded:
    first, second = (earlier, later) if plan.step > 0 else (later, earlier)
    estimate = _tvl1 if plan.algorithm == "tvl1" else _farn
    fields = estimate(np.stack(first), np.stack(second), plan.device)
    return _Coded([_code_field(field, plan) for field in fields])


def _tvl1(first: Frame, second: Frame, device: torch.device) -> npt.NDArray[np.float32]:
    with device_turn(device):
        frames = (torch.from_numpy(each).to(device) for each in (first, second))
        flow = ops.tvl1_flow(*frames, **find_method("tvl1").parameters)
        assert isinstance(flow, torch.Tensor)
        return flow.cpu().numpy()


def _farn(first: Frame, second: Frame, device: torch.device) -> npt.NDArray[np.float32]:
    pairs = zip(first, second, strict=True)
    fields = [cv2.calcOpticalFlowFarneback(one, other, _NO_GUESS, **_FARN) for one, other in pairs]  # type: ignore[call-overload]
    return np.stack(fields)


def _code_field(field: Field, plan: _Plan) -> Parts:
    if plan.save_type == "h5":
        return field
    if plan.save_type == "png":
        return [code_png(png_codes(field))]
    codes = denseflow_codes(field, plan.bound)
    return [code_jpeg(np.ascontiguousarray(codes[..., axis]), None) for axis in (0, 1)]


def _frame_calls(frames: Iterator[Frame], plan: _Plan, size: tuple[int, int]) -> Iterator[Callable[[], _Coded]]:
    count = most_pairs(plan.device.type, size)
    while stretch := list(islice(frames, count)):
        yield partial(_code_frames, stretch)


def _code_frames(frames: list[Frame]) -> _Coded:
    return _Coded([[code_jpeg(frame, None)] for frame in frames])
