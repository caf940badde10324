# SPDX-License-Identifier: BSD-3-Clause
"""What a report's templates are filled with."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from twostream_ext.engine import LOG_FILE, MODEL_FILE, STREAMS, TrainingCurves, load_model, read_run, read_training_log
from twostream_ext.errors import CheckpointError
from twostream_ext.flow import colour_wheel
from twostream_ext.media import Picture
from twostream_ext.media.png import code_png
from twostream_ext.models import Accuracy, first_filters
from twostream_ext.ops import build_info
from twostream_ext.report import pictures
from twostream_ext.report.charts import NUMBERED_CLASSES, confusion_layout, recall_layout, training_charts
from twostream_ext.report.pictures import Shown, jpeg_address, png_address, read_shown
from twostream_ext.report.result import (
    Missing,
    Result,
    accuracies,
    attempt,
    class_recall,
    confident_mistakes,
    confused_pairs,
    confusion_counts,
    spread_examples,
)
from twostream_ext.report.table import ROWS

_COLOURS = {"spatial": "#4c78a8", "temporal": "#f58518", "average": "#54a24b", "svm": "#b279a2"}
_OTHER_COLOUR = "#8a8f98"
_CARDS = 6  # videos in each part that shows some
_PAIRS = 20  # in the table
_SCORES = 3  # of each method, beside a video
_FILTERS_WIDE = 900  # pixels: filters are enlarged to about that width, between twice and four times


class Part(NamedTuple):
    """Of a page: what its template is filled with, and what lies beside it as files of their own."""

    content: dict[str, Any]
    pictures: dict[str, bytes]
    """PNG, by the names of the files."""
    charts: dict[str, tuple[str, dict[str, Any]]]
    """By the names of the files, without ending: the template, and what it is filled with besides."""


def draw(root: Path, result: Result) -> Part:
    """All of a page."""
    parts = [
        _accuracy(result),
        _training(root, result.summary),
        _videos(root, result),
        _recall(result),
        _confusion(result),
        _filters(root),
        Part({"facts": _facts(root, result.summary)}, {}, {}),
    ]
    return Part(
        {name: value for part in parts for name, value in part.content.items()},
        {name: value for part in parts for name, value in part.pictures.items()},
        {name: value for part in parts for name, value in part.charts.items()},
    )


def _accuracy(result: Result) -> Part:
    summary, methods = result.summary, accuracies(result)
    content = {
        "heading": "Two-stream result",
        "title": f"{len(result.classes)} classes, {len(result.labels)} test videos",
        "classes": result.classes,
        "videos": summary["videos"],
        "split": summary["split"],
        "seed": summary["seed"],
        "notes": summary.get("notes", []),  # 0.1.0 did not keep them
        "colours": method_colours((*methods, *result.predicted)),
        "methods": [{"name": name, "words": _words(name), **each._asdict()} for name, each in methods.items()],
        "verdict": verdict(methods),
    }
    return Part(content, {}, {})


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each stream and fusion."""
    return {name: _COLOURS.get(name, _OTHER_COLOUR) for name in methods}


def verdict(methods: Mapping[str, Accuracy]) -> str:
    """Whether fusing helps, in a sentence."""
    top1 = {name: each.top1 for name, each in methods.items()}
    best = max(STREAMS, key=top1.__getitem__)
    best_fused = max(top1.keys() - set(STREAMS), key=top1.__getitem__)
    right = f"{100 * top1[best]:.1f} %"
    fusion, stream = f"{_words(best_fused)}: {100 * top1[best_fused]:.1f} %", f"the {_words(best)} alone"
    if top1[best_fused] > top1[best]:
        return f"Fusing helps here ({fusion} of the videos are right): {stream} is right about {right}."
    if top1[best_fused] == top1[best]:
        return f"Fusing changes nothing here: {stream} is right about as many, {right} of the videos."
    return f"Fusing does not help here ({fusion} of the videos are right): {stream} is right about {right}."


def _words(method: str) -> str:
    return ROWS.get(method, method)


def _videos(root: Path, result: Result) -> Part:
    """Mistakes, pairs and examples, each with its pictures."""
    pairs = confused_pairs(result, _PAIRS)
    chosen = {
        "mistakes": confident_mistakes(result, _CARDS),
        "pairs": [pair.example for pair in pairs[:_CARDS]],
        "examples": spread_examples(result.labels, _CARDS),
    }
    shown = read_shown(root, sorted({result.names[number] for each in chosen.values() for number in each}))
    cards = {part: [_card(result, number, shown) for number in numbers] for part, numbers in chosen.items()}
    stacks = {
        part: pictures.stack_shown([shown[result.names[number]] for number in numbers])
        for part, numbers in chosen.items()
    }
    files = {f"{part}.png": code_png(stack) for part, stack in stacks.items() if stack is not None}
    return Part({"pairs": pairs, "cards": cards, "wheel": _on_page(colour_wheel(56))}, files, {})


def _card(result: Result, number: int, shown: Mapping[str, Shown]) -> dict[str, Any]:
    label, pictured = int(result.labels[number]), shown[result.names[number]]
    return {
        "video": result.names[number],
        "label": result.classes[label],
        "predicted": result.classes[int(result.predicted["average"][number])],
        "frame": _on_page(pictured.frame),
        "flow": _on_page(pictured.flow),
        "says": [_says(name, scores[number], label, result.classes) for name, scores in result.scores.items()],
    }


