# SPDX-License-Identifier: BSD-3-Clause
"""What a training run is, apart from the net and the videos."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from twostream_ext.errors import SettingsError

SCHEDULES = {
    "scratch": (Fraction(50, 80), Fraction(70, 80)),
    "fine_tune": (Fraction(14, 20),),
}
"""Parts of the run after which the learning rate falls to a tenth (section 5: after 50K and 70K of
80K iterations from scratch, after 14K of 20K when fine-tuning)."""


@dataclass(frozen=True)
class TrainSettings:
    """Mini-batch SGD as in section 5 of the paper, scaled to `iterations`.

    weight_decay: L2 penalty on all parameters. Not in the paper; 5e-4 is Krizhevsky's (2012), of
        whose procedure the paper's is an adaptation.
    schedule: a name of `SCHEDULES`, or pairs (iteration, learning rate) of ascending iterations: each
        rate holds from its iteration on, and `learning_rate` before the first.
    amp: compute in bfloat16 where that loses little (`torch.autocast`); weights stay float32.
    seed: decides all random draws of the run: videos, frames, windows, jitter, dropout.
    checkpoint_every: iterations between checkpoints; the last one is always followed by one.
    """

    iterations: int
    batch_size: int = 256
    learning_rate: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str | tuple[tuple[int, float], ...] = "scratch"
    amp: bool = False
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        _require(self.iterations >= 1, "iterations", self.iterations, "at least 1")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 or more, and below 1")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        self._check_schedule()
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 .. 2**63 - 1")
        _require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")

    def _check_schedule(self) -> None:
        expected = " or ".join(SCHEDULES) + ", or pairs (iteration, learning rate) of ascending iterations"
        if isinstance(self.schedule, str):
            _require(self.schedule in SCHEDULES, "schedule", self.schedule, expected)
            return
        steps = [step for step, _ in self.schedule]
        ascending = steps == sorted(set(steps)) and min(steps, default=0) >= 0
        _require(ascending and all(rate > 0 for _, rate in self.schedule), "schedule", self.schedule, expected)

    def learning_rate_at(self, iteration: int) -> float:
        """The learning rate of `iteration`, counted from 0."""
        if isinstance(self.schedule, str):
            drops = sum(iteration >= part * self.iterations for part in SCHEDULES[self.schedule])
            return self.learning_rate / 10.0**drops
        begun = [rate for step, rate in self.schedule if step <= iteration]
        return begun[-1] if begun else self.learning_rate


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise SettingsError(f"{name} must be {expected}, got {value!r}")
