# SPDX-License-Identifier: BSD-3-Clause
"""A net of timm on flow stacks, compiled from the codes to the loss: crops, stacks and net are one graph.

python examples/timm_compiled.py [NAME]         (NAME: a net of timm, resnet18 without; needs a C++ compiler on the CPU)

The operators stand in the graph as they are; torch.compile joins what is around them.
"""

from __future__ import annotations

import sys
import time

import timm
import torch
from torch import Tensor, nn

from twostream_ext import ops


class TrainingStep(nn.Module):
    """The loss of a batch of 8-bit flow fields with their ranges, as a store or `ops.quantize_flow` gives them."""

    def __init__(self, name: str, *, length: int, classes: int, side: int) -> None:
        super().__init__()
        self.net = timm.create_model(name, in_chans=2 * length, num_classes=classes)
        self.side = side

    def forward(self, coded: ops.QuantizedFlow, windows: Tensor, labels: Tensor) -> Tensor:
        codes, lo, step, mean = coded
        stacks = ops.flow_stack(codes, windows, self.side, lo=lo, step=step, mean=mean)
        return nn.functional.cross_entropy(self.net(stacks), labels)


def seconds(step: nn.Module, batch: tuple[ops.QuantizedFlow, Tensor, Tensor], times: int = 3) -> float:
    """The shortest time of a step with its gradients; the first, which compiles, is left out."""
    taken = []
    for _ in range(1 + times):
        started = time.perf_counter()
        step(*batch).backward()
        if batch[1].is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def main(name: str, *, samples: int = 16, length: int = 10, side: int = 224) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    coded = ops.quantize_flow(torch.randn(samples, length, 256, 340, 2, device=device))
    windows = ops.random_windows(torch.tensor([[256, 340]] * samples, device=device), side, seed=0)
    batch = (coded, windows, torch.arange(samples, device=device) % 2)
    step = TrainingStep(name, length=length, classes=2, side=side).to(device)
    print(f"eager:    {seconds(step, batch):.3f} s a step")
    print(f"compiled: {seconds(torch.compile(step, fullgraph=True), batch):.3f} s a step")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "resnet18")
