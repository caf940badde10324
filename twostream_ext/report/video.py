# SPDX-License-Identifier: BSD-3-Clause
"""A video beside its flow, with what the nets say of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.errors import VideoError
from twostream_ext.flow import estimate_flow, flow_to_colour
from twostream_ext.media import check_mp4, read_video, to_grey, video_fps, write_mp4

_FLOW_SCALE = 8.0  # pixels a frame that give the full colour: one scale for the whole video
_LINE = 18  # pixels, of a line of text


def write_annotated_video(
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    lines: Sequence[str],
    *,
    smallest_side: int = 256,
    method: str = "tvl1",
) -> None:
    """Write an .mp4 with the frames on the left, their flow on the right and `lines` of text below.

    VideoError if the video cannot be read, has one frame only, or `out` cannot be written as .mp4.
    """
    check_mp4(out)
    pictures = _pictures(video, lines, smallest_side, method)
    first = next(pictures, None)
    if first is None:
        raise VideoError(f"{video}: has one frame only, flow needs two")
    write_mp4(out, chain([first], pictures), video_fps(video))


def _pictures(
    video: str | os.PathLike[str], lines: Sequence[str], smallest_side: int, method: str
) -> Iterator[npt.NDArray[np.uint8]]:
    for frame, following in pairwise(read_video(video, smallest_side=smallest_side)):
        grey, next_grey = (to_grey(each) for each in (frame, following))
        flow = estimate_flow(grey, next_grey, method)
        yield _annotate(np.hstack([frame, flow_to_colour(flow, maximum=_FLOW_SCALE)]), lines)


def _annotate(picture: npt.NDArray[np.uint8], lines: Sequence[str]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    below = (len(lines) + 1) * _LINE
    canvas = np.zeros((height + below, width, 3), np.uint8)
    canvas[:height, :width] = picture
    for number, line in enumerate(lines):
        place = (6, height + (number + 1) * _LINE)
        cv2.putText(canvas, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas
