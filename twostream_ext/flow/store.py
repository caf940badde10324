# SPDX-License-Identifier: BSD-3-Clause
"""The flow store: one file per video, any field of it readable without its neighbours.

Each component of each field is rescaled to 8 bits by its own range and coded as a JPEG, as in the
paper (section 5); the range is kept, so that displacements come back in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext.errors import FlowStoreError, SettingsError
from twostream_ext.flow.container import Container, Pictures, open_container, read_pictures, write_container
from twostream_ext.flow.directory import SETTINGS_FILE, Store, read_settings, settings_dict

DIRECTIONS = ("forward", "backward")
CODECS = ("jpeg", "raw")
KIND = "flow"

_RANGES = ("lo", "step", "mean")


@dataclass(frozen=True)
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


class QuantizedField(Protocol):
    """One flow field as `ops.quantize_flow` codes it: displacement = lo + step * code."""

    @property
    def codes(self) -> Any: ...  # uint8 [H, W, 2]
    @property
    def lo(self) -> Any: ...  # float32 [2], in pixels, as step and mean
    @property
    def step(self) -> Any: ...
    @property
    def mean(self) -> Any: ...


class CodedField(NamedTuple):
    """One flow field as it is stored."""

    size: tuple[int, int]  # (height, width)
    planes: tuple[bytes, bytes]  # of x and of y
    ranges: npt.NDArray[np.float32]  # [3, 2]: lo, step, mean


class CodedFields(NamedTuple):
    """The fields of one direction as they are stored."""

    size: tuple[int, int]  # (height, width)
    planes: Pictures  # x and y of each field in turn
    ranges: list[npt.NDArray[np.float32]]  # of each field [3, 2]: lo, step, mean


class FlowFields(NamedTuple):
    """Consecutive fields of one video; displacement = lo + step * code, in pixels."""

    codes: Tensor  # uint8 [L, H, W, 2], a view of planes [L, 2, H, W]
    lo: Tensor  # float32 [L, 2]
    step: Tensor  # float32 [L, 2]
    mean: Tensor  # float32 [L, 2], of each field before it was coded


class FlowClip:
    """The flow of one video of a store.

    Fields have the numbers of the frame they start from: forward field t, 0 <= t <= frame_count -
    2, takes frame t to frame t + 1; backward field t, 1 <= t <= frame_count - 1, takes it to frame
    t - 1.
    """

    name: str
    frame_count: int
    fps: float
    size: tuple[int, int]  # (height, width) of the fields, in pixels
    source_size: tuple[int, int]  # (height, width) of the video file's frames
    settings: FlowSettings
    metadata: dict[str, Any]  # all that is noted in the file

    def __init__(self, name: str, container: Container) -> None:
        """FlowStoreError if the container does not hold what a flow clip must."""
        self._container = container
        self.name = name
        self.metadata = container.description
        try:
            self.settings = _settings(self.metadata)
            self.frame_count = int(self.metadata["frame_count"])
            self.fps = float(self.metadata["fps"])
            self.size = size_of(self.metadata["size"])
            self.source_size = size_of(self.metadata["source_size"])
        except (KeyError, TypeError, ValueError) as error:
            raise FlowStoreError(f"{container.path}: the description lacks {error}") from error
        for direction in self.directions:
            _check_direction(container, direction, self.frame_count - 1)

    @property
    def directions(self) -> tuple[str, ...]:
        return self.settings.directions

    def length(self, direction: str = "forward") -> int:
        """Number of fields in a direction."""
        self._first(direction)
        return self.frame_count - 1

    def read(self, start: int, length: int, direction: str = "forward") -> FlowFields:
        """The fields start, start + 1, ..., start + length - 1 of a direction.

        Only these are read and decoded. SettingsError if there are no such fields, FlowStoreError
        if they are damaged.
        """
        first = self._first(direction)
        last = first + self.frame_count - 2
        if length < 1 or start < first or start + length - 1 > last:
            raise SettingsError(
                f"{self._container.path}: has {direction} fields {first} to {last}, asked for {length} from {start}"
            )
        begin = start - first
        height, width = self.size
        planes = np.empty((length, 2, height, width), np.uint8)
        pictures = read_pictures(self._container, direction, 2 * begin, 2 * length)
        for plane, picture in zip(planes.reshape(-1, height, width), pictures, strict=True):
            self._decode(picture, plane)
        lo, step, mean = (
            torch.from_numpy(self._range(direction, name)[begin : begin + length].copy()) for name in _RANGES
        )
        return FlowFields(torch.from_numpy(planes).permute(0, 2, 3, 1), lo, step, mean)

    def _first(self, direction: str) -> int:
        """Number of the first field of a direction."""
        if direction not in self.directions:
            hint = "; extract it with backward=True" if direction == "backward" else ""
            raise SettingsError(f"{self._container.path}: has no {direction} flow{hint}")
        return DIRECTIONS.index(direction)

    def _range(self, direction: str, name: str) -> npt.NDArray[np.float32]:
        return self._container.arrays[f"{direction}.{name}"]

    def _decode(self, picture: npt.NDArray[np.uint8], plane: npt.NDArray[np.uint8]) -> None:
        if self.settings.codec == "raw":
            whole = picture.size == plane.size
            decoded: Any = picture.reshape(plane.shape) if whole else None
        else:
            decoded = cv2.imdecode(picture, cv2.IMREAD_GRAYSCALE)
        if decoded is None or decoded.shape != plane.shape:
            raise FlowStoreError(f"{self._container.path}: a plane cannot be decoded")
        plane[:] = decoded


class FlowStore(Store[FlowClip]):
    """Flow of many videos by name, "<class>/<video>" without extension; see `Store`."""

    kind = KIND
    settings: FlowSettings

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        if (self.path / SETTINGS_FILE).exists():
            try:
                self.settings = _settings(read_settings(self.path))
            except (KeyError, TypeError) as error:
                place = self.path / SETTINGS_FILE
                raise FlowStoreError(f"{place}: lacks the setting {error}") from error
        else:
            self.settings = self.peek(next(iter(self))).settings

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FlowStore:
        """The store in a directory. FlowStoreError if it is missing or holds no flow."""
        return cls(path)

    def _clip(self, name: str, container: Container) -> FlowClip:
        return FlowClip(name, container)


def read_flow_clip(path: str | os.PathLike[str]) -> FlowClip:
    """The clip in one file. FlowStoreError if it is missing or damaged."""
    return FlowClip(Path(path).stem, open_container(path, KIND, trusted=set()))


def code_field(field: QuantizedField, *, codec: str = "jpeg", quality: int | None = 90) -> CodedField:
    """Code the two planes of a field.

    SettingsError if there is no such codec or quality.
    """
    check_codec(codec, quality)
    codes = np.asarray(field.codes)
    if codes.dtype != np.uint8 or codes.ndim != 3 or codes.shape[2] != 2:
        raise ValueError(f"code_field: codes are {codes.dtype} {list(codes.shape)}, expected uint8 [H, W, 2]")
    planes = [np.ascontiguousarray(codes[..., component]) for component in (0, 1)]
    x, y = (plane.tobytes() if codec == "raw" else code_jpeg(plane, quality) for plane in planes)
    ranges = np.stack([np.asarray(part, np.float32) for part in (field.lo, field.step, field.mean)])
    return CodedField((codes.shape[0], codes.shape[1]), (x, y), ranges)


def code_jpeg(picture: npt.NDArray[np.uint8], quality: int | None) -> bytes:
    """JPEG of a picture, grey [H, W] or BGR [H, W, 3]."""
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", picture, options)[1].tobytes()


def check_codec(codec: str, quality: int | None) -> None:
    """SettingsError unless they can be used."""
    if codec not in CODECS:
        raise SettingsError(f"codec is {codec!r}, expected one of {', '.join(CODECS)}")
    if codec == "jpeg" and (not isinstance(quality, int) or not 1 <= quality <= 100):
        raise SettingsError(f"quality is {quality!r}, expected a number from 1 to 100")


def write_flow_clip(
    path: str | os.PathLike[str],
    *,
    forward: Iterable[QuantizedField],
    backward: Iterable[QuantizedField] | None = None,
    codec: str = "jpeg",
    quality: int = 90,
    method: str = "unknown",
    parameters: dict[str, Any] | None = None,
    smallest_side: int | None = None,
    fps: float = 25.0,
    source_size: tuple[int, int] | None = None,
) -> None:
    """Write the flow of one video, whole or not at all.

    forward, backward: one field for each pair of neighbouring frames, in the order of the frames;
    each with codes uint8 [H, W, 2] and lo, step, mean float32 [2]. The other arguments are only
    noted; source_size (height, width) is by default that of the fields.

    ValueError if the fields are not alike in size or number; SettingsError for a codec or quality
    that cannot be; OSError if the file cannot be written.
    """
    check_codec(codec, quality)
    given = {"forward": forward} | ({} if backward is None else {"backward": backward})
    coded = {
        direction: _collect(path, [code_field(field, codec=codec, quality=quality) for field in fields])
        for direction, fields in given.items()
    }
    settings = FlowSettings(
        method=method,
        smallest_side=smallest_side,
        codec=codec,
        quality=quality if codec == "jpeg" else None,
        directions=tuple(given),
    )
    write_coded_clip(
        path,
        coded,
        settings=settings,
        parameters=parameters or {},
        fps=fps,
        source_size=source_size,
    )


def write_coded_clip(
    path: str | os.PathLike[str],
    fields: dict[str, CodedFields],
    *,
    settings: FlowSettings,
    parameters: dict[str, Any],
    fps: float,
    source_size: tuple[int, int] | None,
) -> None:
    """`write_flow_clip` of fields that are coded already, by direction."""
    sizes = {coded.size for coded in fields.values()}
    counts = {direction: len(coded.ranges) for direction, coded in fields.items()}
    if len(sizes) != 1:
        raise ValueError(f"{path}: fields of one size are expected, got {sorted(sizes)}")
    if len(set(counts.values())) != 1:
        raise ValueError(f"{path}: as many fields each way are expected, got {counts}")
    size = sizes.pop()
    description = settings_dict(settings) | {
        "parameters": parameters,
        "frame_count": counts["forward"] + 1,
        "fps": fps,
        "size": size,
        "source_size": source_size or size,
    }
    arrays = {
        f"{direction}.{name}": np.stack([ranges[index] for ranges in coded.ranges])
        for direction, coded in fields.items()
        for index, name in enumerate(_RANGES)
    }
    write_container(path, KIND, description, arrays, {direction: coded.planes for direction, coded in fields.items()})


def _collect(path: str | os.PathLike[str], fields: list[CodedField]) -> CodedFields:
    sizes = {field.size for field in fields}
    if len(sizes) != 1:
        raise ValueError(f"{path}: fields of one size are expected, got {sorted(sizes)}")
    planes = [plane for field in fields for plane in field.planes]
    return CodedFields(sizes.pop(), planes, [field.ranges for field in fields])


def _settings(noted: dict[str, Any]) -> FlowSettings:
    return FlowSettings(
        method=noted["method"],
        smallest_side=noted["smallest_side"],
        codec=noted["codec"],
        quality=noted["quality"],
        directions=tuple(noted["directions"]),
        bound=noted.get("bound"),
        frame_step=noted.get("frame_step", 1),
    )


def size_of(noted: Sequence[int]) -> tuple[int, int]:
    """A size as JSON gives it back."""
    height, width = noted
    return int(height), int(width)


def _check_direction(container: Container, direction: str, count: int) -> None:
    arrays = container.arrays
    offsets = arrays.get(f"{direction}.offsets")
    ranges = [arrays.get(f"{direction}.{name}") for name in _RANGES]
    if (
        offsets is None
        or len(offsets) != 2 * count + 1
        or any(array is None or array.shape != (count, 2) for array in ranges)
    ):
        raise FlowStoreError(f"{container.path}: expected {count} {direction} fields")
