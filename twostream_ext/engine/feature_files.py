# SPDX-License-Identifier: BSD-3-Clause
"""Files of features, in the layouts that localisation code reads; rows go to the disk as they come."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.files import atomic_write
from twostream_ext.optional_packages import import_h5py

H5_FILE = "features.h5"
"""The one file of the layout "h5"; a video's data set has its name, `<class>/<video>`."""
PARTS_FOLDER = "parts"
"""Where, while that is in work, the videos lie that are done."""

Vectors = npt.NDArray[np.float32]  # [crops, D]


class Layout(NamedTuple):
    """How the vectors of a video lie in its file."""

    shape: str
    by_column: bool = False
    """[D, T] in place of [T, D]."""
    keeps_crops: bool = False
    """[T, 10, D]; the others have the mean of the crops."""


LAYOUTS = {
    "actionformer": Layout("[T, D]"),
    "ms-tcn": Layout("[D, T]", by_column=True),
    "ten-crop": Layout("[T, 10, D]", keeps_crops=True),
    "h5": Layout("[T, D], of ten crops [T, 10, D]", keeps_crops=True),
}
"""The layouts by name, T being the windows of a video and D the length of a vector."""


def find_layout(name: str, crops: int) -> Layout:
    """SettingsError if there is no such layout, or it is not for so many crops."""
    if name not in LAYOUTS:
        raise SettingsError(f"layout is {name!r}, expected one of {', '.join(LAYOUTS)}")
    if name == "ten-crop" and crops != 10:
        raise SettingsError(f"layout is 'ten-crop', which takes 10 crops, not {crops}")
    return LAYOUTS[name]


def write_array(path: Path, windows: Iterable[Vectors], layout: Layout) -> None:
    """Write the vectors of all windows of a video, float32, to a `.npy`, whole or not at all.

    There must be one at least; none of them is kept in memory. OSError if the file cannot be written.
    """
    count, place, shape = 0, 0, ()
    with atomic_write(path) as temporary, temporary.open("r+b") as file:
        for vectors in windows:
            row = vectors if layout.keeps_crops and len(vectors) > 1 else vectors.mean(0)
            if count == 0:
                shape = row.shape
                place = file.write(_header(0, shape, layout.by_column))
            file.write(np.ascontiguousarray(row, "<f4").data)
            count += 1
        header = _header(count, shape, layout.by_column)
        assert len(header) == place, "NumPy leaves room for the number of rows to grow"
        file.seek(0)
        file.write(header)


def _header(count: int, shape: tuple[int, ...], by_column: bool) -> bytes:
    """Of an array of so many rows; as long for any number of them."""
    whole = (*shape[::-1], count) if by_column else (count, *shape)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": by_column, "shape": whole})
    return header.getvalue()


def names_in_h5(path: Path) -> set[str]:
    """The videos in a file of the layout "h5", which need not be there; CheckpointError if it cannot be read."""
    if not path.exists():
        return set()
    found: set[str] = set()
    h5py = import_h5py()

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.add(name)

    with _reading(path) as file:
        file.visititems(note)
    return found


def add_to_h5(path: Path, arrays: dict[str, Path]) -> None:
    """Write a file of the layout "h5" anew, of `.npy` files by the names of videos, and of what is in it of others.

    CheckpointError if the one that is there cannot be read; OSError if the new one cannot be written.
    """
    h5py = import_h5py()
    # HDF5 would lock the file, which is locked as one in work.
    with atomic_write(path) as temporary, h5py.File(temporary, "w", locking=False) as new:
        if path.exists():
            with _reading(path) as old:
                for name in old:
                    old.copy(name, new)
        for name in sorted(arrays):
            if name in new:  # of a video that was replaced, or that a kill has left in both
                del new[name]
            new.create_dataset(name, data=np.load(arrays[name], mmap_mode="r"))


def check_h5_names(names: Collection[str]) -> None:
    """SettingsError where a video has the name of a folder of others: HDF5 cannot have both."""
    folders = {str(parent) for name in names for parent in Path(name).parents}
    for name in names:
        if name in folders:
            raise SettingsError(f"{name} is a video and a folder of videos, which layout h5 cannot have; rename one")


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    try:
        with import_h5py().File(path, "r", locking=False) as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
