# SPDX-License-Identifier: BSD-3-Clause
"""Score files: what one net says about each video, for fusion and tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from twostream_ext.errors import CheckpointError
from twostream_ext.tensor_files import read_tensors, write_tensors

_KIND = "twostream scores 1"


class Scores(NamedTuple):
    names: list[str]  # videos
    labels: Tensor  # int64 [videos]
    scores: Tensor  # float32 [videos, classes], mean softmax


def save_scores(path: str | os.PathLike[str], names: Sequence[str], labels: Tensor, scores: Tensor) -> None:
    """Write scores [V, C] and labels [V] of the videos `names` to a safetensors file."""
    if scores.ndim != 2 or not len(names) == len(labels) == len(scores):
        raise CheckpointError(
            f"{path}: {len(names)} names, labels {list(labels.shape)} and scores "
            f"{list(scores.shape)} must be of the same videos"
        )
    write_tensors(path, _KIND, {"labels": labels, "scores": scores}, {"names": list(names)})


def load_scores(path: str | os.PathLike[str]) -> Scores:
    """What `save_scores` wrote; CheckpointError if the file is missing, damaged or another."""
    tensors, description = read_tensors(path, _KIND)
    return Scores(description["names"], tensors["labels"], tensors["scores"])
