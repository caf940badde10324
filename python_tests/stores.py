# SPDX-License-Identifier: BSD-3-Clause
"""Small flow stores for the tests, with codes that can be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.flow import write_flow_clip


class Field(NamedTuple):
    codes: npt.NDArray[np.uint8]  # [H, W, 2]
    lo: npt.NDArray[np.float32]  # [2], as step and mean
    step: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]


def smooth_fields(count: int, *, size: tuple[int, int] = (24, 40), seed: int = 0) -> list[Field]:
    """Codes with gentle slopes, as flow has them."""
    random = np.random.default_rng(seed)
    fields = []
    for _ in range(count):
        small = random.uniform(0, 255, (4, 5, 2))
        codes = cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8)
        fields.append(Field(codes, *random.normal(size=(3, 2)).astype(np.float32)))
    return fields


def write_store(
    root: Path,
    names: list[str],
    *,
    count: int = 6,
    codec: str = "raw",
    sizes: tuple[tuple[int, int], ...] = ((24, 40),),
) -> dict[str, dict[str, list[Field]]]:
    """A store with both directions; sizes take turns. Returns what was written, by name and direction."""
    written = {}
    for index, name in enumerate(names):
        size = sizes[index % len(sizes)]
        fields = {
            direction: smooth_fields(count, size=size, seed=2 * index + number)
            for number, direction in enumerate(("forward", "backward"))
        }
        write_flow_clip(root / f"{name}.safetensors", **fields, codec=codec, method="dis")
        written[name] = fields
    return written
