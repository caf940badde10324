# SPDX-License-Identifier: BSD-3-Clause
"""The generated videos that show what each table of the paper is about, and the recipe for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from twostream_ext.data import DataSource, find_generated, generate_videos
from twostream_ext.engine.recipes import Recipe, StreamRecipe
from twostream_ext.engine.table_data import Sources
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.files import check_file

GENERATED_RECIPE = Recipe(
    smallest_side=64,
    input_size=57,
    width=0.125,
    length=10,
    streams={
        "spatial": StreamRecipe(600, 16, 1e-2, dropout=0.5),
        "temporal": StreamRecipe(600, 16, 1e-2, dropout=0.5),
    },
    frames=3,
    flow_method="dis",
    jpeg_quality=95,
)
"""For the generated videos of `generate_sources`."""

_FRAME_SIZE = (64, 80)  # height and width of those, in pixels


class _Generated(NamedTuple):
    """A generated set of a table, see `data.GENERATED`."""

    scenes: str
    train_per_class: int
    test_per_class: int
    splits: int = 1


_IMAGES = _Generated("many_looks", 36, 4)
_TWO_SETS = {
    "first": _Generated("many_mixed", 40, 8, 3),
    "second": _Generated("few_mixed", 24, 8, 3),
    "images": _IMAGES,
}
_GENERATED = {
    "table1a": {"first": _Generated("few_looks", 8, 16), "images": _IMAGES},
    "table1b": {"first": _Generated("shaken", 24, 16)},
    "table2": {"first": _Generated("few_motions", 2, 20), "second": _Generated("many_motions", 36, 4)},
    "table3": _TWO_SETS,
    "table4": _TWO_SETS,
}


def generate_sources(
    table: str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    images: Path | None = None,
    say: Callable[[str], None] = print,
) -> Sources:
    """Make the videos that show what a table is about, in `videos` of `out`; what is there already is kept.

    images: a net that spatial nets are to be fine-tuned from; None: a generated set of other appearances serves.
    """
    if table not in _GENERATED:
        raise SettingsError(f"table is {table!r}, expected one of {', '.join(_GENERATED)}")
    if images is not None:
        check_file(images, CheckpointError)
    made = {}
    for role, each in _GENERATED[table].items():
        if role == "images" and images is not None:
            continue
        folder = Path(out) / "videos" / each.scenes
        say(f"generated clips in {folder}: {find_generated(each.scenes).text}")
        generate_videos(
            folder,
            scenes=each.scenes,
            seed=seed,
            train_per_class=each.train_per_class,
            test_per_class=each.test_per_class,
            splits=each.splits,
            size=_FRAME_SIZE,
        )
        made[role] = DataSource(folder, folder, name=each.scenes)
    return Sources(made["first"], made.get("second"), made.get("images", images))
