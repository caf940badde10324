# SPDX-License-Identifier: BSD-3-Clause
"""Flow that other tools wrote as trees of JPEGs, read where it lies and never written to.

| layout  | files of a video                                            | written by                              |
|---------|-------------------------------------------------------------|-----------------------------------------|
| flow_x  | <video>/flow_x_00001.jpg, flow_y_00001.jpg                  | dense_flow (TSN), denseflow (MMAction2) |
|         | and for backward flow flow_x_m1_00001.jpg, flow_y_m1_...    | denseflow with step -1                  |
| x       | <video>/x_00001.jpg, y_00001.jpg                            | flow_extraction.py (MMAction2)          |
| u and v | u/<video>/frame000001.jpg, v/<video>/frame000001.jpg        | gpu_flow (feichtenhofer)                |
|         | and maybe u/<video>.bin with the range of each field        |                                         |

<video> may have folders before it. Fields are numbered from 0 or from 1 (backward ones from one more, the frame that
they start from), with any number of digits. What counts are the fields, not the frames (img_00001.jpg) beside them, of
which some tools write as many and some one more: a video has one frame more than it has fields.

dense_flow, denseflow and gpu_flow round, which makes a pixel that stands still code 128; flow_extraction.py truncates,
which makes it 127. Codes are read so that this one is a displacement of exactly 0, which shifts all others by half a
step (0.08 pixels at a bound of 20).

JPEGs have no checksum: damage inside one that leaves it decodable cannot be told.
"""

from __future__ import annotations

import math
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import FlowStoreError, SettingsError
from twostream_ext.files import check_directory
from twostream_ext.flow.clip import DIRECTIONS, FieldSlots, FlowClip, FlowSettings, first_settings
from twostream_ext.media.container import open_file
from twostream_ext.media.directory import SETTINGS_FILE, SUFFIX, check_inside, list_folders
from twostream_ext.media.jpeg import decode_jpeg, jpeg_size, largest_jpeg, most_pixels

DEFAULT_BOUND = 20.0  # pixels

_PLANE = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)\.jpg", re.DOTALL)
_STEP_BITS = 16  # significant ones, so that a step times a code of 8 bits is exact in float32
_END_OF_JPEG = b"\xff\xd9"
_LONGEST_TRAILER = 64  # bytes that may follow it
_LARGEST_FILE = 1 << 26  # bytes


class Layout(NamedTuple):
    name: str
    folders: tuple[str, str]  # in the tree, of the x planes and of the y planes
    prefixes: Mapping[str, tuple[str, str]]  # by direction: of the names of the x planes and of the y planes
    looked_for: str
    zero_code: int  # of a pixel that stands still


class Tree(NamedTuple):
    """What is known of a directory before any video of it is read."""

    layout: Layout
    names: list[str]  # of the videos


LAYOUTS = (
    Layout(
        "flow_x",
        ("", ""),
        {"forward": ("flow_x_", "flow_y_"), "backward": ("flow_x_m1_", "flow_y_m1_")},
        "<video>/flow_x_00001.jpg and flow_y_00001.jpg (dense_flow of TSN, denseflow of MMAction2)",
        128,
    ),
    Layout("x", ("", ""), {"forward": ("x_", "y_")}, "<video>/x_00001.jpg and y_00001.jpg (MMAction2)", 127),
    Layout(
        "u and v",
        ("u", "v"),
        {"forward": ("frame", "frame")},
        "u/<video>/frame000001.jpg and v/<video>/frame000001.jpg (gpu_flow of feichtenhofer)",
        128,
    ),
)


class _Series(NamedTuple):
    """The planes of one direction: <prefix><number with at least so many digits>.jpg"""

    prefixes: tuple[str, str]  # of x and of y, with the folder
    digits: int
    first: int
    length: int

    def file(self, axis: int, index: int) -> str:
        return f"{self.prefixes[axis]}{self.first + index:0{self.digits}d}.jpg"


class _Ranges(NamedTuple):
    lo: npt.NDArray[np.float32]  # [fields, 2], or [2] for all of them; in pixels
    step: npt.NDArray[np.float32]


