# SPDX-License-Identifier: BSD-3-Clause
"""A flow store to the tree of files that another tool has."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from twostream_ext.devices import processors
from twostream_ext.done_markers import MARKERS, forget_done, note_done, read_marker
from twostream_ext.errors import ExtractionError, FlowStoreError, LeftOutWarning, SettingsError, closest, failure_text
from twostream_ext.files import atomic_write, is_inside, remove_leftovers, remove_leftovers_of
from twostream_ext.flow.clip import DIRECTIONS, FlowClip
from twostream_ext.flow.field_files import (
    Append,
    PictureNames,
    centred_codes,
    code_flo,
    step_mark,
    write_h5,
    write_npy,
    write_pictures,
)
from twostream_ext.flow.flow_store import FlowStore
from twostream_ext.media.directory import SETTINGS_FILE
from twostream_ext.media.jpeg import code_jpeg
from twostream_ext.optional_packages import import_h5py

DEFAULT_BOUND = 20.0  # pixels; what all recipes give their tools

_SERIES = "export"  # what markers call it
_STEPS = {"forward": 1, "backward": -1}  # denseflow's


class _Place(NamedTuple):
    """Where the fields of one direction of a clip go, and how."""

    out: Path
    name: str  # of the clip
    direction: str
    bound: float | None  # None: displacements are kept as they are

    @property
    def folder(self) -> Path:
        return self.out / self.name

    @property
    def mark(self) -> str:
        return step_mark(_STEPS[self.direction])


class ExportLayout(NamedTuple):
    """A tree of files that `export` writes."""

    summary: str
    """Its files, in some words, for the command's help."""
    is_coded: bool
    """Whether displacements are coded with 8 bits, which takes a bound."""
    directions: tuple[str, ...]
    """Which of `DIRECTIONS` it has names for."""
    write: Callable[[_Place, FlowClip], AbstractContextManager[Append]]


