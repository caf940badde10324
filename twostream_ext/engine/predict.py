# SPDX-License-Identifier: BSD-3-Clause
"""The classes of one video, by the nets of a finished run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from twostream_ext.engine.checkpoint import load_model
from twostream_ext.engine.evaluate import video_scores
from twostream_ext.engine.pipeline import MODEL_FILE, STREAMS, SVM_FILE, read_run
from twostream_ext.errors import VideoError
from twostream_ext.extraction import extract
from twostream_ext.flow import FlowClip, FlowStore
from twostream_ext.media import FrameClip, FrameStore
from twostream_ext.models import SVMFusion, fuse_average


class Prediction(NamedTuple):
    """Softmax scores [classes] of each net and their average, and the class that the SVM chooses."""

    classes: list[str]
    spatial: Tensor
    temporal: Tensor
    average: Tensor
    svm: int


def predict_video(
    video: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
) -> Prediction:
    """Compute the flow of a video as the run did, and score it with 25 frames x 10 crops, or what the run used.

    Args:
        video: a video file.
        model: directory of a finished run: its settings, its two nets and its SVM.

    Raises:
        TwoStreamError: the video cannot be read or is too short, or the directory holds no finished run.
    """
    path = Path(video)
    if not path.is_file():
        raise VideoError(f"{video}: no such file")
    run = read_run(model)
    nets = {stream: load_model(Path(model) / stream / MODEL_FILE, device) for stream in STREAMS}
    svm = SVMFusion.load(Path(model) / SVM_FILE)
    scores = {}
    with tempfile.TemporaryDirectory(prefix="twostream-") as scratch:
        flow_dir, frames_dir = Path(scratch, "flow"), Path(scratch, "frames")
        extract(
            path.parent,
            flow_dir,
            method=run["flow_method"],
            smallest_side=run["smallest_side"],
            quality=run["jpeg_quality"],
            names=[path.name],
            frames_out=frames_dir,
        )
        clips: dict[str, FlowClip | FrameClip] = {
            "spatial": FrameStore.open(frames_dir)[path.stem],
            "temporal": FlowStore.open(flow_dir)[path.stem],
        }
        for stream, trained in nets.items():
            scores[stream] = video_scores(trained.net, clips[stream], frames=run["frames"], crops=run["crops"])
    (classes,) = nets["spatial"].classes.values()
    both = [scores[stream] for stream in STREAMS]
    chosen = svm.predict([each[None] for each in both])
    return Prediction(classes, both[0], both[1], fuse_average([each[None] for each in both])[0], int(chosen[0]))