class FlowTree:
    """A tree that another tool wrote; see `FlowStore.open`.

    A clip is found by its own name, and if the tree has no folders for classes by the last part of a name; if there is
    none, without regard to capitals: some trees have HandstandPushups where the lists of UCF-101 have HandStandPushups.
    """

    def __init__(self, path: Path, tree: Tree, *, bound: float | None, zero_code: int | None) -> None:
        """FlowStoreError if no video of it can be read."""
        if bound is not None and not 0 < bound < math.inf:
            raise SettingsError(f"bound is {bound}, expected a number of pixels above 0")
        if zero_code is not None and not 0 <= zero_code <= 255:
            raise SettingsError(f"zero_code is {zero_code}, expected a number from 0 to 255")
        self.path = path
        self._layout = tree.layout
        self._bound = bound
        self._zero_code = tree.layout.zero_code if zero_code is None else zero_code
        self._names = dict.fromkeys(tree.names)
        self._without_capitals: dict[str, list[str]] = {}
        for name in self._names:
            self._without_capitals.setdefault(name.casefold(), []).append(name)
        self._clips: dict[str, FlowClip] = {}  # they are small, and finding their files is not
        self.settings = first_settings(self)

    def __getitem__(self, name: str) -> FlowClip:
        """FlowStoreError if there is no such clip or files of it are missing."""
        found = self._find(name)
        if found is None and ".." not in Path(name).parts and _folders(self.path, self._layout, name)[0].is_dir():
            found = name  # by a link to a folder that is listed under its own name
        if found is None:
            raise FlowStoreError(f"{self.path}: holds no video {name!r}")
        if found not in self._clips:
            self._clips[found] = _TreeClip(self.path, found, self._layout, self._bound, self._zero_code)
        return self._clips[found]

    def peek(self, name: str) -> FlowClip:
        """The clip: these files have no checksums to compare."""
        return self[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _find(self, name: str) -> str | None:
        names = (name, name.rpartition("/")[2])
        for each in names:
            if each in self._names:
                return each
        for each in names:
            found = self._without_capitals.get(each.casefold(), [])
            if len(found) == 1:
                return found[0]
        return None


class _TreeClip(FlowClip):
    def __init__(self, root: Path, name: str, layout: Layout, bound: float | None, zero_code: int) -> None:
        """FlowStoreError, naming a file, unless all fields are there from the first to the last."""
        folders = _folders(root, layout, name)
        for each in folders:
            check_inside(each, root)
        self.name = name
        self.path = folders[0]
        self._series = _find_series(root, folders, layout)
        self.frame_count = next(iter(self._series.values())).length + 1
        self.fps = math.nan
        self.size = self.source_size = _size_of(next(iter(self._series.values())).file(0, 0))
        self.settings = FlowSettings(
            method="unknown", smallest_side=None, codec="jpeg", quality=None, directions=tuple(self._series)
        )
        ranges = folders[0].with_name(f"{folders[0].name}.bin")
        if bound is None and layout.name == "u and v" and ranges.exists():
            check_inside(ranges, root)
            self._ranges = _read_ranges(ranges, self.frame_count - 1)
            self.metadata = {"layout": layout.name, "ranges": str(ranges)}
        else:
            bound = DEFAULT_BOUND if bound is None else bound
            self._ranges = _exact_ranges(np.array(2 * bound / 255), np.array([zero_code, zero_code]))
            self.metadata = {"layout": layout.name, "bound": bound, "zero_code": zero_code}

    @property
    def fingerprint(self) -> str:
        return f"{super().fingerprint} {zlib.crc32(b''.join(part.tobytes() for part in self._ranges)):08x}"

    def load(self, direction: str, first: int, slots: FieldSlots) -> None:
        begin = first - DIRECTIONS.index(direction)
        series = self._series[direction]
        chosen = slice(begin, begin + len(slots.lo)) if self._ranges.lo.ndim == 2 else slice(None)
        slots.lo[:], slots.step[:] = self._ranges.lo[chosen], self._ranges.step[chosen]
        for index, planes in enumerate(slots.planes):
            for axis, plane in enumerate(planes):
                _load_plane(series.file(axis, begin + index), plane)
                # The mean before coding is not noted; this is that of what is decoded.
                slots.mean[index, axis] = slots.lo[index, axis] + slots.step[index, axis] * cv2.mean(plane)[0]


def find_tree(root: Path) -> Tree | None:
    """What another tool wrote into a directory; None if it is a store of ours.

    FlowStoreError if the directory is missing or holds no flow, or that of several layouts.
    """
    check_directory(root, FlowStoreError)
    if (root / SETTINGS_FILE).exists():
        return None
    examples: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for folder, files in list_folders(root, within=True):
        # One file tells the layout of a folder. The others are looked at when its video is read.
        kind, file = next(((kind, file) for file in files if (kind := _kind(folder, file))), (None, ""))
        if kind is not None:
            examples.setdefault(kind, f"{folder}/{file}")
            names.setdefault(kind, []).append(folder)
    if len(examples) > 1:
        raise FlowStoreError(
            f"{root}: holds flow of several layouts: {', '.join(sorted(examples.values()))}; open one part of it"
        )
    for layout in LAYOUTS:
        if layout.name in names:
            return Tree(layout, sorted({_video_name(root, layout, folder) for folder in names[layout.name]}))
    if not examples:
        known = "; ".join(layout.looked_for for layout in LAYOUTS)
        raise FlowStoreError(f"{root}: holds no flow files; looked for <video>{SUFFIX}; {known}")
    return None


def _kind(folder: str, file: str) -> str | None:
    """The name of the layout that has such a file there, or the ending of our own files."""
    if file.endswith(SUFFIX) and not file.startswith("."):
        return SUFFIX
    match = _PLANE.fullmatch(file)
    if match is not None:
        for layout in LAYOUTS:
            if any(match["prefix"] in prefixes for prefixes in layout.prefixes.values()) and (
                layout.folders == ("", "") or folder.partition("/")[0] in layout.folders
            ):
                return layout.name
    return None


def _video_name(root: Path, layout: Layout, folder: str) -> str:
    inside = folder if layout.folders == ("", "") else folder.partition("/")[2]
    return root.resolve().name if inside in ("", ".") else inside  # the directory of a single video


def _folders(root: Path, layout: Layout, name: str) -> tuple[Path, Path]:
    """Of the x planes and of the y planes of a video."""
    x, y = (root / folder for folder in layout.folders)
    if name == root.resolve().name and not (x / name).exists() and not (y / name).exists():
        return x, y
    return x / name, y / name


def _find_series(root: Path, folders: tuple[Path, Path], layout: Layout) -> dict[str, _Series]:
    """By direction, in their order."""
    x = _list_numbers(root, folders[0])
    y = x if folders[0] == folders[1] else _list_numbers(root, folders[1])
    others = {prefix for other in LAYOUTS if other.folders == layout.folders for prefix in _prefixes(other)}
    for prefix in (others - _prefixes(layout)) & x.keys():
        raise FlowStoreError(f"{folders[0]}: holds flow of several layouts, {_prefixes(layout)} and {prefix}")
    found = {
        direction: (x.get(prefixes[0], set()), y.get(prefixes[1], set()))
        for direction, prefixes in layout.prefixes.items()
        if prefixes[0] in x or prefixes[1] in y
    }
    if not found:
        raise FlowStoreError(f"{folders[0]}: holds no flow; looked for {layout.looked_for}")
    # Backward flow has the number of the frame it starts from, which is the second.
    numbered_from_0 = any(DIRECTIONS.index(each) in map(int, a | b) for each, (a, b) in found.items())
    base = 0 if numbered_from_0 else 1
    last = max(int(number) - DIRECTIONS.index(each) for each, (a, b) in found.items() for number in a | b)
    return {
        direction: _series(
            tuple(str(folder / prefix) for folder, prefix in zip(folders, layout.prefixes[direction], strict=True)),
            numbers,
            base + DIRECTIONS.index(direction),
            last - base + 1,
        )
        for direction, numbers in found.items()
    }


def _prefixes(layout: Layout) -> set[str]:
    return {prefix for prefixes in layout.prefixes.values() for prefix in prefixes}


def _list_numbers(root: Path, folder: Path) -> dict[str, set[str]]:
    """The numbers of planes in a folder as they are written, by the prefix of their names."""
    try:
        with os.scandir(folder) as entries:  # hundreds: to make a path of each takes longer than all else
            files = []
            for entry in entries:
                if entry.is_symlink():
                    check_inside(Path(entry.path), root)
                files.append(entry.name)
    except OSError as error:
        raise FlowStoreError(f"{folder}: cannot be read: {error.strerror}") from error
    numbers: dict[str, set[str]] = {}
    for match in filter(None, map(_PLANE.fullmatch, files)):
        numbers.setdefault(match["prefix"], set()).add(match["number"])
    return numbers


def _series(prefixes: Iterable[str], numbers: tuple[set[str], set[str]], first: int, count: int) -> _Series:
    """FlowStoreError, naming the file, if one is missing."""
    digits = min(len(number) for axis in numbers for number in axis)
    x, y = prefixes
    series = _Series((x, y), digits, first, count)
    for axis, present in enumerate(numbers):
        for index in range(count):
            if f"{first + index:0{digits}d}" not in present:
                last = first + count - 1
                raise FlowStoreError(f"{series.file(axis, index)}: is missing; there are fields up to number {last}")
    return series


def _read_file(path: str, largest: int) -> bytes:
    """FlowStoreError if it cannot be read or is larger."""
    try:
        file = open_file(path)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise FlowStoreError(f"{path}: is not a regular file")
            if status.st_size > largest:
                raise FlowStoreError(f"{path}: is too large, {status.st_size} bytes")
            return os.read(file, status.st_size)
        finally:
            os.close(file)
    except OSError as error:
        raise FlowStoreError(f"{path}: cannot be read: {error.strerror}") from error


def _size_of(path: str) -> tuple[int, int]:
    """Height and width of a JPEG."""
    data = np.frombuffer(_read_file(path, _LARGEST_FILE), np.uint8)
    size = jpeg_size(data)
    if size is None or not 0 < size[0] * size[1] <= most_pixels(len(data)):
        raise FlowStoreError(f"{path}: is damaged or no JPEG")
    return size


def _load_plane(path: str, plane: npt.NDArray[np.uint8]) -> None:
    height, width = plane.shape
    data = _read_file(path, largest_jpeg(height, width))
    picture = np.frombuffer(data, np.uint8)
    # Without its end, a decoder may paint what is missing grey.
    if _END_OF_JPEG in data[-_LONGEST_TRAILER:] and decode_jpeg(picture, plane):
        return
    size = jpeg_size(picture)
    if size is not None and size != plane.shape:
        raise FlowStoreError(f"{path}: is of {size[1]}x{size[0]} pixels, others are of {width}x{height}")
    raise FlowStoreError(f"{path}: is truncated or no JPEG")


def _exact_ranges(step: npt.NDArray[np.float64], zero_code: npt.NDArray[np.float64]) -> _Ranges:
    """Ranges with which the zero code is exactly 0, however a kernel rounds lo + step * code.

    Of the step 16 bits are kept, which changes a displacement by less than one part in 65,000.
    """
    fraction, exponent = np.frexp(step)
    step = np.ldexp(np.rint(np.ldexp(fraction, _STEP_BITS)), exponent - _STEP_BITS)
    lo = -step * zero_code
    return _Ranges(lo.astype(np.float32), np.broadcast_to(step, lo.shape).astype(np.float32))


def _read_ranges(path: Path, count: int) -> _Ranges:
    """Of gpu_flow: for each field the lowest and the highest x, and the lowest and the highest y, as float32."""
    data = _read_file(str(path), _LARGEST_FILE)
    if len(data) != 16 * count:
        raise FlowStoreError(f"{path}: has {len(data)} bytes, expected {16 * count} for {count} fields")
    low, high = np.moveaxis(np.frombuffer(data, "<f4").reshape(count, 2, 2).astype(np.float64), 2, 0)
    if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
        raise FlowStoreError(f"{path}: does not hold ranges")
    constant = low == high
    spans = np.where(constant, 1, high - low)
    ranges = _exact_ranges(np.where(constant, 0, spans / 255), np.rint(255 * (0 - low) / spans))
    return ranges._replace(lo=np.where(constant, low, ranges.lo).astype(np.float32))
