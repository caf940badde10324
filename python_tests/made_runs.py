# SPDX-License-Identifier: BSD-3-Clause
"""The directory of a finished run, made without training: for what comes after it, of any size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from stores import Field
from torch import Tensor

from twostream_ext import engine
from twostream_ext.engine.pipeline import describe_accuracies
from twostream_ext.engine.training_log import COLUMNS
from twostream_ext.flow import write_flow_clip
from twostream_ext.media import write_frame_clip
from twostream_ext.models import accuracy, fuse_average
from twostream_ext.tensor_files import write_tensors

STREAMS = ("spatial", "temporal")
RECIPE = replace(engine.RECIPES["demo"], width=0.05)

# A process begins with the peak memory of the one that it was forked from: this one is small.
_MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "twostream_ext", "report", sys.argv[1]], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
"""


class Measured(NamedTuple):
    """What `twostream report` took, from the start of its process on, imports and all."""

    seconds: float
    processor_seconds: float
    peak_memory_bytes: int


def measure_report(out: Path) -> Measured:
    """Write the report of a run in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, "-c", _MEASURE, str(out)]
    done = subprocess.run(command, cwd=out, check=True, stdout=subprocess.PIPE, text=True)
    processor_seconds, peak = done.stdout.split()
    return Measured(time.perf_counter() - started, float(processor_seconds), int(peak))


def make_run(
    out: Path, classes: Sequence[str], videos: int, *, recipe: engine.Recipe = RECIPE, iterations: int = 40
) -> None:
    """As `run_pipeline` leaves it. All videos have one clip, and the nets their first weights."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(videos) % len(classes)
    names = [f"{classes[label]}/v_{number}" for number, label in enumerate(labels.tolist())]
    scores = {}
    for place, stream in enumerate(STREAMS):
        scores[stream] = _scores(labels, len(classes), random)
        engine.save_scores(out / f"scores/{stream}_test.safetensors", names, labels, scores[stream], classes)
        net = engine.new_net(recipe, stream, len(classes), seed=place)
        engine.save_model(out / stream / engine.MODEL_FILE, net, classes)
        _write_log(out / stream / engine.LOG_FILE, iterations)
    _write_machine(out / engine.SVM_FILE, len(classes))
    _write_clips(out, names)
    average = fuse_average(list(scores.values()))
    answers = {**scores, "average": average, "svm": average}
    summary = {
        **describe_accuracies({name: accuracy(values, labels) for name, values in answers.items()}),
        "videos": {"train": 3 * videos, "test": videos},
        "classes": list(classes),
        "split": 1,
        "seed": 0,
        "recipe": recipe.as_json(),
        "made_from": {"classes": list(classes), "test": "0" * 64},
    }
    run = {"videos": "/<i>videos</i>", "lists": "/lists", "split": 1, "seed": 0, **recipe.as_json()}
    (out / engine.SUMMARY_FILE).write_text(json.dumps(summary))
    (out / engine.RUN_FILE).write_text(json.dumps(run))


def _scores(labels: Tensor, classes: int, random: torch.Generator) -> Tensor:
    """Softmax scores that are right about two thirds of the videos."""
    logits = torch.randn(len(labels), classes, generator=random)
    sure = torch.rand(len(labels), generator=random) < 2 / 3
    logits[torch.arange(len(labels)), labels] += torch.where(sure, 6.0, 1.0)
    return logits.softmax(1)


def _write_log(path: Path, iterations: int) -> None:
    lines = [
        f"{number},{3 / (1 + number):.4f},{0.01 if number < 30 else 0.001},0.1,0.01" for number in range(iterations)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")


def _write_machine(path: Path, classes: int) -> None:
    """One that adds up the streams' scores, with no time spent on learning it."""
    weights = torch.eye(classes, dtype=torch.float64).repeat(1, len(STREAMS))
    tensors = {
        "weights": weights,
        "intercepts": torch.zeros(classes, dtype=torch.float64),
        "classes": torch.arange(classes),
    }
    write_tensors(path, "twostream svm fusion 1", tensors, {"C": 1.0})


def _write_clips(out: Path, names: Sequence[str]) -> None:
    """The same moving square under all names."""
    frames = [np.full((48, 64, 3), 90, np.uint8) for _ in range(3)]
    fields = []
    for number, frame in enumerate(frames):
        frame[10 + number : 30 + number, 20:40] = (250, 200, 30)
        codes = np.full((48, 64, 2), 128, np.uint8)
        codes[10:30, 20:40, 1] = 255
        fields.append(Field(codes, np.float32([-1, -1]), np.float32([2 / 255, 2 / 255]), np.float32([0, 0])))
    first = names[0]
    write_frame_clip(out / "frames" / f"{first}.safetensors", frames)
    write_flow_clip(out / "flow" / f"{first}.safetensors", forward=fields[1:], codec="raw", method="dis")
    for store in ("frames", "flow"):
        for name in names[1:]:
            path = out / store / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(out / store / f"{first}.safetensors", path)
