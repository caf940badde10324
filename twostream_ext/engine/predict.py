# SPDX-License-Identifier: BSD-3-Clause
"""The classes of one video, by the nets of a finished run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from twostream_ext.engine.checkpoint import TrainedNet, load_model
from twostream_ext.engine.evaluate import video_scores
from twostream_ext.engine.origin import net_digest, unlike
from twostream_ext.engine.pipeline import MODEL_FILE, SVM_FILE, flow_device
from twostream_ext.engine.splits import SEVERAL, split_folder
from twostream_ext.engine.streams import STREAMS, find_stream
from twostream_ext.engine.summary import read_run
from twostream_ext.errors import CheckpointError, VideoError
from twostream_ext.extraction import extract
from twostream_ext.files import check_file
from twostream_ext.flow import FlowClip, FlowStore
from twostream_ext.media import FrameClip, FrameStore
from twostream_ext.models import SVMFusion, fuse_average


class Prediction(NamedTuple):
    """What the nets say of a video."""

    classes: list[str]
    scores: dict[str, Tensor]
    """Of each stream by its name, and "average": softmax [classes]."""
    svm: int
    """The class that the SVM chooses."""


Report = Callable[[Prediction, FlowClip, FrameClip], None]


def predict_video(
    video: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    report: Report | None = None,
) -> Prediction:
    """Compute the flow of a video as the run did, and score it with 25 frames x 10 crops, or what the run used.

    Args:
        video: a video file.
        model: directory of a finished run: its settings, its two nets and its SVM.
        device: where flow is computed, if its method can, and where the nets run.
        report: called with the prediction and the flow and frames that it was made from, whose files are thrown away
            when it returns.

    Raises:
        TwoStreamError: the video cannot be read or is too short, or the directory holds no finished run, or its SVM
            learnt from other nets.
    """
    path = Path(video)
    check_file(path, VideoError)
    run = read_run(model)
    if run.get("split") == SEVERAL:
        raise CheckpointError(f"{model}: holds runs on several splits; give that of one, {split_folder(model, 1)} say")
    nets = {stream: load_model(Path(model) / stream / MODEL_FILE, device) for stream in STREAMS}
    svm = _load_svm(Path(model) / SVM_FILE, nets)
    with tempfile.TemporaryDirectory(prefix="twostream-") as scratch:
        flow_dir, frames_dir = Path(scratch, "flow"), Path(scratch, "frames")
        extract(
            path.parent,
            flow_dir,
            method=run["flow_method"],
            device=flow_device(run["flow_method"], torch.device(device)),
            smallest_side=run["smallest_side"],
            quality=run["jpeg_quality"],
            backward=any(trained.net.settings.bidirectional for trained in nets.values()),
            names=[path.name],
            frames_out=frames_dir,
        )
        flow, frames = FlowStore.open(flow_dir)[path.stem], FrameStore.open(frames_dir)[path.stem]
        clips: dict[str, FlowClip | FrameClip] = {"flow": flow, "frames": frames}
        scores = {
            stream: video_scores(
                trained.net, clips[find_stream(stream).reads], frames=run["frames"], crops=run["crops"]
            )
            for stream, trained in nets.items()
        }
        prediction = _fuse(nets[STREAMS[0]].classes, scores, svm)
        if report is not None:
            report(prediction, flow, frames)
    return prediction


def _load_svm(path: Path, nets: Mapping[str, TrainedNet]) -> SVMFusion:
    svm = SVMFusion.load(path)
    fitted_on = svm.made_from.get("nets", [])
    if None not in fitted_on:  # what 0.1.0 scored tells nothing of its net
        other = unlike(svm.made_from, {"nets": [net_digest(nets[stream].net) for stream in STREAMS]})
        if other is not None:
            raise CheckpointError(f"{path}: learnt from the scores of {other}; give the command `run` again")
    return svm


def _fuse(classes: dict[str, list[str]], scores: dict[str, Tensor], svm: SVMFusion) -> Prediction:
    (names,) = classes.values()
    each = [scores[stream][None] for stream in STREAMS]
    return Prediction(names, {**scores, "average": fuse_average(each)[0]}, int(svm.predict(each)[0]))
