# SPDX-License-Identifier: BSD-3-Clause
"""Training CNN-M-2048 with our local_response_norm and with torch's: seconds of a step, and the share of LRN in it.

    python benchmarks/bench_cnn_m_2048.py [--rounds 5] [--threads 1] [--out DIR] [--quick]

A step is forward, softmax loss, backward and SGD with momentum of the temporal net (L = 10, 101 classes, float32) on a
batch in memory. All variants are timed interleaved on the same weights, in the channels-last layout that the package
trains in; torch's LRN also in a net of planes, its usual layout. Loss and gradient of each are compared with ours
before anything is timed. Ratios are of processor time, which others on the machine disturb less than the clock; the
share of LRN is what a step takes longer than one of the net without it. Writes
OUT/cnn_m_2048.json (benchmarks/results), with --quick (a tiny net) build/benchmarks/cnn_m_2048.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import torch
import torch.nn.functional as F
from timing import Times
from torch import Tensor, nn
from workloads import OURS, Call, WrongResultError, describe, generator

from twostream_ext.models import TemporalNet

ROOT = Path(__file__).resolve().parent.parent
TORCH, PLANES, WITHOUT = "torch", "torch, in planes", "without LRN"
_TOLERANCE = 2e-2  # of the norms of loss and gradient: a rounding may give a window another maximum, which moves 0.6 %


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    batch, width, size = (2, 0.03, 57) if options.quick else (16, 1.0, 224)
    net = TemporalNet(101, length=10, width=width, input_size=size, dropout=0.9).train()
    x = torch.randn(batch, 20, size, size, generator=generator()) * 3
    wall, processor = _interleave(_steps(net, x, torch.arange(batch)), options.rounds)
    record = {
        **machine.facts(torch.device("cpu"), options.threads),
        "load": os.getloadavg()[0],
        "workload": "training step of the temporal CNN-M-2048, L = 10, 101 classes, float32, SGD with momentum",
        "shapes": describe(x),
        "implementations": [_entry(name, wall[name], processor, batch) for name in wall],
    }
    out = options.out or (ROOT / "build" / "benchmarks" if options.quick else ROOT / "benchmarks" / "results")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cnn_m_2048.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["implementations"], indent=1))
    print(path)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    parser.add_argument("--quick", action="store_true", help="a tiny net, only to see that it works")
    return parser.parse_args(arguments)


def _steps(net: TemporalNet, x: Tensor, labels: Tensor) -> dict[str, Call]:
    """The step of each variant, its loss and gradient found right."""
    planes = copy.deepcopy(net).to(memory_format=torch.contiguous_format)
    ours, of_torch = net.backbone.norm1, nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    last = x.contiguous(memory_format=torch.channels_last)
    variants = {
        OURS: (net, ours, last),
        TORCH: (net, of_torch, last),
        PLANES: (planes, of_torch, x),
        WITHOUT: (net, nn.Identity(), last),
    }
    expected = _loss_and_gradient(*variants[OURS], labels)
    for name in (TORCH, PLANES):
        for got, right in zip(_loss_and_gradient(*variants[name], labels), expected, strict=True):
            error = float((got - right).norm() / right.norm())
            if not error <= _TOLERANCE:
                raise WrongResultError(f"{name}: loss or gradient is off by {error:.3g} (allowed: {_TOLERANCE:g})")
    # A learning rate that leaves the weights as they are: the speed does not depend on it, a net that diverged would.
    optimizers = {each: torch.optim.SGD(each.parameters(), 1e-9, momentum=0.9) for each in (net, planes)}
    return {
        name: lambda variant=variant, optimizer=optimizers[variant[0]]: _step(*variant, labels, optimizer)
        for name, variant in variants.items()
    }


def _loss_and_gradient(net: TemporalNet, norm: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of the first layer, which the gradient reaches through everything else."""
    net.backbone.norm1 = norm
    net.zero_grad()
    torch.manual_seed(0)  # the same units dropped
    loss = F.cross_entropy(net(x), labels)
    loss.backward()
    return loss.detach(), net.backbone.conv1.weight.grad.clone()


def _step(net: TemporalNet, norm: nn.Module, x: Tensor, labels: Tensor, optimizer: torch.optim.SGD) -> None:
    net.backbone.norm1 = norm
    optimizer.zero_grad()
    F.cross_entropy(net(x), labels).backward()
    optimizer.step()


def _interleave(steps: dict[str, Call], rounds: int) -> tuple[dict[str, Times], dict[str, Times]]:
    """Seconds of the clock and of the processors, round by round, after one round that is not counted."""
    wall, processor = ({name: [] for name in steps} for _ in range(2))
    for _ in range(rounds + 1):
        for name, step in steps.items():
            begin = time.perf_counter(), time.process_time()
            step()
            wall[name].append(time.perf_counter() - begin[0])
            processor[name].append(time.process_time() - begin[1])
    counted = ({name: Times(tuple(taken[1:])) for name, taken in each.items()} for each in (wall, processor))
    return next(counted), next(counted)


def _entry(name: str, wall: Times, processor: dict[str, Times], batch: int) -> dict[str, Any]:
    taken = processor[name]
    entry: dict[str, Any] = {
        "name": name,
        "samples_per_processor_second": batch / taken.median,
        "processor_median_s": taken.median,
        "processor_minimum_s": taken.minimum,
        "median_s": wall.median,
        "minimum_s": wall.minimum,
        "rounds": len(taken.counted),
    }
    if name in (OURS, TORCH):  # of the layout of the net without
        entry["share_of_lrn"] = 1 - 1 / taken.over(processor[WITHOUT])
    if name in (TORCH, PLANES):
        entry["ours_is_times_faster"] = taken.over(processor[OURS])
    return entry


if __name__ == "__main__":
    raise SystemExit(main())
