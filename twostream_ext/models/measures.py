# SPDX-License-Identifier: BSD-3-Clause
"""How many videos are told right, by two measures that are easily mixed up, and how far chance may move each."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from twostream_ext.errors import SettingsError

Interval = tuple[float, float]

_QUANTILE = 1.959964  # of the normal distribution: 95 % lie within so many standard deviations


class Accuracy(NamedTuple):
    """Fractions of the videos told right, each with its 95 % interval."""

    top1: float
    """Of all videos."""
    interval: Interval
    """Of `top1`: Wilson's score interval, see `wilson_interval`."""
    mean_class: float
    """The mean over the classes of each one's fraction: a class of few videos counts as much as one of many."""
    mean_class_interval: Interval
    """Of `mean_class`, from the Wilson intervals of the classes."""


def accuracy(scores: Tensor, labels: Tensor) -> Accuracy:
    """Both measures of videos whose highest score [N, C], or predicted class [N], should be their label [N].

    Classes without a video are left out of the mean. Its interval adds up how far each class may be off, as independent
    errors (the method of variance estimates recovery).
    """
    right = _is_right(scores, labels)
    hits, count = int(right.sum()), len(right)
    classes = sorted(set(labels.tolist()))
    fractions, below, above = [], [], []
    for label in classes:
        own = right[labels == label]
        fraction = own.double().mean().item()
        low, high = wilson_interval(int(own.sum()), len(own))
        fractions.append(fraction)
        below.append(fraction - low)
        above.append(high - fraction)
    mean = math.fsum(fractions) / len(classes)
    ends = mean - math.hypot(*below) / len(classes), mean + math.hypot(*above) / len(classes)
    return Accuracy(hits / count, wilson_interval(hits, count), mean, ends)


def wilson_interval(right: float, count: float) -> Interval:
    """Wilson's 95 % score interval of a fraction of which `right` of `count` were seen, within 0 .. 1.

    The count may be the number of independent videos that would say as much as some that depend on each other.

    Unlike the mean with its standard errors it says something where none or all are right, or where there are few. The
    videos are taken for independent: those of one group (a film, a scene) are not, and then it is too narrow.
    """
    if not 0 <= right <= count or count < 1:
        raise SettingsError(f"wilson_interval: {right:g} of {count:g} videos cannot be right")
    share, spread = right / count, _QUANTILE**2 / count
    centre = share + spread / 2
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4)
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


def top1(scores: Tensor, labels: Tensor) -> float:
    """Fraction of videos whose highest score [N, C], or predicted class [N], is their label [N]."""
    return _is_right(scores, labels).double().mean().item()


def _is_right(scores: Tensor, labels: Tensor) -> Tensor:
    predicted = scores.argmax(1) if scores.ndim == 2 else scores
    if predicted.shape != labels.shape or not len(labels):
        raise SettingsError(
            f"top1: scores {list(scores.shape)} and labels {list(labels.shape)} must be of the "
            "same videos, at least one"
        )
    return predicted == labels
