# SPDX-License-Identifier: BSD-3-Clause
"""What a finished run says of its test videos, and what of it is worth showing."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext.engine import STREAMS, SVM_FILE, load_same_videos
from twostream_ext.errors import CheckpointError, TwoStreamError
from twostream_ext.models import Accuracy, SVMFusion, accuracy, fuse_average
from twostream_ext.report.table import accuracy_in

_AT_ONCE = 1000  # videos that the machine answers for: it takes much memory for each

Given = ParamSpec("Given")
Value = TypeVar("Value")


MISSING_MARK = 'class="missing"'
"""What a page holds wherever it says that something could not be read."""


class Missing(str):
    """In place of what could not be read: why."""

    def __html__(self) -> str:
        return f"<span {MISSING_MARK}>{html.escape(self)}</span>"


def attempt(read: Callable[Given, Value], *given: Given.args, **named: Given.kwargs) -> Value | Missing:
    """What is read, or why it cannot be: who has deleted the flow of a finished run still gets a page."""
    try:
        return read(*given, **named)
    except (TwoStreamError, OSError, IndexError) as error:
        return Missing(error)


class Result(NamedTuple):
    """A run's test videos, their classes, and what each method says of them."""

    summary: dict[str, Any]
    classes: list[str]
    names: list[str]  # of the videos
    labels: Tensor  # int64 [videos]
    scores: dict[str, Tensor]  # of each stream and of "average": float32 [videos, classes]
    predicted: dict[str, Tensor]  # by these, and by the "svm" where its file is there: int64 [videos]


class Pair(NamedTuple):
    """Videos of one class that were taken for another."""

    label: int
    predicted: int
    videos: int
    of: int  # videos of the class
    example: int  # the number of the one for which the score of the wrong class is highest


def read_result(root: Path, summary: dict[str, Any]) -> Result:
    """Read the scores of a run; CheckpointError or SettingsError if they are damaged or not those of its summary."""
    paths = [root / "scores" / f"{stream}_test.safetensors" for stream in STREAMS]
    files = load_same_videos(paths)
    classes: list[str] = summary["classes"]
    scored = files[0].scores.shape[1]
    if scored != len(classes):
        raise CheckpointError(f"{paths[0]}: scores of {scored} classes, the summary has {len(classes)}")
    by_stream = [file.scores for file in files]
    scores = {**dict(zip(STREAMS, by_stream, strict=True)), "average": fuse_average(by_stream)}
    predicted = {name: values.argmax(1) for name, values in scores.items()}
    svm = attempt(SVMFusion.load, root / SVM_FILE)
    if not isinstance(svm, Missing):
        parts = zip(*(torch.split(values, _AT_ONCE) for values in by_stream), strict=True)
        predicted["svm"] = torch.cat([svm.predict(part) for part in parts])
    return Result(summary, classes, files[0].names, files[0].labels, scores, predicted)


def accuracies(result: Result) -> dict[str, Accuracy]:
    """Of every method that the summary names, in its order; NaN for means that nobody noted and no file tells."""
    found = {}
    for name in result.summary["top1"]:
        predicted = result.predicted.get(name)
        found[name] = accuracy_in(result.summary, name) if predicted is None else accuracy(predicted, result.labels)
    return found


def class_recall(predicted: Tensor, labels: Tensor, classes: int) -> npt.NDArray[np.float64]:
    """The share of each class's videos that are predicted right, [classes]; NaN where a class has none."""
    right = torch.bincount(labels[predicted == labels], minlength=classes).double()
    shares: npt.NDArray[np.float64] = (right / torch.bincount(labels, minlength=classes)).numpy()
    return shares


def confusion_counts(predicted: Tensor, labels: Tensor, classes: int) -> npt.NDArray[np.int64]:
    """How many videos of each class (row) were taken for each class (column): [classes, classes]."""
    counts: npt.NDArray[np.int64] = torch.bincount(labels * classes + predicted, minlength=classes**2).numpy()
    return counts.reshape(classes, classes)


def confident_mistakes(result: Result, most: int) -> list[int]:
    """Numbers of the videos that the average takes for a wrong class with the highest scores, the highest first."""
    (wrong,) = torch.nonzero(result.predicted["average"] != result.labels, as_tuple=True)
    order = result.scores["average"][wrong].amax(1).argsort(descending=True, stable=True)
    numbers: list[int] = wrong[order[:most]].tolist()
    return numbers


def confused_pairs(result: Result, most: int) -> list[Pair]:
    """The pairs of classes that the average confuses most often, each in one direction."""
    predicted, labels, classes = result.predicted["average"], result.labels, len(result.classes)
    counts = confusion_counts(predicted, labels, classes)
    sizes = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    pairs = []
    for cell in np.argsort(-counts, axis=None, kind="stable")[:most].tolist():
        label, other = divmod(cell, classes)
        if not counts[label, other]:
            break
        (videos,) = torch.nonzero((labels == label) & (predicted == other), as_tuple=True)
        example = int(videos[result.scores["average"][videos, other].argmax()])
        pairs.append(Pair(label, other, int(counts[label, other]), int(sizes[label]), example))
    return pairs


def spread_examples(labels: Tensor, most: int) -> list[int]:
    """Numbers of the first video of each of a few classes, evenly spread over the classes."""
    values = labels.numpy()
    present, first = np.unique(values, return_index=True)
    places = np.linspace(0, len(present) - 1, min(most, len(present))).round().astype(int)
    numbers: list[int] = first[places].tolist()
    return numbers


def percent(share: float) -> int:
    """A share in whole percent, halves upwards: 1 of 8 videos are 13."""
    return math.floor(100 * share + 0.5)
