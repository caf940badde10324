# SPDX-License-Identifier: BSD-3-Clause
"""Your own flow in your own training loop: the workers read, one kernel call crops, flips and stacks a whole batch.

python examples/own_dataset.py FLOW      (FLOW: a flow store, or <class>/<video>.npy, float32 [fields, H, W, 2], pixels)

A window is drawn for each sample of a batch by its number in the training, so that neither the batch size nor the
workers change what is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from twostream_ext import ops

Sample = tuple[Tensor, int]  # L fields [L, H, W, 2], and the class
Batch = tuple[ops.FlowBatch, Tensor]


class ArrayFlow(Dataset[Sample]):
    """Stacks of `length` consecutive fields from files of NumPy's, from any place in each; their sizes may differ."""

    def __init__(self, root: Path, length: int) -> None:
        self.paths, self.length = sorted(root.glob("*/*.npy")), length
        self.classes = sorted({path.parent.name for path in self.paths})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        fields = np.load(self.paths[index], mmap_mode="r")  # only what is taken is read
        start = int(torch.randint(len(fields) - self.length + 1, ()))
        taken = np.array(fields[start : start + self.length])
        return torch.from_numpy(taken), self.classes.index(self.paths[index].parent.name)

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """One buffer for all fields: it is passed between processes, pinned and copied to a GPU as one."""
        fields, labels = zip(*samples, strict=True)
        return ops.FlowBatch.pack(fields), torch.tensor(labels)


class StoredFlow(Dataset[Batch]):
    """The same from a flow store, as `twostream extract` writes it: a batch is read and decoded in one call."""

    def __init__(self, root: Path, length: int) -> None:
        from twostream_ext.flow import FlowStore

        self.store, self.length = FlowStore.open(root), length
        self.names = list(self.store)
        self.classes = sorted({name.partition("/")[0] for name in self.names})

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        from twostream_ext.flow import read_flow_batch

        clips = [self.store[self.names[index]] for index in indices]
        starts = [int(torch.randint(clip.count_stacks(self.length), ())) for clip in clips]
        labels = [self.classes.index(self.names[index].partition("/")[0]) for index in indices]
        return read_flow_batch(clips, starts, self.length, threads=1), torch.tensor(labels)

    @staticmethod
    def collate(batch: Batch) -> Batch:
        return batch


def stacks(fields: ops.FlowBatch, side: int, *, seed: int, first: int) -> Tensor:
    """Random windows of a batch, float32 [N, 2L, side, side], less their fields' means, on the device of the batch."""
    sizes = torch.tensor(fields.sizes, device=fields.device)
    windows = ops.random_windows(sizes, side, seed=seed, offset=first)
    return ops.flow_stack(fields, windows, side, subtract_mean=True)


def train(
    data: ArrayFlow | StoredFlow, net: nn.Module, *, side: int, epochs: int, workers: int, batch_size: int = 16
) -> Iterator[float]:
    """Train a net of stacks [N, 2L, side, side]; give the mean loss of each epoch."""
    device = next(net.parameters()).device
    on_gpu = device.type == "cuda"
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=workers, collate_fn=data.collate, pin_memory=on_gpu)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    seen = 0
    for _ in range(epochs):
        losses = []
        for fields, labels in loader:
            inputs = stacks(fields.to(device, non_blocking=True), side, seed=0, first=seen)
            loss = nn.functional.cross_entropy(net(inputs), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
            losses.append(loss.detach())
        yield float(torch.stack(losses).mean())


def small_net(length: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2 * length, 16, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)
    )


def main(root: Path, *, side: int = 64, length: int = 10, epochs: int = 20, workers: int = 2) -> list[float]:
    data = ArrayFlow(root, length) if any(root.glob("*/*.npy")) else StoredFlow(root, length)
    net = small_net(length, len(data.classes)).to("cuda" if torch.cuda.is_available() else "cpu")
    losses = []
    for loss in train(data, net, side=side, epochs=epochs, workers=workers):
        losses.append(loss)
        print(f"epoch {len(losses)}: loss {loss:.3f}")
    return losses


if __name__ == "__main__":
    main(Path(sys.argv[1]))
