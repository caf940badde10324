# SPDX-License-Identifier: BSD-3-Clause
"""The classes of one video, by the nets of a finished run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twostream_ext.engine.checkpoint import TrainedNet, load_model
from twostream_ext.engine.evaluate import video_scores
from twostream_ext.engine.origin import net_digest, unlike
from twostream_ext.engine.pipeline import MODEL_FILE, SVM_CHOSEN_FILE, SVM_FILE, flow_device
from twostream_ext.engine.splits import SEVERAL, split_folder
from twostream_ext.engine.streams import STREAMS, find_stream
from twostream_ext.engine.summary import RUN_FILE, SUMMARY_FILE, read_run, read_summary
from twostream_ext.errors import CheckpointError, VideoError
from twostream_ext.extraction import extract
from twostream_ext.files import check_file
from twostream_ext.flow import FlowClip, FlowStore
from twostream_ext.media import FrameClip, FrameStore, is_numbered_images
from twostream_ext.models import SVMFusion, fuse_average, fuse_weighted
from twostream_ext.noted import check_noted

_SETTINGS = {"flow_method": str, "smallest_side": int, "jpeg_quality": int, "frames": int, "crops": int}


class Prediction(NamedTuple):
    """What the nets say of a video."""

    classes: list[str]
    scores: dict[str, Tensor]
    """Of each stream by its name, "average", and "weighted" where the run has chosen weights: softmax [classes]."""
    svm: int
    """The class that the SVM chooses."""
    svm_chosen: int | None = None
    """That of the SVM whose C the run has chosen; None where it has held nothing out."""

    @property
    def fused(self) -> str:
        """Name of the scores that decide: "weighted" where there are such, else "average"."""
        return "weighted" if "weighted" in self.scores else "average"

    @property
    def best(self) -> str:
        """Name of the class with the highest of those scores."""
        return self.classes[int(self.scores[self.fused].argmax())]


class FinishedRun(NamedTuple):
    """Nets of a run and how their scores are fused: all that predicting takes."""

    settings: dict[str, Any]
    """As `run.json` has them."""
    nets: dict[str, TrainedNet]
    """By the names of their streams."""
    svm: SVMFusion
    weights: tuple[float, ...] | None
    """Of the streams; None where the run has held nothing out to choose them on, as for the next."""
    svm_chosen: SVMFusion | None
    device: torch.device
    """Where the nets are."""

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of the scores."""
        (names,) = self.nets[STREAMS[0]].classes.values()
        return names

    @property
    def backward(self) -> bool:
        """Whether a net takes backward flow."""
        return any(trained.net.settings.bidirectional for trained in self.nets.values())

    @property
    def flow_device(self) -> str:
        """Where flow is computed."""
        return flow_device(self.settings["flow_method"], self.device)


Report = Callable[[Prediction, FlowClip, FrameClip], None]


def load_run(model: str | os.PathLike[str], device: torch.device | str = "cpu") -> FinishedRun:
    """Read what a finished run has left in its directory.

    CheckpointError if the directory holds none, or its SVMs learnt from other nets.
    """
    root = Path(model)
    noted = read_run(root)
    if noted.get("split") == SEVERAL:
        raise CheckpointError(f"{model}: holds runs on several splits; give that of one, {split_folder(model, 1)} say")
    settings = check_noted(root / RUN_FILE, noted, _SETTINGS, CheckpointError)
    nets = {stream: load_model(root / stream / MODEL_FILE, device) for stream in STREAMS}
    chosen = root / SVM_CHOSEN_FILE
    return FinishedRun(
        settings=settings,
        nets=nets,
        svm=_load_svm(root / SVM_FILE, nets),
        weights=_chosen_weights(root),
        svm_chosen=_load_svm(chosen, nets) if chosen.exists() else None,
        device=torch.device(device),
    )


