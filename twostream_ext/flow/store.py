# SPDX-License-Identifier: BSD-3-Clause
"""The files of a flow store: one per video, any field of it readable without its neighbours.

Each component of each field is rescaled to 8 bits by its own range and coded as a JPEG, as in the
paper (section 5); the range is kept, so that displacements come back in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt

from twostream_ext.errors import FlowStoreError
from twostream_ext.flow.clip import DIRECTIONS, FieldSlots, FlowClip, FlowSettings, first_settings
from twostream_ext.media.container import (
    Container,
    Pictures,
    borrow_pictures,
    open_container,
    read_pictures_into,
    size_of,
    write_container,
)
from twostream_ext.media.directory import SETTINGS_FILE, Store, settings_dict, unnoted
from twostream_ext.media.jpeg import check_codec, code_jpeg, decode_jpeg, largest_jpeg, most_pixels
from twostream_ext.noted import check_noted
from twostream_ext.ops import QuantizedFlow
from twostream_ext.settings_files import read_settings

FLOW_KIND = "flow"

_RANGES = ("lo", "step", "mean")
_CAMERA = "camera"  # the camera's motion; files that were written before it was kept lack it
_SETTINGS = get_type_hints(FlowSettings)


class CodedFlow(NamedTuple):
    """Consecutive fields of one direction as they are stored."""

    size: tuple[int, int]  # (height, width)
    planes: Pictures  # x and y of each field in turn
    ranges: npt.NDArray[np.float32]  # [L, 3, 2]: lo, step and mean of each field
    camera: npt.NDArray[np.float32] | None = None  # [L, 2, 3]: the camera's motion in each field; None: not known


class _StoredClip(FlowClip):
    """A clip in a file of ours."""

    def __init__(self, name: str, container: Container) -> None:
        """FlowStoreError if the container does not hold what a flow clip must."""
        self._container = container
        self.name = name
        self.path = container.path
        self.metadata = container.description
        self.settings = _settings(self.path, self.metadata)
        check_noted(self.path, self.metadata, {"frame_count": int, "fps": float}, FlowStoreError)
        self.frame_count = self.metadata["frame_count"]
        self.fps = float(self.metadata["fps"])
        try:
            self.size = size_of(self.metadata["size"])
            self.source_size = size_of(self.metadata["source_size"])
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise FlowStoreError(f"{container.path}: the description lacks {error}") from error
        for direction in self.directions:
            _check_direction(container, direction, self.frame_count - 1)
            _check_planes(container, direction, self.settings.codec, self.size)

    @property
    def fingerprint(self) -> str:
        return self._container.checksum

    def load(self, direction: str, first: int, slots: FieldSlots) -> None:
        begin = first - DIRECTIONS.index(direction)
        for name, table in zip(_RANGES, (slots.lo, slots.step, slots.mean), strict=True):
            table[:] = self._container.arrays[f"{direction}.{name}"][begin : begin + len(table)]
        if self.settings.codec == "raw":
            whole = [slots.planes] if slots.planes.flags.c_contiguous else slots.planes
            read_pictures_into(self._container, direction, 2 * begin, whole)
            return
        pictures = borrow_pictures(self._container, direction, 2 * begin, 2 * len(slots.planes))
        for picture, plane in zip(pictures, chain.from_iterable(slots.planes), strict=True):
            if not decode_jpeg(picture, plane):
                raise FlowStoreError(f"{self.path}: a plane cannot be decoded")

    def stored_camera(self, direction: str, first: int, count: int) -> npt.NDArray[np.float32] | None:
        maps = self._container.arrays.get(f"{direction}.{_CAMERA}")
        return None if maps is None else maps[first : first + count]


class OwnFlow(Store[FlowClip]):
    """The flow of many videos in files of ours; see `Store`."""

    kind = FLOW_KIND
    settings: FlowSettings

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        if (self.path / SETTINGS_FILE).exists():
            place = self.path / SETTINGS_FILE
            self.settings = _settings(place, read_settings(place, FlowStoreError))
        else:
            self.settings = first_settings(self)

    def _clip(self, name: str, container: Container) -> FlowClip:
        return _StoredClip(name, container)


def read_flow_clip(path: str | os.PathLike[str]) -> FlowClip:
    """The clip in one file. FlowStoreError if it is missing or damaged."""
    return _StoredClip(Path(path).stem, open_container(path, FLOW_KIND, trusted=set()))


def code_flow(
    flow: QuantizedFlow, *, codec: str = "jpeg", quality: int | None = 90, camera: npt.ArrayLike | None = None
) -> CodedFlow:
    """Code the two planes of each of L fields: codes uint8 [L, H, W, 2] and lo, step, mean float32 [L, 2].

    camera: float32 [L, 2, 3], the camera's motion in each, is kept beside the mean.

    SettingsError if there is no such codec or quality.
    """
    check_codec(codec, quality)
    codes = np.asarray(flow.codes)
    if codes.dtype != np.uint8 or codes.ndim != 4 or codes.shape[3] != 2:
        raise ValueError(f"a field's codes are {codes.dtype} {list(codes.shape[1:])}, expected uint8 [H, W, 2]")
    planes = [np.ascontiguousarray(field[..., component]) for field in codes for component in (0, 1)]
    coded = [plane.tobytes() if codec == "raw" else code_jpeg(plane, quality) for plane in planes]
    ranges = np.stack([np.asarray(part, np.float32) for part in (flow.lo, flow.step, flow.mean)], axis=1)
    maps = None if camera is None else np.asarray(camera, np.float32)
    return CodedFlow((codes.shape[1], codes.shape[2]), coded, ranges, maps)


def join_coded_flow(fields: Sequence[CodedFlow]) -> CodedFlow:
    """Fields of one direction that were coded in parts, in their order. ValueError if their sizes differ."""
    sizes = {part.size for part in fields}
    if len(sizes) != 1:
        raise ValueError(f"fields of one size are expected, got {sorted(sizes)}")
    camera = [part.camera for part in fields if part.camera is not None]
    return CodedFlow(
        sizes.pop(),
        [plane for part in fields for plane in part.planes],
        np.concatenate([part.ranges for part in fields]),
        np.concatenate(camera) if len(camera) == len(fields) else None,
    )


def write_flow_clip(
    path: str | os.PathLike[str],
    *,
    forward: Iterable[QuantizedFlow],
    backward: Iterable[QuantizedFlow] | None = None,
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
    each with codes uint8 [H, W, 2] and lo, step, mean float32 [2], tensors or arrays. The other
    arguments are only noted; source_size (height, width) is by default that of the fields.

    ValueError if the fields are not alike in size or number; SettingsError for a codec or quality
    that cannot be; OSError if the file cannot be written.
    """
    check_codec(codec, quality)
    given = {"forward": forward} | ({} if backward is None else {"backward": backward})
    coded = {
        direction: join_coded_flow([code_flow(_alone(field), codec=codec, quality=quality) for field in fields])
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
    fields: dict[str, CodedFlow],
    *,
    settings: FlowSettings,
    parameters: dict[str, Any],
    fps: float,
    source_size: tuple[int, int] | None,
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """`write_flow_clip` of fields that are coded already, by direction; notes: what else is noted about the video."""
    sizes = {coded.size for coded in fields.values()}
    counts = {direction: len(coded.ranges) for direction, coded in fields.items()}
    if len(sizes) != 1:
        raise ValueError(f"{path}: fields of one size are expected, got {sorted(sizes)}")
    if len(set(counts.values())) != 1:
        raise ValueError(f"{path}: as many fields each way are expected, got {counts}")
    size = sizes.pop()
    description = {
        **settings_dict(settings),
        **notes,
        "parameters": parameters,
        "frame_count": counts["forward"] + 1,
        "fps": fps,
        "size": size,
        "source_size": source_size or size,
    }
    arrays = {
        f"{direction}.{name}": np.ascontiguousarray(coded.ranges[:, index])
        for direction, coded in fields.items()
        for index, name in enumerate(_RANGES)
    } | {f"{direction}.{_CAMERA}": coded.camera for direction, coded in fields.items() if coded.camera is not None}
    write_container(
        path, FLOW_KIND, description, arrays, {direction: coded.planes for direction, coded in fields.items()}
    )


def _alone(field: QuantizedFlow) -> QuantizedFlow:
    """One field as a run of one."""
    parts: list[Any] = [np.asarray(part)[None] for part in field]
    return QuantizedFlow(*parts)


def _settings(place: Path, description: Any) -> FlowSettings:
    """FlowStoreError, naming the place, if they are not what they must be."""
    given = check_noted(place, description, {}, FlowStoreError)
    noted = check_noted(place, {**unnoted(FlowSettings), **given}, _SETTINGS, FlowStoreError)
    return FlowSettings(
        method=noted["method"],
        smallest_side=noted["smallest_side"],
        codec=noted["codec"],
        quality=noted["quality"],
        directions=tuple(noted["directions"]),
        bound=noted["bound"],
        frame_step=noted["frame_step"],
        sampled_fps=noted["sampled_fps"],
        deinterlace=noted["deinterlace"],
        square_pixels=noted["square_pixels"],
    )


def _check_direction(container: Container, direction: str, count: int) -> None:
    arrays = container.arrays
    offsets = arrays.get(f"{direction}.offsets")
    ranges = [arrays.get(f"{direction}.{name}") for name in _RANGES]
    camera = arrays.get(f"{direction}.{_CAMERA}")
    if (
        direction not in DIRECTIONS
        or direction not in container.positions
        or offsets is None
        or len(offsets) != 2 * count + 1
        or count < 1
        or any(array is None or array.shape != (count, 2) or array.dtype != np.float32 for array in ranges)
        or (camera is not None and (camera.shape != (count, 2, 3) or camera.dtype != np.float32))
    ):
        raise FlowStoreError(f"{container.path}: expected {count} {direction} fields")


def _check_planes(container: Container, direction: str, codec: str, size: tuple[int, int]) -> None:
    """Whether planes of the size noted can lie in the bytes that are there, before anything of that size is made."""
    height, width = size
    least, most = container.sizes[direction]
    if codec == "raw":
        possible = least == most == height * width
    else:
        possible = height * width <= most_pixels(least) and most <= largest_jpeg(height, width)
    if min(height, width) < 1 or not possible:
        raise FlowStoreError(f"{container.path}: the {direction} planes cannot be of {width}x{height} pixels")
