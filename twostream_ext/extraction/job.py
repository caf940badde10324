# SPDX-License-Identifier: BSD-3-Clause
"""One video to its files: decoded, cut into short stretches, their flow estimated and coded, written.

Stretches overlap by one frame and are coded by themselves, so that several threads, or a GPU and the processors, share
one video, and memory stays flat however long it is. Where they are cut follows from the frames' size alone: who does
the work does not change a byte.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch

from twostream_ext import ops
from twostream_ext.devices import find_device
from twostream_ext.errors import ExtractionError, VideoError, describe, first_line
from twostream_ext.extraction.spool import Spool
from twostream_ext.files import atomic_write
from twostream_ext.flow import (
    DIRECTIONS,
    ClipFlow,
    CodedFlow,
    Estimator,
    FlowSettings,
    code_flow,
    draw_clip,
    estimate_clip_flow,
    estimator_parameters,
    find_method,
    join_coded_flow,
    load_estimator,
    read_flow_clip,
    run_estimator,
    write_coded_clip,
)
from twostream_ext.media import (
    NOTED_AS,
    Frame,
    FrameSettings,
    OpenVideo,
    code_frame,
    open_as,
    video_fingerprint,
    write_coded_frames,
)
from twostream_ext.media.png import code_png
from twostream_ext.threads import set_opencv_threads

_ESTIMATOR = "estimator"
_PAIRS = {"cpu": 16, "cuda": 64, _ESTIMATOR: 16}  # at most, in a stretch
# Of all fields of a stretch, at most: of a GPU 128 MB in float32, of an estimator 32 MB. Ctrl-C waits for what is in
# work, and TV-L1 of 2^19 pixels takes half a second on a processor of its own.
_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 24, _ESTIMATOR: 1 << 22}

# Memory of the device for two stretches: one computes while the codes of the other come back.
_device_turns = threading.BoundedSemaphore(2)


@dataclass(frozen=True)
class Plan:
    """What is the same for all videos of an extraction."""

    flow: FlowSettings
    frames: FrameSettings
    estimator: Estimator | str | None  # in place of the method that `flow` names
    device: str  # "auto", "cpu", "cuda" or "cuda:N", found where the video is worked on


class Job(NamedTuple):
    """One video and its files."""

    video: Path
    flow: Path
    frames: Path | None  # None: not wanted, or there
    preview: Path | None
    has_flow: bool  # it is there


class Made(NamedTuple):
    """What came of a video."""

    pairs: int  # of frames, that flow was computed of
    damage: str  # what the file has lost, in words; empty if nothing
    told: str = ""  # what is to be printed of it, if it is anything


class Pixels(NamedTuple):
    """A frame as far as it is wanted."""

    grey: Frame | None  # what methods estimate flow on: always the video's luma, whatever else is wanted
    rgb: Frame | None  # for the frame store, or a user's estimator


class CodedStretch(NamedTuple):
    """What becomes of a stretch of a video."""

    frames: list[bytes]
    flow: dict[str, CodedFlow]  # by direction

    @property
    def pairs(self) -> int:
        return len(self.flow["forward"].ranges) if self.flow else 0


class Stretch(Protocol):
    """What came of a stretch of a video."""

    @property
    def pairs(self) -> int: ...


StretchT = TypeVar("StretchT", bound=Stretch)


class Submit(Protocol):
    """Has a stretch worked on, at once or by other threads."""

    def __call__(self, call: Callable[[], StretchT], /) -> Future[StretchT]: ...


def run_job(plan: Plan, job: Job) -> Made:
    """Make the files of one video with one thread, as a worker of any executor.

    VideoError, naming the video, if it cannot be extracted; ExtractionError if a file cannot be written.
    """
    set_opencv_threads(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return make_files(plan, job, _at_once)
    finally:
        torch.set_num_threads(threads)


def _at_once(call: Callable[[], StretchT]) -> Future[StretchT]:
    future: Future[StretchT] = Future()
    future.set_result(call())
    return future


def make_files(plan: Plan, job: Job, submit: Submit) -> Made:
    """`run_job` with stretches that are worked on by `submit`."""
    with naming_video(job.video):
        made = Made(0, "")
        if job.frames or not job.has_flow:
            made = _extract(job, plan, submit)
        if job.preview:
            _write_preview(job)
        return made


@contextmanager
def naming_video(video: Path) -> Iterator[None]:
    """Make a VideoError, which names the video, of what OpenCV raises and of a lack of memory."""
    try:
        yield
    except cv2.error as error:
        raise VideoError(f"{video}: OpenCV failed: {describe(error)}") from error
    except MemoryError as error:
        raise VideoError(f"{video}: there is not enough memory for its frames") from error


def _extract(job: Job, plan: Plan, submit: Submit) -> Made:
    settings = plan.flow
    device = _device(plan)
    source = video_fingerprint(job.video)  # before it is read: of two that change places meanwhile, the earlier one
    video = open_as(job.video, settings)
    pairs = most_pairs(_ESTIMATOR if plan.estimator else device.type, video.size)
    calls = (
        partial(_code_stretch, job, plan, device, frames, index == 0)
        for index, frames in enumerate(_stretches(_pixels(video, job, plan), pairs))
    )
    with ExitStack() as stack, writing(job.flow):
        planes = {direction: stack.enter_context(Spool(job.flow.parent)) for direction in settings.directions}
        pictures = stack.enter_context(Spool(job.flow.parent))
        parts: dict[str, list[CodedFlow]] = {direction: [] for direction in settings.directions}
        for coded in in_order(calls, submit):
            for picture in coded.frames:
                pictures.append(picture)
            for direction, flow in coded.flow.items():
                for plane in flow.planes:
                    planes[direction].append(plane)
                parts[direction].append(flow._replace(planes=[]))
        if not job.has_flow:
            if not parts["forward"]:
                told = f"; {video.damage}" if video.damage else ""
                raise VideoError(f"{job.video}: has 1 frame{_at_rate(settings)}, flow needs at least 2{told}")
            write_coded_clip(
                job.flow,
                {each: join_coded_flow(parts[each])._replace(planes=planes[each]) for each in settings.directions},
                settings=settings,
                parameters=_parameters(plan),
                fps=video.fps,
                source_size=video.source_size,
                notes={**video.notes(), NOTED_AS: source},
            )
        if job.frames:
            with writing(job.frames):
                write_coded_frames(
                    job.frames,
                    pictures,
                    settings=plan.frames,
                    fps=video.fps,
                    size=video.size,
                    source_size=video.source_size,
                    notes={**video.notes(), NOTED_AS: source},
                )
    return Made(sum(len(part.ranges) for part in parts["forward"]), str(video.damage) if video.damage else "")


def _parameters(plan: Plan) -> dict[str, Any]:
    """What a clip notes of how its flow was estimated, beside the name."""
    return estimator_parameters(plan.estimator) if plan.estimator else find_method(plan.flow.method).parameters


def _at_rate(settings: FlowSettings) -> str:
    if settings.sampled_fps is not None:
        return f" at {settings.sampled_fps:g} frames per second"
    return f" at a frame step of {settings.frame_step}" if settings.frame_step > 1 else ""


def device_turn(device: torch.device) -> AbstractContextManager[object]:
    """Wait for a GPU's memory."""
    return _device_turns if device.type == "cuda" else nullcontext()


