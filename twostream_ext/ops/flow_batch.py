# SPDX-License-Identifier: BSD-3-Clause
"""A batch of flow fields of different sizes in one buffer, which goes to a device with one copy."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch

_ALIGNMENT = 64  # bytes: a cache line, and whole vectors for every kernel
_PER_FIELD: dict[str, tuple[int, ...]] = {"lo": (2,), "step": (2,), "mean": (2,), "camera": (2, 3)}


@dataclasses.dataclass(frozen=True)
class FlowBatch:
    """N stacks of L flow fields, of any sizes, with their coding: all views of `buffer`.

    Every operator that takes flow takes a FlowBatch too, and finds `lo`, `step` and (where a mean is subtracted) `mean`
    in it; `camera` is given to a stack where it is to be subtracted. Make one with `pack` from tensors, or with `empty`
    and write into `fields` and the tables. A DataLoader pins it and passes it between processes as it does a tensor.
    """

    buffer: torch.Tensor
    """uint8 `[bytes]`: the tables, then the planes `[L, 2, H_i, W_i]` of each sample."""
    packed_sizes: tuple[tuple[int, int], ...]
    """Height and width of the fields of each sample in the buffer, in pixels."""
    length: int
    """L, the fields of a stack."""
    dtype: torch.dtype
    """Of the fields: uint8 (codes), float32, float16 or bfloat16."""
    tables: tuple[str, ...]
    """Which of "lo", "step", "mean" and "camera" the batch carries."""
    first: int = 0
    """Of the samples in the buffer, the first that belongs to the batch; see `part`."""
    last: int | None = None
    """And the one after the last; None: to the end."""

    @classmethod
    def empty(
        cls,
        sizes: Sequence[Sequence[int]],
        length: int,
        *,
        dtype: torch.dtype = torch.uint8,
        means: bool = True,
        camera: bool = False,
        device: torch.device | str | None = None,
        pin_memory: bool = False,
    ) -> FlowBatch:
        """Allocate a batch to write into; codes (uint8) get `lo` and `step`.

        Args:
            sizes: height and width of each sample's fields.
            length: L, the fields of a stack.
            dtype: uint8, float32, float16 or bfloat16.
            means: whether the batch carries the mean displacement of each field.
            camera: whether it carries the camera's motion in each field.
            device: the CPU without it, whatever torch's default device is.
            pin_memory: as for `torch.empty`.

        Raises:
            ValueError: no sample, or a size or a length below 1.
        """
        pairs = tuple((int(height), int(width)) for height, width in sizes)
        if not pairs or min(min(pair) for pair in pairs) < 1 or length < 1:
            raise ValueError(f"FlowBatch: sizes and length must be at least 1, got {pairs} and {length}")
        carried = {"lo": dtype == torch.uint8, "step": dtype == torch.uint8, "mean": means, "camera": camera}
        tables = tuple(name for name, is_there in carried.items() if is_there)
        place = "cpu" if device is None else device
        batch = cls(torch.empty(0, dtype=torch.uint8, device=place), pairs, int(length), dtype, tables)
        buffer = torch.empty(batch._offsets[-1], dtype=torch.uint8, device=place, pin_memory=pin_memory)
        return dataclasses.replace(batch, buffer=buffer)

    @classmethod
    def pack(
        cls,
        fields: Sequence[torch.Tensor],
        *,
        lo: torch.Tensor | None = None,
        step: torch.Tensor | None = None,
        mean: torch.Tensor | None = None,
        camera: torch.Tensor | None = None,
        pin_memory: bool = False,
    ) -> FlowBatch:
        """Copy N tensors `[L, H_i, W_i, 2]` of one dtype and device, and their tables, into one buffer.

        lo, step, mean: float32 `[N, L, 2]`. camera: float32 `[N, L, 2, 3]`, as from `camera_motion`.

        Raises:
            ValueError: no tensors, tensors of other shapes, or codes without `lo` and `step`.
        """
        if not fields or any(field.dim() != 4 or field.shape[-1] != 2 for field in fields):
            raise ValueError(
                f"FlowBatch: fields must be tensors [L, H, W, 2], got {[tuple(field.shape) for field in fields]}"
            )
        first = fields[0]
        if (first.dtype == torch.uint8) != (lo is not None and step is not None):
            raise ValueError("FlowBatch: lo and step belong to uint8 fields, and to no others")
        batch = cls.empty(
            [field.shape[1:3] for field in fields],
            first.shape[0],
            dtype=first.dtype,
            means=mean is not None,
            camera=camera is not None,
            device=first.device,
            pin_memory=pin_memory,
        )
        for target, field in zip(batch.fields, fields, strict=True):
            if field.dtype != batch.dtype or field.shape != target.shape:
                raise ValueError(
                    f"FlowBatch: fields must be of one dtype and length, {batch.dtype} {tuple(target.shape)}, "
                    f"got {field.dtype} {tuple(field.shape)}"
                )
            target.copy_(field)
        for name, given in (("lo", lo), ("step", step), ("mean", mean), ("camera", camera)):
            table = batch._table(name)
            if table is not None and given is not None:
                if given.shape != table.shape:
                    raise ValueError(f"FlowBatch: {name} must be {tuple(table.shape)}, got {tuple(given.shape)}")
                table.copy_(given)
        return batch

    def __len__(self) -> int:
        return len(self.sizes)

    def __reduce__(self) -> tuple[Any, ...]:  # without the cached views, which would travel as tensors of their own
        return FlowBatch, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def part(self, first: int, last: int) -> FlowBatch:
        """Give the samples first, ..., last - 1, those that there are, as a batch on the same buffer.

        For passes over a batch that went to a device as a whole: `to` and `pin_memory` still move the whole buffer.
        """
        begin, end, _ = slice(first, last).indices(len(self))
        return dataclasses.replace(self, first=self.first + begin, last=self.first + end)

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each sample's fields, in pixels."""
        return self.packed_sizes[self.first : self.last]

    @property
    def device(self) -> torch.device:
        return self.buffer.device

    @functools.cached_property
    def fields(self) -> list[torch.Tensor]:
        """N views `[L, H_i, W_i, 2]` of planes: x and y lie apart."""
        views = []
        for offset, (height, width) in zip(self._offsets[self.first :], self.sizes, strict=False):
            count = self.length * 2 * height * width * self.dtype.itemsize
            planes = self.buffer[offset : offset + count].view(self.dtype)
            views.append(planes.view(self.length, 2, height, width).permute(0, 2, 3, 1))
        return views

    @functools.cached_property
    def lo(self) -> torch.Tensor | None:
        """float32 `[N, L, 2]`, pixels: displacement = lo + step * code; None for float fields."""
        return self._table("lo")

    @functools.cached_property
    def step(self) -> torch.Tensor | None:
        """float32 `[N, L, 2]`, pixels; None for float fields."""
        return self._table("step")

    @functools.cached_property
    def mean(self) -> torch.Tensor | None:
        """float32 `[N, L, 2]`, pixels, or None: the mean of each field."""
        return self._table("mean")

    @functools.cached_property
    def camera(self) -> torch.Tensor | None:
        """float32 `[N, L, 2, 3]`, pixels, or None: the affine map that most of each field follows."""
        return self._table("camera")

    def pin_memory(self) -> FlowBatch:
        """Give the batch in page-locked memory, from which a copy to a device can run beside other work."""
        return dataclasses.replace(self, buffer=self.buffer.pin_memory())

    def is_pinned(self) -> bool:
        return self.buffer.is_pinned()

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FlowBatch:
        """Give the batch on a device: one copy, or itself if it is there."""
        buffer = self.buffer.to(device, non_blocking=non_blocking)
        return self if buffer is self.buffer else dataclasses.replace(self, buffer=buffer)

    @functools.cached_property
    def _offsets(self) -> list[int]:
        """Where the planes of each sample in the buffer begin, and where the last end, in bytes."""
        offsets = [_aligned(sum(map(self._table_bytes, self.tables)))]
        for height, width in self.packed_sizes:
            offsets.append(_aligned(offsets[-1] + self.length * 2 * height * width * self.dtype.itemsize))
        return offsets

    def _table_bytes(self, name: str) -> int:
        return len(self.packed_sizes) * self.length * math.prod(_PER_FIELD[name]) * torch.float32.itemsize

    def _table(self, name: str) -> torch.Tensor | None:
        if name not in self.tables:
            return None
        begin = sum(map(self._table_bytes, self.tables[: self.tables.index(name)]))
        table = self.buffer[begin : begin + self._table_bytes(name)].view(torch.float32)
        return table.view(len(self.packed_sizes), self.length, *_PER_FIELD[name])[self.first : self.last]


def _aligned(count: int) -> int:
    return (count + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
