# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of a report, without a letter in them: what is written beside them, whoever looks at them draws.

No font of ours has the letters of all languages; browsers find theirs.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.flow import FlowStore, flow_to_colour
from twostream_ext.media import FrameStore, Picture
from twostream_ext.media.jpeg import code_jpeg
from twostream_ext.media.png import code_png
from twostream_ext.report.result import Missing, attempt

RIGHT = (37, 99, 175)
"""Colour of predictions that are right, RGB, 0 to 255."""
WRONG = (213, 80, 20)
_FAINTEST = 0.35  # opacity of the smallest share that is not 0, so that a single video is seen
_WIDEST = 320  # pixels, of a frame on the page
_QUALITY = 88  # of its JPEG
_GAP = 1  # pixels between filters
_ACROSS = 16  # filters of the spatial net in a row
_FILE_SIDE = 800  # pixels: small pictures are enlarged in files until they are so large


class Shown(NamedTuple):
    """A test video in two pictures, or why there are none."""

    frame: Picture | Missing  # RGB [H, W, 3]
    flow: Picture | Missing  # in colours, from that frame to the next


def read_shown(root: Path, names: Sequence[str]) -> dict[str, Shown]:
    """The middle frame of each of these videos and the flow from it, as far as the stores of the run have them."""
    flow = attempt(FlowStore.open, root / "flow")
    frames = attempt(FrameStore.open, root / "frames")
    return {
        name: Shown(
            frames if isinstance(frames, Missing) else attempt(_read_frame, frames, name),
            flow if isinstance(flow, Missing) else attempt(_read_flow, flow, name),
        )
        for name in names
    }


def _read_frame(store: FrameStore, name: str) -> Picture:
    clip = store[name]
    return _narrowed(clip.read((len(clip) - 1) // 2))


def _read_flow(store: FlowStore, name: str) -> Picture:
    clip = store[name]
    return _narrowed(flow_to_colour(clip.displacement((clip.frame_count - 1) // 2)))


def _narrowed(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    if width <= _WIDEST:
        return picture
    size = (_WIDEST, max(1, round(height * _WIDEST / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def draw_confusion(counts: npt.NDArray[np.int64]) -> Picture:
    """A confusion matrix as a picture of a pixel a cell, RGBA [classes, classes, 4].

    counts: of videos, row = true class, column = predicted class. The opacity of a cell is the share of its row; what
    is right is blue and what is wrong orange, so that a mistake is seen among 700 classes.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = np.empty((*counts.shape, 4), np.uint8)
    picture[..., :3] = WRONG
    picture[np.arange(len(counts)), np.arange(len(counts)), :3] = RIGHT
    picture[..., 3] = np.rint(255 * np.where(shares > 0, _FAINTEST + (1 - _FAINTEST) * shares, 0))
    return picture


def draw_flow_filters(weights: npt.NDArray[np.float32]) -> Picture:
    """First-layer filters as the paper's figure 4 has them, RGBA: a column a filter, a row an input channel.

    weights: [filters, channels, h, w]. Grey is 0, and white the largest weight of the filter, of either sign.
    """
    columns = _grey(weights)
    return _tiled(np.repeat(columns.transpose(1, 0, 2, 3)[..., None], 3, axis=4))


def draw_colour_filters(weights: npt.NDArray[np.float32]) -> Picture:
    """First-layer filters of RGB, RGBA picture: a tile a filter, in its colours. weights: [filters, 3, h, w]."""
    tiles = _grey(weights).transpose(0, 2, 3, 1)
    across = min(_ACROSS, len(tiles))
    down = -(-len(tiles) // across)
    grid = np.zeros((down * across, *tiles.shape[1:3], 4), np.uint8)
    grid[: len(tiles), ..., :3] = tiles
    grid[: len(tiles), ..., 3] = 255
    return _tiled(grid.reshape(down, across, *grid.shape[1:]))


def _grey(weights: npt.NDArray[np.float32]) -> Picture:
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    shares = weights / np.maximum(largest, np.finfo(np.float32).tiny)
    return np.asarray(np.rint(127.5 + 127.5 * shares), dtype=np.uint8)


def _tiled(tiles: npt.NDArray[np.uint8]) -> Picture:
    """Tiles [rows, columns, h, w, 3 or 4] beside and below each other with see-through gaps: RGBA."""
    rows, columns, height, width, channels = tiles.shape
    picture = np.zeros((rows, columns, height + _GAP, width + _GAP, 4), np.uint8)
    picture[:, :, :height, :width, :channels] = tiles
    if channels == 3:
        picture[:, :, :height, :width, 3] = 255
    whole = picture.transpose(0, 2, 1, 3, 4).reshape(rows * (height + _GAP), columns * (width + _GAP), 4)
    return np.ascontiguousarray(whole[:-_GAP, :-_GAP])


def stack_shown(shown: Sequence[Shown]) -> Picture | None:
    """A row a video, its frame and its flow, RGB; None if not one has both."""
    rows = [
        np.hstack([each.frame, cv2.resize(each.flow, each.frame.shape[1::-1])])
        for each in shown
        if not isinstance(each.frame, Missing) and not isinstance(each.flow, Missing)
    ]
    if not rows:
        return None
    width = max(row.shape[1] for row in rows)
    return np.vstack([_at_width(row, width) for row in rows])


def _at_width(picture: Picture, width: int) -> Picture:
    size = (width, max(1, round(picture.shape[0] * width / picture.shape[1])))
    return np.asarray(cv2.resize(picture, size), dtype=np.uint8)


def code_file(picture: Picture) -> bytes:
    """A picture as a PNG file for itself: on white, and enlarged where it is small."""
    if picture.shape[2] == 4:
        opacity = picture[..., 3:] / 255
        picture = np.rint(picture[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    factor = max(1, _FILE_SIDE // max(picture.shape[:2]))
    return code_png(picture.repeat(factor, axis=0).repeat(factor, axis=1))


def png_address(picture: Picture) -> str:
    """The address that holds a picture itself, without loss."""
    return f"data:image/png;base64,{base64.b64encode(code_png(picture)).decode()}"


def jpeg_address(picture: Picture) -> str:
    """The address that holds a picture itself, RGB, as a photograph."""
    bgr = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), dtype=np.uint8)
    return f"data:image/jpeg;base64,{base64.b64encode(code_jpeg(bgr, _QUALITY)).decode()}"
