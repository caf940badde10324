# SPDX-License-Identifier: BSD-3-Clause
"""A video beside its flow, with what the nets say of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from twostream_ext.flow import FlowClip, flow_to_colour
from twostream_ext.media import FrameClip, Picture, write_mp4

_FLOW_SCALE = 8.0  # pixels a frame that give the full colour: one scale for the whole video
_LINE = 18  # pixels, of a line of text


def write_annotated_video(out: str | os.PathLike[str], flow: FlowClip, frames: FrameClip, lines: Sequence[str]) -> None:
    """Write an .mp4 with the frames on the left, their forward flow on the right and `lines` of text below.

    flow, frames: of the same video and size. The last frame, from which no flow goes, is left out.

    VideoError if `out` cannot be written as .mp4; FlowStoreError if a file of the clips is damaged.
    """
    write_mp4(out, _pictures(flow, frames, lines), flow.fps)


def _pictures(flow: FlowClip, frames: FrameClip, lines: Sequence[str]) -> Iterator[Picture]:
    for number in range(flow.length()):
        colours = flow_to_colour(flow.displacement(number), maximum=_FLOW_SCALE)
        yield _annotate(np.hstack([frames.read(number), colours]), lines)


def _annotate(picture: Picture, lines: Sequence[str]) -> Picture:
    height, width = picture.shape[:2]
    below = (len(lines) + 1) * _LINE
    canvas = np.zeros((height + below, width, 3), np.uint8)
    canvas[:height, :width] = picture
    for number, line in enumerate(lines):
        place = (6, height + (number + 1) * _LINE)
        cv2.putText(canvas, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas
