# SPDX-License-Identifier: BSD-3-Clause
"""The flow of one video, whatever it is stored as, and batches of stacks of its fields."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext.devices import processors
from twostream_ext.errors import FlowStoreError, SettingsError
from twostream_ext.ops import FlowBatch, QuantizedFlow, camera_motion, dequantize_flow

DIRECTIONS = ("forward", "backward")
BIDIRECTIONAL = "bidirectional"

_ALIGNMENT = 64  # bytes, as torch gives its memory
_PIECES_PER_THREAD = 4  # so that no thread waits long for the last one


class FieldSlots(NamedTuple):
    """Where n consecutive fields of a clip go: views of a batch, of which the first axis may run backward."""

    planes: npt.NDArray[np.uint8]  # [n, 2, H, W]
    lo: npt.NDArray[np.float32]  # [n, 2], as step and mean
    step: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    camera: npt.NDArray[np.float32] | None = None  # [n, 2, 3], if it is wanted


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """What the flow of a store was made with."""

    method: str
    """How it was estimated."""
    smallest_side: int | None
    """Shorter side of the frames it was estimated on, in pixels; None: that of the file."""
    codec: str
    """One of `CODECS`."""
    quality: int | None
    """Of the JPEGs, 1 to 100; None without them."""
    directions: tuple[str, ...]
    """Which of `DIRECTIONS` are there."""
    bound: float | None = None
    """Displacements were clipped at +- so many pixels; None: each component of each field has its own range."""
    frame_step: int = 1
    """Every so many frames of the video was kept."""
    sampled_fps: float | None = None
    """Frames were taken at this rate, by their times; None: at the file's own."""
    deinterlace: bool = False
    """Whether interlaced frames were made of one of their fields."""
    square_pixels: bool = False
    """Whether frames were given the width that they are shown with."""


class FlowClip(ABC):
    """The flow of one video of a store.

    Fields have the numbers of the frame they start from: forward field t, 0 <= t <= frame_count -
    2, takes frame t to frame t + 1; backward field t, 1 <= t <= frame_count - 1, takes it to frame
    t - 1.
    """

    name: str
    path: Path  # of its file or folder
    frame_count: int
    fps: float  # NaN where it is not known
    size: tuple[int, int]  # (height, width) of the fields, in pixels
    source_size: tuple[int, int]  # (height, width) of the video file's frames
    settings: FlowSettings
    metadata: dict[str, Any]  # all that is noted about it

    @abstractmethod
    def load(self, direction: str, first: int, slots: FieldSlots) -> None:
        """Read the fields `first`, first + 1, ... of a direction, which are there, into slots of the clip's size.

        All but `slots.camera`. Several threads may do so at once. FlowStoreError, naming the file, if one is damaged.
        """

    def stored_camera(self, direction: str, first: int, count: int) -> npt.NDArray[np.float32] | None:
        """The camera's motion in fields of a direction, which are there, float32 [count, 2, 3]; None: not stored."""
        return None

    @property
    def fingerprint(self) -> str:
        """Another for other content, as far as that can be told without reading all of it."""
        return f"{self.frame_count} {self.size} {self.directions}"

    @property
    def directions(self) -> tuple[str, ...]:
        return self.settings.directions

    def length(self, direction: str = "forward") -> int:
        """Number of fields in a direction."""
        self._first(direction)
        return self.frame_count - 1

    def count_stacks(self, length: int) -> int:
        """Number of places at which a stack of `length` fields may start; SettingsError if there are too few frames."""
        if self.frame_count <= length:
            needs = f"a stack of {length} flow fields needs {length + 1}"
            raise SettingsError(f"{self.name}: has {self.frame_count} frames, {needs}")
        return self.frame_count - length

    def read(self, start: int, length: int, direction: str = "forward") -> QuantizedFlow:
        """The fields start, start + 1, ..., start + length - 1 of a direction, or both (see `read_flow_batch`).

        Gives `codes` uint8 `[L, H, W, 2]`, a view of planes `[L, 2, H, W]`, and `lo`, `step` and `mean` float32
        `[L, 2]`, in pixels. Only these fields are read and decoded, in the calling thread. SettingsError if there are
        no such fields, FlowStoreError if they are damaged.
        """
        batch = read_flow_batch([self], [start], length, direction=direction, threads=1)
        return QuantizedFlow(batch.fields[0], *(table[0] for table in _tables(batch)))

    def displacement(self, number: int, direction: str = "forward") -> npt.NDArray[np.float32]:
        """One field in pixels, float32 [H, W, 2]; errors as of `read`."""
        batch = read_flow_batch([self], [number], 1, direction=direction, threads=1)
        lo, step, _ = _tables(batch)
        field: npt.NDArray[np.float32] = dequantize_flow(batch.fields, lo, step)[0][0].numpy()
        return field

    def camera_motion(self, start: int, length: int, direction: str = "forward") -> npt.NDArray[np.float32]:
        """The affine map that most of each field follows, float32 [L, 2, 3]; see `ops.camera_motion`.

        As the extraction stored it beside the field's mean; where nothing is stored, fitted to the field that is read.
        Errors as of `read`.
        """
        batch = read_flow_batch([self], [start], length, direction=direction, threads=1, camera=True)
        assert batch.camera is not None
        maps: npt.NDArray[np.float32] = batch.camera[0].numpy()
        return maps

    def check(self, direction: str, start: int, length: int) -> None:
        """SettingsError unless the fields start, ..., start + length - 1 are there."""
        first = self._first(direction)
        last = first + self.frame_count - 2
        if length < 1 or start < first or start + length - 1 > last:
            raise SettingsError(
                f"{self.path}: has {direction} fields {first} to {last}, asked for {length} from {start}"
            )

    def _first(self, direction: str) -> int:
        """Number of the first field of a direction."""
        if direction not in self.directions:
            hint = "; extract it with backward=True" if direction == "backward" else ""
            raise SettingsError(f"{self.path}: has no {direction} flow{hint}")
        return DIRECTIONS.index(direction)


