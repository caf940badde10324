# SPDX-License-Identifier: BSD-3-Clause
"""Which videos and which frames: for training at random, for testing at equal spacing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twostream_ext.data.split import Video, group_of
from twostream_ext.errors import SettingsError

_HELD_OUT = 1  # keeps its random numbers apart from others of the same seed


class Piece(NamedTuple):
    """Samples first .. last - 1 of the batch of one iteration."""

    iteration: int
    first: int
    last: int


class BatchPlan(NamedTuple):
    """How batches are shared out: each to all processes, and the share of each in pieces that are read one by one.

    What sample n of batch i is depends on the seed, the batch size, i and n: neither processes nor pieces change it.
    """

    batch_size: int  # of all processes together
    seed: int
    rank: int = 0  # of this process
    ranks: int = 1  # processes
    accumulate: int = 1  # pieces of a share

    def piece(self, number: int) -> Piece:
        """Piece `number` that this process reads, counted through all iterations."""
        iteration, index = divmod(number, self.accumulate)
        index += self.rank * self.accumulate
        first, last = (self.batch_size * at // (self.ranks * self.accumulate) for at in (index, index + 1))
        return Piece(iteration, first, last)

    def pieces(self, start_iteration: int, iterations: int) -> range:
        """Numbers of the pieces of iterations start_iteration .. iterations - 1.

        SettingsError if a piece would have no sample.
        """
        if self.batch_size < self.ranks * self.accumulate:
            raise SettingsError(
                f"batch_size is {self.batch_size}, expected at least 1 sample for each of "
                f"{self.ranks} process(es) x {self.accumulate} piece(s)"
            )
        return range(start_iteration * self.accumulate, iterations * self.accumulate)


class ClassOrder(NamedTuple):
    """Videos in the order of their classes, so that one of a class is found without a look at the others."""

    videos: npt.NDArray[np.int64]  # numbers of the videos
    starts: npt.NDArray[np.int64]  # for each class that has videos, where they begin
    sizes: npt.NDArray[np.int64]  # and how many there are

    def draw(self, seed: int, iteration: int, batch_size: int) -> list[tuple[int, float]]:
        """See `class_uniform_draws`; it takes as long for a million videos as for a hundred."""
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, iteration])))
        chosen = random.integers(len(self.starts), size=batch_size)
        videos = self.videos[self.starts[chosen] + random.integers(self.sizes[chosen])]
        positions = random.random(batch_size)
        return list(zip(videos.tolist(), positions.tolist(), strict=True))


def order_by_class(labels: Sequence[int]) -> ClassOrder:
    """labels: class of each video. SettingsError if there are none."""
    if not len(labels):
        raise SettingsError("there are no videos to draw from")
    ordered = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(np.asarray(labels)[ordered], return_index=True, return_counts=True)
    return ClassOrder(ordered, starts, sizes)


def class_uniform_draws(labels: Sequence[int], seed: int, iteration: int, batch_size: int) -> list[tuple[int, float]]:
    """Videos of one mini-batch, drawn uniformly across the classes (paper, section 5).

    labels: class of each video. Each draw takes a class at random, a video of it at random, and a
    number u, 0 <= u < 1, that is to choose the frame; they are independent, with replacement.
    Returns (index of the video in `labels`, u) for each of the `batch_size` draws; the same for the
    same `seed` and `iteration`, whoever asks. SettingsError if there are no labels.
    """
    return order_by_class(labels).draw(seed, iteration, batch_size)


def hold_out(videos: Sequence[Video], share: float, seed: int) -> tuple[list[Video], list[Video]]:
    """Videos in two parts, each in their order: those to train on, and about `share` of each class beside them.

    Videos of a class whose names have the same `_g01_`, UCF-101's mark of one scene, stay together, and no class is
    held out as a whole. SettingsError if nothing can be held out.
    """
    if not 0 < share < 1:
        raise SettingsError(f"hold_out is {share}, expected between 0 and 1")
    groups: dict[int, dict[str, list[int]]] = {}
    for index, video in enumerate(videos):
        groups.setdefault(video.label, {}).setdefault(group_of(video.name), []).append(index)
    held: set[int] = set()
    for label, members in sorted(groups.items()):
        wanted = share * sum(map(len, members.values()))
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, label, _HELD_OUT])))
        order = random.permutation(sorted(members)).tolist()
        for group in order[1:]:  # the first is always trained on
            if len(members[group]) / 2 <= wanted:  # with it, the part is nearer to what is wanted
                held.update(members[group])
                wanted -= len(members[group])
    if not held:
        raise SettingsError(f"hold_out is {share}: of the {len(videos)} training videos none can be held out")
    kept = [video for index, video in enumerate(videos) if index not in held]
    return kept, [videos[index] for index in sorted(held)]


def equally_spaced(count: int, positions: int) -> npt.NDArray[np.int64]:
    """`count` of the positions 0 .. positions - 1 at equal spacing, from first to last, int64.

    The paper tests 25 frames of a video. A single one is the middle; if there are fewer positions,
    some come more than once. ValueError if either number is below 1.
    """
    if count < 1 or positions < 1:
        raise ValueError(f"equally_spaced: got {count} of {positions}, expected at least 1 of 1")
    if count == 1:
        return np.array([(positions - 1) // 2])
    return np.rint(np.linspace(0, positions - 1, count)).astype(np.int64)
