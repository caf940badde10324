# SPDX-License-Identifier: BSD-3-Clause
"""How often answers are right: of all videos, and of each class alike; and how sure that is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NORMAL_95 = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations


def wilson_interval(share: float, count: float) -> tuple[float, float]:
    """The 95 % interval (Wilson 1927) of a share that was found in `count` draws."""
    square = _NORMAL_95**2 / count
    middle = (share + square / 2) / (1 + square)
    reach = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def class_recall(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The share of each class's videos that are predicted right: float64 [classes], NaN where a class has none.

    predicted, labels: int64 [videos].
    """
    right = torch.bincount(labels[predicted == labels], minlength=classes)
    return right.double() / torch.bincount(labels, minlength=classes)


def mean_class_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """The mean of `class_recall` over the classes that have videos: each class counts alike, however large."""
    recall = class_recall(predicted, labels, int(labels.max()) + 1)
    return recall[~recall.isnan()].mean().item()


def balanced_count(labels: Tensor) -> float:
    """How many draws a mean over classes is worth, for its interval: as many as videos where all classes are of a size.

    That is the number of classes times the harmonic mean of their sizes: a class of few videos makes the mean unsure.
    """
    sizes = torch.bincount(labels)
    sizes = sizes[sizes > 0].double()
    return (len(sizes) ** 2 / (1 / sizes).sum()).item()
