# SPDX-License-Identifier: BSD-3-Clause
"""Looking at the flow of a video file: one picture of it, or the whole clip as a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from twostream_ext.errors import VideoError
from twostream_ext.files import refuse_same_file
from twostream_ext.flow.clip import FlowClip
from twostream_ext.flow.draw import draw_flow, side_by_side, typical_maximum
from twostream_ext.media import Picture, check_mp4, open_as, write_mp4

_SAMPLES = 16  # fields of a clip that its scale is taken from


def draw_clip(video: str | os.PathLike[str], clip: FlowClip, *, camera: bool = False) -> Picture:
    """One picture of a clip, uint8 RGB: the frame in the middle, its flow in colours, its x and y plane.

    video: the file that the clip was made from. camera: show the camera's motion too, and the flow without it.
    VideoError if the video cannot be read or has fewer frames than the clip.
    """
    number = clip.length() // 2
    frame = next(islice(_frames(video, clip), number, None), None)
    if frame is None:
        raise VideoError(f"{video}: has no frame {number}, but flow from it")
    return draw_flow(frame, clip.displacement(number), number=number, camera=_camera(clip, number, camera))


def write_flow_video(
    video: str | os.PathLike[str], clip: FlowClip, out: str | os.PathLike[str], *, camera: bool = False
) -> None:
    """Write an .mp4 with the frames on the left and their forward flow in colours, one scale for all, on the right.

    video: the file that the clip was made from. camera: show, on the right of all, the flow without the camera's
    motion. VideoError if the video cannot be read, has fewer frames than the clip, or `out` cannot be written as .mp4;
    SettingsError if `out` is that file.
    """
    check_mp4(out)
    refuse_same_file(out, video)
    chosen = np.unique(np.linspace(0, clip.length() - 1, _SAMPLES).round().astype(int))
    maximum = typical_maximum(np.stack([clip.displacement(int(number)) for number in chosen]))

    def pictures() -> Iterator[Picture]:
        frames = _frames(video, clip)
        for number in range(clip.length()):
            frame = next(frames, None)
            if frame is None:
                raise VideoError(f"{video}: has no frame {number}, but flow from it")
            yield side_by_side(frame, clip.displacement(number), maximum=maximum, camera=_camera(clip, number, camera))

    write_mp4(out, pictures(), clip.fps)


def _camera(clip: FlowClip, number: int, wanted: bool) -> npt.NDArray[np.float32] | None:
    return clip.camera_motion(number, 1)[0] if wanted else None


def _frames(video: str | os.PathLike[str], clip: FlowClip) -> Iterator[Picture]:
    settings = clip.settings
    opened = open_as(video, settings)
    if opened.size != clip.size:
        raise VideoError(f"{video}: has frames of another size than its flow")
    return (frame.rgb() for frame in opened.frames)
