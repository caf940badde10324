# SPDX-License-Identifier: BSD-3-Clause
"""Tensors placed where an access outside them shows: among known bytes, or beside memory that must not be touched."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

import torch

CANARY = 0xA5
MARGIN = 256  # bytes on both sides
PAGE = mmap.PAGESIZE
NO_ACCESS = 0


class Embedded:
    """A tensor of given strides inside a larger buffer of canaries."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        *,
        order: Sequence[int] | None = None,
        gaps: Sequence[int] | None = None,
        offset: int = 0,
    ) -> None:
        """`order` lists the dimensions from the slowest in memory to the fastest, `gaps` what is left free after each,
        `offset` moves the first element (counted in elements) from an address that is a multiple of 64 bytes."""
        order = list(order if order is not None else range(len(shape)))
        gaps = list(gaps if gaps is not None else [0] * len(shape))
        padded = [shape[d] + gap for d, gap in zip(order, gaps, strict=True)]
        count = 1
        for extent in padded:
            count *= extent
        self._item = dtype.itemsize
        first = MARGIN // self._item + offset
        elements = first + count + MARGIN // self._item
        self._bytes = torch.full((elements * self._item,), CANARY, dtype=torch.uint8, device=device)
        block = self._bytes.view(dtype)[first : first + count].view(padded)
        block = block[tuple(slice(0, shape[d]) for d in order)]
        self.tensor = block.permute([order.index(d) for d in range(len(shape))])

    def intact(self) -> bool:
        """Tell whether every byte around the tensor's elements still holds its canary."""
        inside = torch.zeros(self._bytes.numel() // self._item, dtype=torch.bool, device=self._bytes.device)
        view = self.tensor
        inside.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
        return bool((self._bytes.view(-1, self._item)[~inside] == CANARY).all())


def embedded_copy(tensor: torch.Tensor, **layout: object) -> torch.Tensor:
    """Copy `tensor` into a buffer of canaries."""
    copy = Embedded(tensor.shape, tensor.dtype, tensor.device, **layout).tensor  # type: ignore[arg-type]
    return copy.copy_(tensor)


def reserved(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Elements whose memory comes into being only where it is touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    return torch.frombuffer(mmap.mmap(-1, size * dtype.itemsize, flags=flags), dtype=dtype)


def at_page_edge(tensor: torch.Tensor, *, end: bool) -> torch.Tensor:
    """Copy `tensor` to memory that ends (or else begins) where any access is a segmentation fault."""
    size = tensor.numel() * tensor.element_size()
    pages = -(-size // PAGE)
    mapping = reserved((pages + 2) * PAGE, torch.uint8)
    start = (1 + pages) * PAGE - size if end else PAGE
    copy = mapping[start : start + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for page in (0, 1 + pages):
        assert protect(mapping.data_ptr() + page * PAGE, PAGE, NO_ACCESS) == 0
    return copy
