# SPDX-License-Identifier: BSD-3-Clause
"""Weights and the SVM's C chosen on videos that the nets did not train on.

Scores of videos that a net has trained on flatter the net that learnt them by heart: what is chosen on them trusts it
too much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from twostream_ext.models.fusion import SVMFusion, fuse_weighted
from twostream_ext.models.measures import top1

_STEPS = 20  # weights are multiples of 1 / 20
COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Values of C that are tried."""


def choose_weights(scores: Sequence[Tensor], labels: Tensor) -> tuple[float, ...]:
    """Weights of the streams, of sum 1, that tell most of these videos right by their weighted mean.

    Of weights that tell as many right, those under which the true classes are likeliest. Multiples of 0.05 are tried.

    scores: softmax [N, C] of each stream on videos that no net has trained on. labels: int [N].
    """

    def merit(weights: tuple[float, ...]) -> tuple[float, float]:
        fused = fuse_weighted(scores, weights)
        likelihood = fused.gather(1, labels[:, None]).clamp_min(1e-12).log().double().mean().item()
        return top1(fused, labels), likelihood

    return max((tuple(part / _STEPS for part in parts) for parts in _sums(_STEPS, len(scores))), key=merit)


def choose_cost(
    training: Sequence[Tensor], training_labels: Tensor, held_out: Sequence[Tensor], held_out_labels: Tensor
) -> float:
    """The C of `COSTS` with which an SVM that learns from the training videos tells most of the others right.

    Of those that tell as many right, the one nearest to 1, which is LIBLINEAR's own.

    training, held_out: softmax [N, C] of each stream; of held-out videos no net has seen any.
    """

    def merit(cost: float) -> tuple[float, float]:
        predicted = SVMFusion(cost).fit(training, training_labels).predict(held_out)
        return top1(predicted, held_out_labels), -max(cost, 1 / cost)

    return max(COSTS, key=merit)


def _sums(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to share so many out among so many."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _sums(total - first, parts - 1):
            yield (first, *rest)