def predict_video(
    video: str | os.PathLike[str],
    model: str | os.PathLike[str] | FinishedRun,
    *,
    device: torch.device | str = "cpu",
    report: Report | None = None,
    progress: bool = True,
) -> Prediction:
    """Compute the flow of a video as the run did, and score it with 25 frames x 10 crops, or what the run used.

    Args:
        video: a video file, or a folder of numbered images.
        model: directory of a finished run: its settings, its two nets and its SVM; or what `load_run` read of it.
        device: where flow is computed, if its method can, and where the nets run; of a run that is read they are there
            already.
        report: called with the prediction and the flow and frames that it was made from, whose files are thrown away
            when it returns.
        progress: a progress bar on standard error, where that is a terminal.

    Raises:
        TwoStreamError: the video cannot be read or is too short, or the directory holds no finished run, or its SVM
            learnt from other nets.
    """
    path = Path(video)
    if is_image_folder(path):
        path = path.resolve()  # "." has no name
    else:
        check_file(path, VideoError)
    run = model if isinstance(model, FinishedRun) else load_run(model, device)
    with tempfile.TemporaryDirectory(prefix="twostream-") as scratch:
        flow_dir, frames_dir = Path(scratch, "flow"), Path(scratch, "frames")
        extract(
            path.parent,
            flow_dir,
            method=run.settings["flow_method"],
            device=run.flow_device,
            smallest_side=run.settings["smallest_side"],
            quality=run.settings["jpeg_quality"],
            backward=run.backward,
            names=[path.name],
            frames_out=frames_dir,
            progress=progress,
        )
        stores = FlowStore.open(flow_dir), FrameStore.open(frames_dir)
        (name,) = stores[0]
        flow, frames = stores[0][name], stores[1][name]
        prediction = predict_clips(run, flow, frames)
        if report is not None:
            report(prediction, flow, frames)
    return prediction


def is_image_folder(path: Path) -> bool:
    """Whether a folder is a video of numbered images."""
    try:
        return path.is_dir() and is_numbered_images(each.name for each in path.iterdir())
    except OSError:
        return False


def predict_clips(run: FinishedRun, flow: FlowClip, frames: FrameClip) -> Prediction:
    """What a run's nets say of a video, or of a part of one, whose flow and frames are there."""
    clips: dict[str, FlowClip | FrameClip] = {"flow": flow, "frames": frames}
    numbers = {"frames": run.settings["frames"], "crops": run.settings["crops"]}
    scores = {
        stream: video_scores(trained.net, clips[find_stream(stream).reads], **numbers)
        for stream, trained in run.nets.items()
    }
    each = [scores[stream][None] for stream in STREAMS]
    scores["average"] = fuse_average(each)[0]
    if run.weights is not None:
        scores["weighted"] = fuse_weighted(each, run.weights)[0]
    svm_chosen = None if run.svm_chosen is None else int(run.svm_chosen.predict(each)[0])
    return Prediction(run.classes, scores, int(run.svm.predict(each)[0]), svm_chosen)


def _load_svm(path: Path, nets: Mapping[str, TrainedNet]) -> SVMFusion:
    svm = SVMFusion.load(path)
    fitted_on = svm.made_from.get("nets", [])
    if None not in fitted_on:  # what 0.1.0 scored tells nothing of its net
        other = unlike(svm.made_from, {"nets": [net_digest(nets[stream].net) for stream in STREAMS]})
        if other is not None:
            raise CheckpointError(f"{path}: learnt from the scores of {other}; give the command `run` again")
    return svm


def _chosen_weights(root: Path) -> tuple[float, ...] | None:
    """Those of the streams that the run's summary has, if it has any."""
    place = root / SUMMARY_FILE
    if not place.exists():  # its nets and its SVM are there, and do without
        return None
    chosen = read_summary(root).get("fusion")
    if chosen is None:
        return None
    weights = check_noted(place, chosen, {"weights": dict[str, float]}, CheckpointError)["weights"]
    check_noted(place, weights, dict.fromkeys(STREAMS, float), CheckpointError)
    return tuple(weights[stream] for stream in STREAMS)