def _says(method: str, scores: torch.Tensor, label: int, classes: Sequence[str]) -> dict[str, Any]:
    """The highest scores of a video."""
    best = scores.topk(min(_SCORES, len(classes)))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return {
        "method": method,
        "scores": [{"name": classes[index], "share": value, "right": index == label} for index, value in rows],
    }


def _on_page(picture: Picture | Missing) -> dict[str, Any]:
    if isinstance(picture, Missing):
        return {"address": None, "why": picture}
    return {"address": jpeg_address(picture), "height": picture.shape[0], "width": picture.shape[1]}


def _recall(result: Result) -> Part:
    """The recall of each class by every method whose answers are kept."""
    classes = result.classes
    recall = {name: class_recall(each, result.labels, len(classes)) for name, each in result.predicted.items()}
    videos = torch.bincount(result.labels, minlength=len(classes)).tolist()
    rows = [
        {
            "name": name,
            "videos": videos[place],
            "shares": [(method, values[place].item() if videos[place] else None) for method, values in recall.items()],
        }
        for place, name in enumerate(classes)
    ]
    content = {"recall": rows, "recall_methods": list(recall)}
    return Part(content, {}, {"recall": ("recall.svg", {"bars": recall_layout(recall, classes)})})


def _confusion(result: Result) -> Part:
    """The confusion matrix of the average: a picture, and its cells for whoever points at them."""
    counts = confusion_counts(result.predicted["average"], result.labels, len(result.classes))
    picture = pictures.draw_confusion(counts)
    content = {
        "numbered": len(result.classes) <= NUMBERED_CLASSES,
        "matrix": confusion_layout(counts, result.classes),
        "matrix_address": png_address(picture),
        "confusion_counts": {
            "classes": result.classes,
            "sizes": counts.sum(axis=1).tolist(),
            "counts": [[*cell, int(counts[tuple(cell)])] for cell in np.argwhere(counts).tolist()],
        },
    }
    return Part(content, {"confusion.png": pictures.code_file(picture)}, {"confusion": ("confusion.svg", {})})


def _training(root: Path, summary: Mapping[str, Any]) -> Part:
    """Charts of the logs that there are, and why there are none of the others."""
    logs = {stream: attempt(read_training_log, root / stream / LOG_FILE) for stream in STREAMS}
    curves = {stream: log for stream, log in logs.items() if isinstance(log, TrainingCurves)}
    batch_sizes = {stream: summary["recipe"][stream]["batch_size"] for stream in STREAMS}
    charts = training_charts(curves, batch_sizes)
    missing = [log for log in logs.values() if isinstance(log, Missing)]
    files = {chart.file: ("chart.svg", {"chart": chart}) for chart in charts}
    return Part({"charts": charts, "training_missing": missing}, {}, files)


def _filters(root: Path) -> Part:
    """First-layer filters of the nets that there are, for the page and as files."""
    content: list[dict[str, Any]] = []
    files = {}
    for stream in STREAMS:
        found = attempt(_draw_filters, root / stream / MODEL_FILE)
        if isinstance(found, Missing):
            content.append({"rows": [], "address": None, "why": found})
            continue
        picture, rows = found
        factor = max(2, min(4, _FILTERS_WIDE // picture.shape[1]))
        height, width = (factor * side for side in picture.shape[:2])
        content.append({"rows": rows, "address": png_address(picture), "width": width, "height": height})
        files[f"filters_{stream}.png"] = pictures.code_file(picture)
    return Part({"filters": content}, files, {})


def _draw_filters(path: Path) -> tuple[Picture, list[str]]:
    """The filters of the net in a file, and the names of their rows; CheckpointError if there is no such net."""
    net = load_model(path).net
    weights = first_filters(net)
    if weights is None:
        raise CheckpointError(f"{path}: the net has no convolution of its input")
    if not net.settings.takes_flow and weights.shape[1] == 3:
        return pictures.draw_colour_filters(weights.float().numpy()), []
    return pictures.draw_flow_filters(weights.float().numpy()), _rows(net.settings.channels, net.settings.bidirectional)


def _rows(channels: int, bidirectional: bool) -> list[str]:
    """Names of a flow stack's channels: x and y of each field in turn."""
    fields = channels // 2
    half = fields // 2 if bidirectional else fields
    names = [f"{field + 1}" if field < half else f"back {field - half + 1}" for field in range(fields)]
    return [f"{name} {axis}" for name in names for axis in "xy"]


def _facts(root: Path, summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings, data and versions by name, for the last part of the page."""
    run = attempt(read_run, root)
    noted = {"run": run} if isinstance(run, Missing) else {name: run.get(name) for name in ("videos", "lists")}
    data = {
        **noted,
        "split": summary["split"],
        "training videos": summary["videos"]["train"],
        "test videos": summary["videos"]["test"],
        "classes": len(summary["classes"]),
        **{f"{name}, SHA-256": value for name, value in summary.get("made_from", {}).items() if isinstance(value, str)},
    }
    return {
        **recipe_facts(summary["recipe"], {"seed": summary["seed"]}),
        "Data": data,
        "Versions that made this page": versions(),
    }


def recipe_facts(recipe: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A recipe in words, that of each stream by itself; more: settings besides."""
    own = {name: value for name, value in recipe.items() if name not in STREAMS}
    return {
        "Settings": {**in_words(own), **more},
        **{f"Training of the {name} net": in_words(recipe[name]) for name in STREAMS if name in recipe},
    }


def versions() -> dict[str, str]:
    """Of all that makes a page."""
    return {
        "twostream_ext": build_info().version,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "OpenCV": cv2.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
    }


def in_words(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by names without `_`."""
    return {name.replace("_", " "): value for name, value in settings.items()}
