# SPDX-License-Identifier: BSD-3-Clause
"""What a benchmark declares, once for pytest and for the table: workloads, implementations, bytes, limits; seeded data.

A `Workload` builds a `Problem` (inputs, a NumPy reference, the bytes that have to move) on a device; an
`Implementation` turns a problem into a call without arguments. `check` compares the result of that call with the
reference, and nothing is timed before it.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

OURS = "twostream_ext"
BOTH = ("cpu", "cuda")
_DISTINCT = 32
Call = Callable[[], Any]


class UnavailableError(Exception):
    """A peer that cannot run here, and why."""


class WrongResultError(Exception):
    """A result that differs from the reference: it is not worth timing."""


@dataclass(frozen=True)
class Setting:
    """Where and how large: `quick` shrinks every shape, to see that all works."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    quick: bool = False

    def sizes(self, count: int, length: int = 10) -> Sizes:
        return Sizes(min(count, 2), min(length, 4), 40, 48, 24) if self.quick else Sizes(count, length)


@dataclass(frozen=True)
class Sizes:
    """N stacks of L fields [H, W, 2], cropped to a square."""

    count: int
    length: int = 10
    height: int = 256
    width: int = 340
    crop: int = 224

    @property
    def distinct(self) -> int:
        """Large batches repeat so many samples, so that making and checking them takes less time than measuring."""
        return min(self.count, _DISTINCT)

    def spread(self, samples: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Repeat distinct samples up to the whole batch, on the device."""
        return samples.to(device).repeat(self.count // self.distinct, *[1] * (samples.dim() - 1))


@dataclass(frozen=True)
class Move:
    """A part of the limit: `fill`, `read` or `copy` (half read, half written) of so many bytes, or a `launch`."""

    kind: str
    bytes: int = 0


@dataclass
class Problem:
    """One workload on one device."""

    inputs: SimpleNamespace
    reference: Callable[[], Any]
    """The right result for the distinct samples: a tensor, or several."""
    tolerances: Sequence[float]
    """For each tensor of the result: largest error allowed, relative to max(1, |right|)."""
    shapes: str
    read: int
    written: int
    counted: str
    """How the bytes were counted, in words."""
    limit: tuple[Move, ...]

    @cached_property
    def expected(self) -> tuple[torch.Tensor, ...]:
        return _as_tensors(self.reference())

    @property
    def bytes(self) -> int:
        return self.read + self.written


@dataclass(frozen=True)
class Implementation:
    """One way to do it. `prepare` does once what need not be repeated for each batch."""

    name: str
    prepare: Callable[[Problem], Call]
    needs: str | None = None
    """The module without which it cannot run."""
    devices: tuple[str, ...] = BOTH
    part: bool = False
    """A part of our own call, timed to see where the time goes; not a peer, and its result is not compared."""
    tolerance: float = 0.0
    """Allowed beside the problem's, where the method itself is coarser."""

    def call(self, problem: Problem) -> Call:
        """Give a call whose result was found right; raise UnavailableError or WrongResultError."""
        with warnings.catch_warnings():
            if self.name != OURS:
                warnings.simplefilter("ignore")  # what peers warn of while they import and compile is their own affair
            call = self._prepared(problem)
            _forget(problem)
            check(self, problem, call())
        return call

    def _prepared(self, problem: Problem) -> Call:
        if self.needs is not None:
            try:
                importlib.import_module(self.needs)
            except Exception as error:  # a package that is there may still not load: wrong torch, no CUDA
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise UnavailableError(f"{self.needs} cannot be imported: {reason}") from error
        return self.prepare(problem)


@dataclass(frozen=True)
class Workload:
    """A named problem and who solves it; the first implementation is ours."""

    name: str
    build: Callable[[Setting], Problem]
    implementations: tuple[Implementation, ...]
    devices: tuple[str, ...] = BOTH

    def those_on(self, device: torch.device) -> list[Implementation]:
        return [each for each in self.implementations if device.type in each.devices]


@dataclass(frozen=True)
class Growth:
    """Workloads over the batch size, for the chart: label -> batch size -> workload."""

    counts: tuple[int, ...]
    workloads: dict[str, Callable[[int], Workload]] = field(default_factory=dict)


def _forget(problem: Problem) -> None:
    """Overwrite the outputs, or a call that writes nothing would be judged by the last one's result."""
    out = getattr(problem.inputs, "out", None)
    for tensor in () if out is None else _as_tensors(out):
        tensor.fill_(math.nan if tensor.is_floating_point() else 255)


def check(implementation: Implementation, problem: Problem, result: Any) -> None:
    """Raise WrongResultError unless the result is the reference's within the tolerance."""
    if implementation.part:
        return
    given, expected = _as_tensors(result), problem.expected
    if len(given) != len(expected):
        raise WrongResultError(f"{implementation.name}: {len(given)} tensors instead of {len(expected)}")
    for number, (got, answer, tolerance) in enumerate(zip(given, expected, problem.tolerances, strict=True)):
        if got.numel() % answer.numel() != 0:
            raise WrongResultError(
                f"{implementation.name}: tensor {number} is {tuple(got.shape)}, not {tuple(answer.shape)}"
            )
        right = answer.to(got.device, torch.float32)
        error = (got.detach().to(torch.float32).reshape(-1, *right.shape) - right).abs()
        worst = float((error / right.abs().clamp(min=1)).max())
        if not worst <= tolerance + implementation.tolerance:  # so written, a NaN is wrong too
            raise WrongResultError(
                f"{implementation.name}: tensor {number} is off by {worst:.3g} (allowed: {tolerance:.3g})"
            )


def _as_tensors(result: Any) -> tuple[torch.Tensor, ...]:
    if isinstance(result, torch.Tensor):
        return (result,)
    flat = [each for item in result for each in (item if isinstance(item, (list, tuple)) else [item])]
    return tuple(torch.as_tensor(each) for each in flat)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile for the shapes of one workload, forgetting those of the last."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise UnavailableError("torch.compile needs a C++ compiler")
    torch.compiler.reset()
    return torch.compile(function, dynamic=False, fullgraph=True)


# ---- seeded data ---------------------------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache(maxsize=1)  # neighbouring workloads share it: not to be written to
def smooth_flow(sizes: Sizes, seed: int = 0, largest: float = 6.0) -> torch.Tensor:
    """Displacements in pixels of the distinct samples: planar [N, L, 2, H, W] float32, smooth, with a little noise."""
    coarse = torch.rand(sizes.distinct * sizes.length, 2, 6, 8, generator=generator(seed)) * (2 * largest) - largest
    fields = F.interpolate(coarse, (sizes.height, sizes.width), mode="bilinear", align_corners=True)
    noise = torch.rand(fields.shape[1:], generator=generator(seed + 1)) * 0.1 - 0.05
    return (fields + noise).reshape(sizes.distinct, sizes.length, 2, sizes.height, sizes.width)


@lru_cache(maxsize=1)
def coded_flow(sizes: Sizes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """smooth_flow, coded: likewise not to be written to."""
    return codes_of(smooth_flow(sizes))


def codes_of(flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Code planar fields with their own ranges: uint8 codes [N, L, 2, H, W], then lo, step and mean [N, L, 2]."""
    lo, high = flow.amin((-2, -1)), flow.amax((-2, -1))
    step = (high - lo) / 255
    codes = ((flow - lo[..., None, None]) / step[..., None, None]).round_().clamp_(0, 255).to(torch.uint8)
    mean = lo + step * codes.to(torch.float32).mean((-2, -1), dtype=torch.float64).to(torch.float32)
    return codes, lo, step, mean


def interleaved(planar: torch.Tensor) -> torch.Tensor:
    """[N, L, 2, H, W] -> contiguous [N, L, H, W, 2]."""
    return planar.permute(0, 1, 3, 4, 2).contiguous()


def some_windows(count: int, per_sample: int, height: int, width: int, crop: int, seed: int = 2) -> torch.Tensor:
    """Random windows int32 [N, K, 3]; every second one flipped."""
    shape = (count, per_sample)
    top = torch.randint(0, height - crop + 1, shape, generator=generator(seed), dtype=torch.int32)
    left = torch.randint(0, width - crop + 1, shape, generator=generator(seed + 1), dtype=torch.int32)
    flip = (torch.arange(count * per_sample, dtype=torch.int32) % 2).reshape(shape)
    return torch.stack([top, left, flip], -1)


def describe(*tensors: torch.Tensor | Sequence[torch.Tensor]) -> str:
    """Name shapes and dtypes: inputs, then the output."""
    words = []
    for each in tensors:
        if isinstance(each, torch.Tensor):
            words.append(f"{list(each.shape)} {str(each.dtype).removeprefix('torch.')}")
        else:
            words.append(f"{len(each)} x {describe(each[0])} and other sizes")
    return " -> ".join(words)


def nbytes(*tensors: torch.Tensor) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)