class FlowSource(Protocol):
    """The flow of many videos by name, `<class>/<video>` without extension, in files of one kind."""

    path: Path  # of the directory
    settings: FlowSettings

    def __getitem__(self, name: str) -> FlowClip:
        """FlowStoreError if there is no such clip or it is damaged."""

    def peek(self, name: str) -> FlowClip:
        """The clip of which only numbers are wanted: no checksum is compared."""

    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...


def first_settings(source: FlowSource) -> FlowSettings:
    """Those of the first video that can be read: one that is damaged is no reason not to read the others."""
    failures = []
    for name in source:
        try:
            return source.peek(name).settings
        except FlowStoreError as error:
            failures.append(error)
    raise failures[0]


class _Run(NamedTuple):
    """Consecutive fields of a clip, and where they go in a stack; `backward`: the last one first."""

    direction: str
    first: int
    place: slice
    backward: bool


def read_flow_batch(
    clips: Sequence[FlowClip],
    starts: Sequence[int],
    length: int,
    *,
    direction: str = "forward",
    threads: int | None = None,
    camera: bool = False,
    out: FlowBatch | None = None,
) -> FlowBatch:
    """Read a stack of `length` flow fields of each clip into one packed batch.

    Each component of each field is read and decoded straight into its place in the batch, by several threads: neither
    reading nor decoding holds the interpreter. Clips may be of any sizes and stores, and may repeat; where the stack of
    a clip shares fields with the one before it of the same clip, they are decoded once.

    Args:
        clips: N clips of flow stores.
        starts: for each clip the frame t from which its stack starts.
        length: L, the fields of a stack.
        direction: "forward" gives the fields d_t, d_(t+1), ...; "backward" gives b_t, b_(t+1), ...; "bidirectional"
            gives the L/2 fields d_t, d_(t+1), ... and then the L/2 fields b_t, b_(t-1), ... (paper, section 3.1).
        threads: how many read and decode, by default the processors there are. They end with the call, so processes
            may be forked at any time.
        camera: read the camera's motion in each field too; see `FlowClip.camera_motion`.
        out: fill and return this batch, say one in pinned memory, or the last one: memory that was never touched costs
            a tenth of the time or more.

    Returns:
        A batch of uint8 codes with `lo`, `step` and `mean` `[N, L, 2]`, and `camera` `[N, L, 2, 3]`, in pixels.

    Raises:
        SettingsError: a clip has no such fields, an argument cannot be.
        FlowStoreError: a file is missing or damaged; names it.
        ValueError: not as many starts as clips, or `out` is of other sizes.
    """
    threads = processors() if threads is None else threads
    if threads < 1:
        raise SettingsError(f"threads is {threads}, expected at least 1")
    stacks = [_runs(start, length, direction) for start in starts]
    for clip, runs in zip(clips, stacks, strict=True):
        for run in runs:
            clip.check(run.direction, run.first, run.place.stop - run.place.start)
    sizes = tuple(clip.size for clip in clips)
    batch = _allocate(sizes, length, camera) if out is None else out
    wanted = (sizes, length, torch.uint8, ("lo", "step", "mean", *(("camera",) if camera else ())), "cpu")
    if (batch.sizes, batch.length, batch.dtype, batch.tables, batch.device.type) != wanted:
        tables = "means and camera motion" if camera else "means"
        raise ValueError(f"read_flow_batch: out must be a batch of codes with {tables}, {length} of each of {sizes}")
    largest = max(1, len(clips) * length // (threads * _PIECES_PER_THREAD)) if threads > 1 else length
    pieces, copies = _plan(_slots(batch), clips, stacks, largest)
    _do_all(pieces, threads)
    for copy in copies:
        copy()
    return batch


def _allocate(sizes: Sequence[tuple[int, int]], length: int, camera: bool) -> FlowBatch:
    """An empty batch in memory of NumPy's, which asks the system for huge pages.

    To touch as many small ones for the first time takes a fifth as long as decoding into them.
    """
    batch = FlowBatch.empty(sizes, length, camera=camera)
    count = batch.buffer.numel()
    memory = torch.from_numpy(np.empty(count + _ALIGNMENT, np.uint8))
    begin = -memory.data_ptr() % _ALIGNMENT
    return dataclasses.replace(batch, buffer=memory[begin : begin + count])


def _runs(start: int, length: int, direction: str) -> list[_Run]:
    if direction != BIDIRECTIONAL:
        return [_Run(direction, start, slice(0, length), backward=False)]
    half = length // 2
    if length % 2:
        raise SettingsError(f"length is {length}, expected an even number if bidirectional")
    return [
        _Run("forward", start, slice(0, half), backward=False),
        _Run("backward", start - half + 1, slice(half, length), backward=True),
    ]


def _slots(batch: FlowBatch) -> list[FieldSlots]:
    """Where the fields of each stack of a batch go."""
    lo, step, mean = (table.numpy() for table in _tables(batch))
    planes = [field.numpy().transpose(0, 3, 1, 2) for field in batch.fields]
    camera = [None] * len(planes) if batch.camera is None else batch.camera.numpy()
    return [FieldSlots(*stack) for stack in zip(planes, lo, step, mean, camera, strict=True)]


def _plan(
    slots: Sequence[FieldSlots], clips: Sequence[FlowClip], stacks: Sequence[list[_Run]], largest: int
) -> tuple[list[Callable[[], None]], list[Callable[[], None]]]:
    """The work of reading stacks: pieces of at most `largest` fields, and what is to be copied after them, in order.

    Where a stack shares fields with the one before of the same clip, as those of a test do, they are decoded once.
    """
    pieces: list[Callable[[], None]] = []
    copies: list[Callable[[], None]] = []
    before: dict[tuple[int, str], tuple[int, FieldSlots]] = {}  # of each clip and direction, the last run and its slots
    for stack, clip, runs in zip(slots, clips, stacks, strict=True):
        for run in runs:
            here = stack if len(runs) == 1 else _part(stack, run.place)
            if run.backward:
                here = _part(here, slice(None, None, -1))
            left = slice(0, len(here.lo))
            if (id(clip), run.direction) in before:
                other_first, other = before[id(clip), run.direction]
                shared, source, left = _overlap(run.first - other_first, len(here.lo))
                copies.append(partial(_copy, _part(other, source), _part(here, shared)))
            before[id(clip), run.direction] = run.first, here
            for at in range(left.start, left.stop, largest):
                piece = _part(here, slice(at, min(at + largest, left.stop)))
                pieces.append(partial(_load, clip, run.direction, run.first + at, piece))
    return pieces, copies


def _load(clip: FlowClip, direction: str, first: int, slots: FieldSlots) -> None:
    """Read fields, and the camera's motion in them if it is wanted."""
    clip.load(direction, first, slots)
    if slots.camera is not None:
        stored = clip.stored_camera(direction, first - DIRECTIONS.index(direction), len(slots.camera))
        slots.camera[:] = _fitted_camera(slots) if stored is None else stored


def _fitted_camera(slots: FieldSlots) -> npt.NDArray[np.float32]:
    """What `ops.camera_motion` finds in fields that have been read, [n, 2, 3]."""
    order = slice(None, None, -1 if slots.planes.strides[0] < 0 else 1)  # torch has no tensors that run backward
    codes = torch.from_numpy(slots.planes[order]).permute(0, 2, 3, 1)
    lo, step = (torch.from_numpy(table[order]) for table in (slots.lo, slots.step))
    maps: npt.NDArray[np.float32] = camera_motion(codes[None], lo=lo[None], step=step[None])[0].numpy()
    return maps[order]


def _overlap(ahead: int, count: int) -> tuple[slice, slice, slice]:
    """Of a run of `count` fields that begins `ahead` fields after another of as many, or before it if negative.

    Which of its fields the other has too, which ones they are of the other, and which of its fields are left.
    """
    ahead = max(-count, min(count, ahead))
    shared = slice(max(0, -ahead), count - max(0, ahead))
    source = slice(max(0, ahead), count - max(0, -ahead))
    left = slice(shared.stop, count) if ahead >= 0 else slice(0, shared.start)
    return shared, source, left


def _copy(source: FieldSlots, target: FieldSlots) -> None:
    target.planes[:] = source.planes
    target.lo[:], target.step[:], target.mean[:] = source.lo, source.step, source.mean
    if target.camera is not None:
        target.camera[:] = source.camera


def _part(slots: FieldSlots, chosen: slice) -> FieldSlots:
    camera = None if slots.camera is None else slots.camera[chosen]
    return FieldSlots(slots.planes[chosen], slots.lo[chosen], slots.step[chosen], slots.mean[chosen], camera)


def _tables(batch: FlowBatch) -> tuple[Tensor, Tensor, Tensor]:
    """`lo`, `step` and `mean` of a batch of codes, which has them."""
    assert batch.lo is not None
    assert batch.step is not None
    assert batch.mean is not None
    return batch.lo, batch.step, batch.mean


def _do_all(pieces: Sequence[Callable[[], None]], threads: int) -> None:
    """By threads of this call alone: a pool kept for the next call would not be there in a forked process."""
    if threads == 1 or len(pieces) == 1:
        for piece in pieces:
            piece()
        return
    with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
        futures = [pool.submit(piece) for piece in pieces]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()  # those not begun, after an error
