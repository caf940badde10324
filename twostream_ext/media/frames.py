# SPDX-License-Identifier: BSD-3-Clause
"""The frame store: the frames of many videos as JPEGs, any of them readable by itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import FlowStoreError
from twostream_ext.media.container import Container, Pictures, read_pictures, size_of, write_container
from twostream_ext.media.directory import Store, settings_dict
from twostream_ext.media.jpeg import check_codec, code_jpeg, decode_frame
from twostream_ext.noted import check_noted

KIND = "frames"
_SERIES = "frames"


@dataclass(frozen=True)
class FrameSettings:
    """What the frames of a store were made with."""

    smallest_side: int | None
    """Their shorter side in pixels; None: that of the file."""
    quality: int
    """Of the JPEGs, 1 to 100."""
    frame_step: int = 1
    """Every so many frames of the video was kept."""
    sampled_fps: float | None = None
    """Frames were taken at this rate, by their times; None: at the file's own."""
    deinterlace: bool = False
    """Whether interlaced frames were made of one of their fields."""
    square_pixels: bool = False
    """Whether frames were given the width that they are shown with."""


class FrameClip:
    """The frames of one video of a store."""

    name: str
    fps: float
    size: tuple[int, int]  # (height, width), in pixels
    source_size: tuple[int, int]  # of the video file's frames
    metadata: dict[str, Any]  # all that is noted in the file

    def __init__(self, name: str, container: Container) -> None:
        """FlowStoreError if the container does not hold what a clip of frames must."""
        self._container = container
        self.name = name
        self.metadata = container.description
        check_noted(container.path, self.metadata, {"fps": float}, FlowStoreError)
        self.fps = float(self.metadata["fps"])
        try:
            self.size = size_of(self.metadata["size"])
            self.source_size = size_of(self.metadata["source_size"])
            self._count = len(container.arrays[f"{_SERIES}.offsets"]) - 1
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise FlowStoreError(f"{container.path}: the description lacks {error}") from error
        if _SERIES not in container.positions:
            raise FlowStoreError(f"{container.path}: has no frames")

    @property
    def fingerprint(self) -> str:
        """Another for other content: the checksum in the file."""
        return self._container.checksum

    def __len__(self) -> int:
        """Number of frames."""
        return self._count

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """One frame, uint8 RGB [H, W, 3].

        IndexError if there is no such frame, FlowStoreError if it is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: frame {index} of {len(self)} was asked for")
        frame = decode_frame(self._picture(index), self.size)
        if frame is None:
            raise FlowStoreError(f"{self._place}: frame {index} cannot be decoded")
        return frame

    def _picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The JPEG of a frame, uint8 [bytes]."""
        return read_pictures(self._container, _SERIES, index, 1)[0]

    @property
    def _place(self) -> str:
        """What an error names."""
        return str(self._container.path)


class FramesInMemory(FrameClip):
    """Frames that are coded as in a store, but lie in memory."""

    def __init__(
        self, name: str, coded: Sequence[bytes], *, fps: float, size: tuple[int, int], source_size: tuple[int, int]
    ) -> None:
        """coded: a JPEG of each frame, as `code_frame` makes it; size: (height, width) of all of them."""
        self.name = name
        self.fps = fps
        self.size = size
        self.source_size = source_size
        self.metadata = {}
        self._coded = coded
        self._count = len(coded)

    @property
    def fingerprint(self) -> str:
        return f"{len(self)} {self.size}"

    def _picture(self, index: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._coded[index], np.uint8)

    @property
    def _place(self) -> str:
        return self.name


class FrameStore(Store[FrameClip]):
    """Frames of many videos by name, `<class>/<video>` without extension; see `Store`."""

    kind = KIND

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FrameStore:
        """The store in a directory. FlowStoreError if it is missing or holds no frames."""
        return cls(path)

    def _clip(self, name: str, container: Container) -> FrameClip:
        return FrameClip(name, container)


def code_frame(frame: npt.NDArray[np.uint8], quality: int) -> bytes:
    """JPEG of a frame uint8 RGB [H, W, 3]."""
    bgr = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), dtype=np.uint8)
    return code_jpeg(bgr, quality)


def write_frame_clip(
    path: str | os.PathLike[str],
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    quality: int = 90,
    smallest_side: int | None = None,
    fps: float = 25.0,
    source_size: tuple[int, int] | None = None,
) -> None:
    """Write the frames of one video, uint8 RGB [H, W, 3] of one size, whole or not at all.

    smallest_side and fps are only noted, as is source_size (height, width), by default the frames'.

    ValueError if there is no frame or they differ in size; OSError if the file cannot be written.
    """
    check_codec("jpeg", quality)
    sizes, coded = set(), []
    for frame in frames:
        sizes.add(frame.shape[:2])
        coded.append(code_frame(frame, quality))
    if len(sizes) != 1:
        raise ValueError(f"{path}: frames of one size are expected, got {sorted(sizes)}")
    size = sizes.pop()
    write_coded_frames(
        path,
        coded,
        settings=FrameSettings(smallest_side, quality),
        fps=fps,
        size=size,
        source_size=source_size or size,
    )


def write_coded_frames(
    path: str | os.PathLike[str],
    coded: Pictures,
    *,
    settings: FrameSettings,
    fps: float,
    size: tuple[int, int],
    source_size: tuple[int, int],
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """`write_frame_clip` of frames that are coded already; notes: what else is noted about the video."""
    description = {
        **settings_dict(settings),
        **notes,
        "fps": fps,
        "size": size,
        "source_size": source_size,
    }
    write_container(Path(path), KIND, description, {}, {_SERIES: coded})