def export(
    store: FlowStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str,
    bound: float | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> int:
    """Write the flow of a store as another tool has it, in all directions that the store has.

    Args:
        store: a flow store, or its directory; a tree of another tool's, as `FlowStore.open` reads it, is one, too.
        out: the directory of the tree; the clip "A/b" becomes files below `out/A/b`, or beside it.
        layout: one of `EXPORT_LAYOUTS`:

            - "denseflow": `A/b/flow_x_00000.jpg` and `flow_y_00000.jpg`, numbered by the frame that a field starts
              from; backward flow `flow_x_m1_00001.jpg` and so on. (open-mmlab/denseflow, MMAction2)
            - "tsn": the same names, numbered one higher (dense_flow of TSN).
            - "feichtenhofer": `u/A/b/frame000001.jpg`, `v/A/b/frame000001.jpg`, the ranges in `u/A/b.bin` (gpu_flow).
              It has no names for backward flow, which is left out with a LeftOutWarning.
            - "flo": Middlebury's files, `A/b/flow_00000.flo`, backward `A/b/flow_m1_00001.flo`.
            - "npy": `A/b/forward.npy`, `A/b/backward.npy`, float32 [fields, H, W, 2], (x, y) in pixels.
            - "h5": `A/b.h5`, `A/b_m1.h5` with data sets `flow_x_00000` and `flow_y_00000`, float32 [H, W], as denseflow
              has them; needs h5py.
        bound: pixels; displacements are clipped at +- bound and coded with 8 bits, 128 being 0, so that each is within
            half a code (bound / 255) of the store's before its picture becomes a JPEG (of quality 95, OpenCV's default,
            as those tools have it). By default 20; "flo", "npy" and "h5" keep displacements as they are and take none.
        workers: threads; by default the processors there are.
        progress: a progress bar on standard error, where that is a terminal.

    Returns:
        The number of videos.

    Videos that are there already are left out, as `out/.done` notes: a call that was broken off can be repeated. One
    that the store has other flow of by now is written again. Each file is whole or not there.

    Raises:
        SettingsError: an option that cannot be, or `out` was begun with other options, or is or lies in a store.
        FlowStoreError: the store cannot be read.
        ExtractionError: a file cannot be written; or, after all others are done, naming the videos that are damaged.
    """
    chosen, bound = _check(layout, bound)
    workers = processors() if workers is None else workers
    if workers < 1:
        raise SettingsError(f"workers is {workers}, expected at least 1")
    store = store if isinstance(store, FlowStore) else FlowStore.open(store)
    out = Path(out)
    _check_place(out, store.path)
    remove_leftovers(out / MARKERS)
    made_with = {"layout": layout, "bound": bound}
    write = partial(_export_clip, store, out=out, layout=chosen, made_with=made_with)
    todo = [name for name in store if not _is_done(store, name, out, made_with)]
    failures = _run(write, todo, len(store), workers, shown=progress)
    if failures:
        raise ExtractionError(failure_text(failures, len(store), "exported"), tuple(failures))
    if left_out := [each for each in store.settings.directions if each not in chosen.directions]:
        warnings.warn(
            f"{out}: {' and '.join(left_out)} flow is left out, layout {layout} has no names for it",
            LeftOutWarning,
            stacklevel=2,
        )
    return len(store)


def _check(layout: str, bound: float | None) -> tuple[ExportLayout, float | None]:
    """The layout, and the bound that it gets."""
    if layout not in EXPORT_LAYOUTS:
        known = ", ".join(EXPORT_LAYOUTS)
        raise SettingsError(f"layout is {layout!r}, expected one of {known}{closest(layout, EXPORT_LAYOUTS)}")
    chosen = EXPORT_LAYOUTS[layout]
    if layout == "h5":
        import_h5py()
    if not chosen.is_coded:
        if bound is not None:
            raise SettingsError(f"bound is {bound:g}, but layout {layout} keeps displacements as they are")
        return chosen, None
    bound = DEFAULT_BOUND if bound is None else float(bound)
    if not 0 < bound < math.inf:
        raise SettingsError(f"bound is {bound:g}, expected a number of pixels above 0")
    return chosen, bound


def _check_place(out: Path, store: Path) -> None:
    if is_inside(out, store):
        raise SettingsError(f"{out}: lies in the store {store}, and would be taken for a part of it; write elsewhere")
    if (out / SETTINGS_FILE).exists():
        raise SettingsError(
            f"{out}: is a store of ours, in which no reader would look for other files; write elsewhere"
        )


def _marker(out: Path, name: str) -> Path:
    """With an ending, as a video may have the name of a class."""
    return out / MARKERS / f"{name}.json"


def _is_done(store: FlowStore, name: str, out: Path, made_with: dict[str, Any]) -> bool:
    """SettingsError if it was done with other settings."""
    try:
        noted = (read_marker(_marker(out, name)) or {}).get(_SERIES)
        if not isinstance(noted, dict):
            return False
        for setting, value in made_with.items():
            if noted.get(setting) != value:
                raise SettingsError(
                    f"{out}: was made with {setting} {noted.get(setting)}, not {value}; use another directory or the "
                    "same setting"
                )
        return bool(noted.get("clip") == store.peek(name).fingerprint)
    except (FlowStoreError, OSError):  # told of when the clip is written
        return False


def _export_clip(store: FlowStore, name: str, *, out: Path, layout: ExportLayout, made_with: dict[str, Any]) -> None:
    """FlowStoreError if the clip is damaged, ExtractionError if a file cannot be written."""
    clip = store[name]
    try:
        forget_done(_marker(out, name), _SERIES)
        with ExitStack() as files:
            for direction in (each for each in clip.directions if each in layout.directions):
                append = files.enter_context(layout.write(_Place(out, name, direction, made_with["bound"]), clip))
                first = DIRECTIONS.index(direction)
                for number in range(first, first + clip.length(direction)):
                    append(clip.displacement(number, direction))
        note_done(_marker(out, name), _SERIES, {**made_with, "clip": clip.fingerprint})
    except OSError as error:
        raise ExtractionError(
            f"{error.filename or out / name}: cannot be written: {error.strerror or error}"
        ) from error


def _run(write: Callable[[str], None], names: list[str], total: int, workers: int, *, shown: bool) -> list[str]:
    """Why those videos failed that did."""
    failures = []
    bar = tqdm(
        total=total,
        initial=total - len(names),
        desc="export",
        unit="video",
        smoothing=0,
        disable=None if shown else True,
    )
    with bar, ThreadPoolExecutor(workers) as pool:
        futures: list[Future[None]] = [pool.submit(write, name) for name in names]
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except FlowStoreError as error:
                    failures.append(str(error))
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what is in work ends, what waits is not begun
            raise
    return sorted(failures)


@contextmanager
def _write_coded(names: PictureNames, bound: float) -> Iterator[Append]:
    with write_pictures(names) as write:

        def append(field: Any) -> None:
            codes = centred_codes(field, bound)
            write([code_jpeg(np.ascontiguousarray(codes[..., axis]), None) for axis in (0, 1)])

        yield append


def _write_flow_x(place: _Place, clip: FlowClip, *, base: int) -> AbstractContextManager[Append]:
    assert place.bound is not None
    prefixes = tuple(place.folder / f"flow_{axis}_{place.mark}" for axis in "xy")
    return _write_coded(PictureNames(prefixes, ".jpg", base + DIRECTIONS.index(place.direction)), place.bound)


@contextmanager
def _write_u_and_v(place: _Place, clip: FlowClip) -> Iterator[Append]:
    assert place.bound is not None
    prefixes = tuple(place.out / axis / place.name / "frame" for axis in "uv")
    with _write_coded(PictureNames(prefixes, ".jpg", 1, digits=6), place.bound) as append:
        yield append
    low_and_high = np.array([-place.bound, place.bound] * 2, "<f4")
    ranges = place.out / "u" / f"{place.name}.bin"
    remove_leftovers_of(ranges)
    with atomic_write(ranges) as temporary:
        temporary.write_bytes(np.tile(low_and_high, clip.length(place.direction)).tobytes())


@contextmanager
def _write_flo(place: _Place, clip: FlowClip) -> Iterator[Append]:
    names = PictureNames((place.folder / f"flow_{place.mark}",), ".flo", DIRECTIONS.index(place.direction))
    with write_pictures(names) as write:
        yield lambda field: write([code_flo(field)])


def _write_npy(place: _Place, clip: FlowClip) -> AbstractContextManager[Append]:
    return write_npy(place.folder / f"{place.direction}.npy", (clip.length(place.direction), *clip.size, 2))


def _write_h5(place: _Place, clip: FlowClip) -> AbstractContextManager[Append]:
    return write_h5(place.folder, _STEPS[place.direction])


EXPORT_LAYOUTS = {
    "denseflow": ExportLayout(
        "A/b/flow_x_00000.jpg, flow_y_...; backward flow_x_m1_00001.jpg (MMAction2)",
        True,
        DIRECTIONS,
        partial(_write_flow_x, base=0),
    ),
    "tsn": ExportLayout(
        "the same names, numbered one higher (dense_flow)", True, DIRECTIONS, partial(_write_flow_x, base=1)
    ),
    "feichtenhofer": ExportLayout(
        "u/A/b/frame000001.jpg, v/..., u/A/b.bin (gpu_flow); forward alone", True, DIRECTIONS[:1], _write_u_and_v
    ),
    "flo": ExportLayout(
        "A/b/flow_00000.flo (Middlebury); backward A/b/flow_m1_00001.flo", False, DIRECTIONS, _write_flo
    ),
    "npy": ExportLayout("A/b/forward.npy, A/b/backward.npy: float32 [fields, H, W, 2]", False, DIRECTIONS, _write_npy),
    "h5": ExportLayout("A/b.h5, backward A/b_m1.h5, as denseflow's -st=h5", False, DIRECTIONS, _write_h5),
}
"""The layouts by name."""
