# SPDX-License-Identifier: BSD-3-Clause
"""Interleaved timing: each round times every call once, so that a machine's moods meet all of them alike.

Absolute times drift on a shared machine; ratios taken within a round and then their median do not.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from workloads import Call

_SHORTEST_SAMPLE = 1e-3  # seconds: shorter calls are repeated within a sample
_FEWEST_ROUNDS = 3  # of a call that has used up its budget


@dataclass(frozen=True)
class Times:
    """Seconds of each round; NaN where a slow call sat a round out."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.counted)

    @property
    def minimum(self) -> float:
        return min(self.counted)

    @property
    def counted(self) -> list[float]:
        return [each for each in self.seconds if not math.isnan(each)]

    def over(self, other: Times) -> float:
        """How many times longer than the other this takes: the median of the rounds' ratios."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(a / b for a, b in pairs if not (math.isnan(a) or math.isnan(b)))


def interleave(
    calls: Mapping[str, Call],
    device: torch.device,
    rounds: int = 15,
    budget: float = 4.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Time calls round by round; one that has taken `budget` seconds sits out the rest after three rounds.

    The clock, in seconds, is for the CPU; a GPU has its own.
    """
    sample = _cuda_sample(device) if device.type == "cuda" else partial(_cpu_sample, clock)
    names = list(calls)
    repeats = {}
    for name in names:
        calls[name]()
        single = sample(calls[name], 1)
        repeats[name] = max(1, math.ceil(_SHORTEST_SAMPLE / single)) if device.type == "cpu" else 1
    spent = dict.fromkeys(names, 0.0)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)  # nobody always follows the same neighbour
        for name in names[start:] + names[:start]:
            if spent[name] > budget and turn >= _FEWEST_ROUNDS:
                seconds[name].append(math.nan)
                continue
            taken = sample(calls[name], repeats[name])
            spent[name] += taken * repeats[name]
            seconds[name].append(taken)
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


def _cpu_sample(clock: Callable[[], float], call: Call, repeat: int) -> float:
    begin = clock()
    for _ in range(repeat):
        call()
    return (clock() - begin) / repeat


def _cuda_sample(device: torch.device):  # type: ignore[no-untyped-def]
    """Time one call between two events, on a cold second-level cache."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    flushed = torch.empty(max(2 * cache, 1 << 26), dtype=torch.uint8, device=device)

    def sample(call: Call, repeat: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushed.zero_()  # also keeps the device busy while the host launches what follows
        begin.record()
        for _ in range(repeat):
            call()
        end.record()
        end.synchronize()
        return max(begin.elapsed_time(end), 1e-6) / 1e3 / repeat

    return sample