def _device(plan: Plan) -> torch.device:
    """Where this process computes: an estimator sees to that itself, other methods may know the CPU only."""
    if plan.estimator or not find_method(plan.flow.method).runs_on_cuda:
        return torch.device("cpu")
    return find_device(plan.device)


def _pixels(video: OpenVideo, job: Job, plan: Plan) -> Iterator[Pixels]:
    """What is wanted of each frame, and no more: to make RGB takes about as long as to decode."""
    for_estimator = not job.has_flow and plan.estimator is not None
    for_method = not job.has_flow and plan.estimator is None
    for frame in video.frames:
        yield Pixels(
            grey=frame.grey() if for_method else None,
            rgb=frame.rgb() if job.frames or for_estimator else None,
        )


def most_pairs(where: str, size: tuple[int, int]) -> int:
    """Of frames of a size, (height, width), in a stretch; where: "cpu", "cuda" or "estimator"."""
    return max(1, min(_PAIRS[where], _PIXELS[where] // (size[0] * size[1])))


def _stretches(frames: Iterator[Pixels], pairs: int) -> Iterator[list[Pixels]]:
    """All frames, the last of each stretch being the first of the next."""
    stretch: list[Pixels] = []
    is_first = True
    for frame in frames:
        stretch.append(frame)
        if len(stretch) > pairs:
            yield stretch
            stretch = [frame]
            is_first = False
    if is_first or len(stretch) > 1:
        yield stretch


def in_order(calls: Iterable[Callable[[], StretchT]], submit: Submit) -> Iterator[StretchT]:
    """Results in the order of the calls; `submit` decides how many are under way."""
    waiting: deque[Future[StretchT]] = deque()
    try:
        for call in calls:
            waiting.append(submit(call))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _code_stretch(job: Job, plan: Plan, device: torch.device, frames: list[Pixels], is_first: bool) -> CodedStretch:
    pictures = []
    if job.frames:
        colour = [frame.rgb for frame in (frames if is_first else frames[1:]) if frame.rgb is not None]
        pictures = [code_frame(frame, plan.frames.quality) for frame in colour]
    if job.has_flow or len(frames) < 2:
        return CodedStretch(pictures, {})
    settings = plan.flow
    with device_turn(device):
        try:
            flow = _estimate(frames, plan, device)
        except VideoError as error:
            raise VideoError(f"{job.video}: {error}") from error
        quantized = quantize_fields(flow, settings)
    return CodedStretch(pictures, code_fields(quantized, settings))


class QuantizedFields(NamedTuple):
    """L fields of one direction in 8 bits, on the CPU, with what is kept beside them."""

    flow: ops.QuantizedFlow
    camera: torch.Tensor  # float32 [L, 2, 3], the camera's motion in each


def quantize_fields(flow: ClipFlow, settings: FlowSettings) -> dict[str, QuantizedFields]:
    """Fields on any device in 8 bits, by direction."""
    return {
        direction: QuantizedFields(
            ops.QuantizedFlow(*(part[0].cpu() for part in ops.quantize_flow(fields[None], bound=settings.bound))),
            ops.camera_motion(fields[None])[0].cpu(),
        )
        for direction, fields in zip(DIRECTIONS, flow, strict=True)
        if fields is not None
    }


def code_fields(quantized: dict[str, QuantizedFields], settings: FlowSettings) -> dict[str, CodedFlow]:
    """What `quantize_fields` gives, as the files of a store of these settings keep it."""
    return {
        direction: code_flow(fields.flow, codec=settings.codec, quality=settings.quality, camera=fields.camera)
        for direction, fields in quantized.items()
    }


def _estimate(frames: list[Pixels], plan: Plan, device: torch.device) -> ClipFlow:
    backward = "backward" in plan.flow.directions
    if plan.estimator:
        colour = np.stack([frame.rgb for frame in frames if frame.rgb is not None])
        return run_estimator(load_estimator(plan.estimator), colour, backward)
    grey = torch.from_numpy(np.stack([frame.grey for frame in frames if frame.grey is not None]))
    return estimate_clip_flow(grey, plan.flow.method, device=device, backward=backward)


def _write_preview(job: Job) -> None:
    assert job.preview is not None
    picture = draw_clip(job.video, read_flow_clip(job.flow))
    coded = code_png(picture)
    with writing(job.preview), atomic_write(job.preview) as temporary:
        temporary.write_bytes(coded)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """A full disk, or a directory that may not be written, ends the extraction; a name too long ends this video."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise VideoError(f"{place}: the name is too long") from error
        raise ExtractionError(f"{place}: cannot be written: {error.strerror or first_line(error)}") from error
