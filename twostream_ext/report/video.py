# SPDX-License-Identifier: BSD-3-Clause
"""A video beside its flow, with what the nets say of it as bars that change with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import cv2
import numpy as np
from torch import Tensor

from twostream_ext.engine import STREAMS, Prediction, Window
from twostream_ext.flow import FlowClip, flow_to_colour
from twostream_ext.media import FrameClip, Picture, write_mp4

_FLOW_SCALE = 8.0  # pixels a frame that give the full colour: one scale for the whole video
_WIDTH = 540  # pixels; narrower pictures are enlarged, or there would be no room for the names of classes
_LINE = 18  # pixels, height of a bar
_MARGIN = 6
_LETTERS = 0.38
_BAR = (64, 110, 190)
_BEST = (214, 120, 30)  # the bar of the class that is named first
_TRACK = (38, 38, 38)
_WHITE, _GREY = (255, 255, 255), (170, 170, 170)


def write_annotated_video(
    out: str | os.PathLike[str], flow: FlowClip, frames: FrameClip, prediction: Prediction, *, top: int = 5
) -> None:
    """Write an .mp4 with the frames on the left, their forward flow on the right and the answer below.

    That is the `top` classes of each stream and of what they are fused to, with bars as long as their scores. Pictures
    that are too small for the names are enlarged by a whole number.

    flow, frames: of the same video and size. The last frame, from which no flow goes, is left out.

    VideoError if `out` cannot be written as .mp4; FlowStoreError if a file of the clips is damaged.
    """
    bars = _Bars(top)
    write_mp4(out, (_draw(flow, frames, number, bars, prediction) for number in range(flow.length())), flow.fps)


def write_annotated_windows(
    out: str | os.PathLike[str], windows: Iterable[Window], fps: float, *, top: int = 5
) -> None:
    """`write_annotated_video` of a video in windows, as they come.

    A frame has the answer of the last window that begins with it or before. The last frame is left out. Where windows
    do not overlap, the last frame of each is drawn with the flow before it: that to the next window is part of none.
    """
    write_mp4(out, _window_pictures(windows, top), fps)


def _window_pictures(windows: Iterable[Window], top: int) -> Iterator[Picture]:
    bars = _Bars(top)
    shown: Window | None = None
    for following in chain(windows, [None]):
        if shown is not None:
            length = shown.flow.length()
            count = length if following is None else following.first - shown.first
            for number in range(count):
                yield _draw(shown.flow, shown.frames, number, bars, shown.prediction)
        shown = following


def _draw(flow: FlowClip, frames: FrameClip, number: int, bars: _Bars, prediction: Prediction) -> Picture:
    field = flow.displacement(min(number, flow.length() - 1))
    pair = np.hstack([frames.read(number), flow_to_colour(field, maximum=_FLOW_SCALE)])
    factor = -(-_WIDTH // pair.shape[1])
    if factor > 1:
        pair = np.repeat(np.repeat(pair, factor, axis=0), factor, axis=1)
    return np.vstack([pair, bars.draw(prediction, pair.shape[1])])


class _Bars:
    """What is drawn below the frames; drawn once as long as the prediction is the same."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._drawn: tuple[Prediction, Picture] | None = None

    def draw(self, prediction: Prediction, width: int) -> Picture:
        if self._drawn is None or self._drawn[0] is not prediction:
            names = (*STREAMS, prediction.fused)
            edges = [round(width * place / len(names)) for place in range(len(names) + 1)]
            panels = [
                _panel(name, prediction.scores[name], prediction.classes, self._top, right - left)
                for name, left, right in zip(names, edges[:-1], edges[1:], strict=True)
            ]
            self._drawn = prediction, np.hstack(panels)
        return self._drawn[1]


def _panel(title: str, scores: Tensor, classes: Sequence[str], top: int, width: int) -> Picture:
    best = scores.argsort(descending=True)[:top].tolist()
    panel = np.zeros(((len(best) + 1) * _LINE + 2 * _MARGIN, width, 3), np.uint8)
    _write(panel, title, (_MARGIN, _MARGIN + _LINE - 6), _GREY)
    for place, index in enumerate(best, start=1):
        score = float(scores[index])
        above, below = _MARGIN + place * _LINE + 1, _MARGIN + (place + 1) * _LINE - 1
        panel[above:below, _MARGIN : width - _MARGIN] = _TRACK
        end = _MARGIN + round(score * (width - 2 * _MARGIN))
        panel[above:below, _MARGIN:end] = _BEST if place == 1 else _BAR
        number = f"{score:.2f}"
        room = width - 4 * _MARGIN - _length(number)
        _write(panel, _shortened(classes[index], room), (_MARGIN + 4, below - 4), _WHITE)
        _write(panel, number, (width - _MARGIN - 4 - _length(number), below - 4), _WHITE)
    return panel


def _shortened(text: str, room: int) -> str:
    """As much of a text as fits into so many pixels."""
    if _length(text) <= room:
        return text
    while text and _length(f"{text}..") > room:
        text = text[:-1]
    return f"{text}.."


def _length(text: str) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _LETTERS, 1)[0][0])


def _write(panel: Picture, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, _LETTERS, colour, 1, cv2.LINE_AA)
