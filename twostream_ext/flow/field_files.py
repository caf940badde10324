# SPDX-License-Identifier: BSD-3-Clause
"""Files of flow as other tools write and read them: numbered pictures, Middlebury's .flo, .npy and HDF5."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twostream_ext.files import atomic_write, flush_files, remove_leftovers, remove_leftovers_of
from twostream_ext.optional_packages import import_h5py

Field = npt.NDArray[np.float32]
"""[H, W, 2]: (x, y) in pixels."""

Append = Callable[[Field], object]
"""Writes the next field of a video."""

_FLO_TAG = b"PIEH"  # 202021.25 as float32
_LARGEST_PNG_BOUND = 255 * 4  # pixels


class PictureNames(NamedTuple):
    """The files of a video's fields: `<prefix><number><ending>`, counted upward."""

    prefixes: tuple[Path, ...]
    """Of each file of a field, with the folder."""
    ending: str
    first: int
    """The number of the first field."""
    digits: int = 5
    """At least; filled up with zeros."""

    def files(self, index: int) -> list[Path]:
        """Those of the index-th field."""
        number = f"{self.first + index:0{self.digits}d}{self.ending}"
        return [prefix.with_name(prefix.name + number) for prefix in self.prefixes]


def step_mark(step: int) -> str:
    """What denseflow puts before the number in a name: "" for a step of 1, "p2_" for 2, "m1_" for -1."""
    if step < 0:
        return f"m{-step}_"
    return f"p{step}_" if step > 1 else ""


def denseflow_codes(field: Field, bound: float) -> npt.NDArray[np.uint8]:
    """Codes [H, W, 2] as denseflow, dense_flow and gpu_flow make them: 0 to 255 from -bound to bound pixels.

    Halves become the even code, so that what stands still, at 127.5, has code 128.
    """
    clipped = np.clip(field.astype(np.float64), -bound, bound)
    codes: npt.NDArray[np.uint8] = np.rint(255 * (clipped + bound) / (2 * bound)).astype(np.uint8)
    return codes


def centred_codes(field: Field, bound: float) -> npt.NDArray[np.uint8]:
    """Codes [H, W, 2] of which 128 is 0, as readers of such trees take it: each within half a code of the field."""
    codes = np.rint(field.astype(np.float64) * (255 / (2 * bound))) + 128
    clipped: npt.NDArray[np.uint8] = np.clip(codes, 0, 255).astype(np.uint8)
    return clipped


def png_codes(field: Field) -> npt.NDArray[np.uint8]:
    """A field in one picture as denseflow's `png` has it, RGB uint8 [H, W, 3].

    Blue is x and green y: 128 + value / (bound / 128), each with a bound of its own, a multiple of 4 pixels that is
    none of 8. Red is a quarter of these bounds, of x in the upper half, of y in the lower one.
    """
    height, width = field.shape[:2]
    picture = np.empty((height, width, 3), np.uint8)
    lower = min(height // 2 + 1, height - 1)
    for axis, (channel, side, rows) in enumerate(((2, width, slice(0, lower)), (1, height, slice(lower, height)))):
        bound = _png_bound(field[..., axis], side)
        codes = np.rint(field[..., axis] * np.float32(128 / bound) + np.float32(128))
        picture[..., channel] = np.clip(codes, 0, 255)
        picture[rows, :, 0] = bound // 4
    return picture


def _png_bound(component: npt.NDArray[np.float32], side: int) -> int:
    largest = min(side, float(np.abs(component).max()))
    bound = min(_LARGEST_PNG_BOUND, math.ceil(largest * 128 / 127 / 4) * 4)
    return bound + 4 if bound % 8 == 0 else bound


def code_flo(field: Field) -> bytes:
    """A field as Middlebury's .flo file, to the bit."""
    height, width = field.shape[:2]
    return _FLO_TAG + np.array([width, height], "<i4").tobytes() + np.ascontiguousarray(field, "<f4").tobytes()


@contextmanager
def write_pictures(names: PictureNames) -> Iterator[Callable[[Sequence[bytes]], None]]:
    """Yield what writes the files of the next field, each whole; after the last one they outlive a loss of power.

    Then files of the series with later numbers go, which an earlier, longer video left. If the body fails, all that it
    wrote goes. OSError if a file cannot be written.
    """
    folders = dict.fromkeys(prefix.parent for prefix in names.prefixes)
    for folder in folders:
        remove_leftovers(folder)
    written: list[Path] = []
    fields = 0

    def append(pictures: Sequence[bytes]) -> None:
        nonlocal fields
        for file, picture in zip(names.files(fields), pictures, strict=True):
            with atomic_write(file, flush=False) as temporary:
                temporary.write_bytes(picture)
            written.append(file)
        fields += 1

    try:
        yield append
        flush_files(written)
    except Exception:  # not where the work is given up, which goes on some time
        for file in written:
            file.unlink(missing_ok=True)
        for folder in folders:
            with suppress(OSError):  # it holds other files
                folder.rmdir()
        raise
    _remove_later(names, fields)


def _remove_later(names: PictureNames, fields: int) -> None:
    for prefix in names.prefixes:
        name = re.compile(f"{re.escape(prefix.name)}([0-9]{{{names.digits},}}){re.escape(names.ending)}")
        for file in prefix.parent.iterdir() if prefix.parent.is_dir() else ():
            found = name.fullmatch(file.name)
            if found and int(found[1]) >= names.first + fields:
                file.unlink(missing_ok=True)


@contextmanager
def write_npy(path: Path, shape: tuple[int, ...]) -> Iterator[Append]:
    """Yield what writes the next field of an array float32 [fields, H, W, 2]; the file is there when all are."""
    remove_leftovers_of(path)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda field: file.write(np.ascontiguousarray(field, "<f4").tobytes())


@contextmanager
def write_h5(folder: Path, step: int) -> Iterator[Append]:
    """Yield what writes the next field as denseflow's `h5` has it, in `h5_path`; the file is there when all are.

    Two data sets, flow_x_00000 and flow_y_00000, float32 [H, W] in pixels, named as the pictures in the folder would
    be. SettingsError if h5py is not installed.
    """
    h5py = import_h5py()
    first = max(0, -step)
    fields = 0
    remove_leftovers_of(h5_path(folder, step))
    # The temporary file is locked already, by us.
    with atomic_write(h5_path(folder, step)) as temporary, h5py.File(temporary, "w", locking=False) as file:

        def append(field: Field) -> None:
            nonlocal fields
            for axis, name in enumerate("xy"):
                data = np.ascontiguousarray(field[..., axis], np.float32)
                file.create_dataset(f"flow_{name}_{step_mark(step)}{first + fields:05d}", data=data)
            fields += 1

        yield append


def h5_path(folder: Path, step: int) -> Path:
    """Where denseflow has the HDF5 file of a video, beside the folder that its pictures would be in."""
    mark = step_mark(step).rstrip("_")
    return folder.with_name(f"{folder.name}{'_' if mark else ''}{mark}.h5")
