# SPDX-License-Identifier: BSD-3-Clause
"""What flow fields say of motion: displacements with and without the camera's, and the camera's own."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from twostream_ext import ops
from twostream_ext.flow import without_camera

_Floats = npt.NDArray[np.float32]

# Displacements are counted in bins of equal ratio, so that the percentiles of any number of pixels take the same
# memory: each bin is 1.1 % wide, from 2^-12 to 2^20 pixels a second.
_BINS_PER_OCTAVE = 64
_LOWEST = -12
_HIGHEST = 20
_BINS = (_HIGHEST - _LOWEST) * _BINS_PER_OCTAVE

_MOVING_RELATIVE = 0.01  # of the diagonal, in a second
_MOVING_PIXELS = 0.5  # of the field, from one frame to the next: less is noise


class Displacement(NamedTuple):
    """Lengths of the displacements of all pixels of all fields, in pixels a second; NaN where there is no field."""

    mean: float
    median: float
    p95: float  # the 95th percentile; as the median, to within 0.6 %


class CameraMotion(NamedTuple):
    """The motion of the whole picture; NaN where there is no field."""

    pan: float
    """Pixels a second that the middle of the picture moves by, the mean of its lengths."""
    pan_x: float
    """The same with its sign, the mean of all fields: the picture moves to the right."""
    pan_y: float
    """Down."""
    zoom: float
    """Share by which the picture grows in a second (half the divergence)."""
    turn: float
    """Degrees a second, clockwise (half the curl)."""


class FieldMotion:
    """Gathers what flow fields say of motion, in memory that does not grow with their number.

    The camera's motion is the affine map that `ops.camera_motion` fits to each field; what is left after it is the
    motion of objects.
    """

    def __init__(self, scale: float, diagonal: float) -> None:
        """scale: pixels of the file in one pixel of the fields. diagonal: of the file's frames, in its pixels."""
        self._scale = scale
        self._diagonal = diagonal
        self._all = _Lengths()
        self._objects = _Lengths()
        self._camera: list[float] = [0.0] * len(CameraMotion._fields)
        self._fields = 0
        self._moving = 0.0

    def add(self, fields: Tensor, rate: float) -> None:
        """Take float32 fields [T, H, W, 2], displacements in pixels, of which `rate` come in a second."""
        maps = ops.camera_motion(fields[None])[0].numpy()
        height, width = fields.shape[1:3]
        speed = self._scale * rate
        moving_from = max(_MOVING_RELATIVE * self._diagonal, _MOVING_PIXELS * speed)
        for field, camera in zip(fields.numpy(), maps, strict=True):
            self._all.add(speed * np.hypot(field[..., 0], field[..., 1]))
            objects = without_camera(field, camera)
            left = np.multiply(speed, np.hypot(objects[..., 0], objects[..., 1]))
            self._objects.add(left)
            self._moving += float(np.mean(left > moving_from))
            self._add_camera(camera, (width - 1) / 2, (height - 1) / 2, rate)
            self._fields += 1

    def displacement(self) -> Displacement:
        """Of all that moves, whatever moves it."""
        return self._all.summary()

    def objects(self) -> Displacement:
        """With the camera's motion removed."""
        return self._objects.summary()

    def camera(self) -> CameraMotion:
        """The camera's own, the mean of all fields."""
        return CameraMotion(*(each / self._fields if self._fields else math.nan for each in self._camera))

    def moving(self) -> float:
        """Share of the pixels that move, with the camera's motion removed.

        Those are faster than 1 % of the diagonal a second, and than half a pixel of the field from frame to frame.
        """
        return self._moving / self._fields if self._fields else math.nan

    def _add_camera(self, camera: _Floats, x: float, y: float, rate: float) -> None:
        pan_x, pan_y = (self._scale * rate * (camera @ np.array([x, y, 1.0]))).tolist()
        zoom = rate * float(camera[0, 0] + camera[1, 1]) / 2
        turn = math.degrees(rate * float(camera[1, 0] - camera[0, 1]) / 2)
        for index, value in enumerate(CameraMotion(math.hypot(pan_x, pan_y), pan_x, pan_y, zoom, turn)):
            self._camera[index] += value


class _Lengths:
    """Mean and percentiles of lengths."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 1, np.int64)  # the first: of all that is shorter than the shortest bin
        self._sum = 0.0

    def add(self, lengths: _Floats) -> None:
        bins = (np.log2(np.maximum(lengths, 2.0**_LOWEST)) - _LOWEST) * _BINS_PER_OCTAVE
        places = np.where(lengths < 2.0**_LOWEST, 0, np.minimum(bins.astype(np.int64) + 1, _BINS))
        self._counts += np.bincount(places.ravel(), minlength=_BINS + 1)
        self._sum += float(lengths.sum(dtype=np.float64))

    def summary(self) -> Displacement:
        count = int(self._counts.sum())
        if count == 0:
            return Displacement(math.nan, math.nan, math.nan)
        return Displacement(self._sum / count, self._percentile(0.5, count), self._percentile(0.95, count))

    def _percentile(self, share: float, count: int) -> float:
        place = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * count)))
        return 0.0 if place == 0 else 2.0 ** (_LOWEST + (place - 0.5) / _BINS_PER_OCTAVE)
