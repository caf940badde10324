# SPDX-License-Identifier: BSD-3-Clause
"""Calls leave nothing behind, neither in Python's memory nor in the process's."""

from __future__ import annotations

import gc
import mmap
import sys
from pathlib import Path

import pytest
import torch
from operators import CASES, EXAMPLES

from twostream_ext import ops

CALLS = 10_000
WARM_UP = 2_000
BLOCKS = 200  # of Python objects; a leak would leave one a call at least
BYTES = 384 * 1024  # of resident memory: 40 bytes a call


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def growth(call):
    """Growth of resident memory and of Python's blocks over CALLS calls."""
    for _ in range(WARM_UP):
        call()
    gc.collect()
    memory, blocks = resident(), sys.getallocatedblocks()
    for _ in range(CALLS):
        call()
    gc.collect()
    return resident() - memory, sys.getallocatedblocks() - blocks


@pytest.mark.unsanitized
@pytest.mark.parametrize("name", EXAMPLES)
def test_calls_leak_nothing(name):
    memory, blocks = growth(EXAMPLES[name])
    assert blocks < BLOCKS
    assert memory < BYTES


@pytest.mark.unsanitized
def test_lists_of_samples_leak_nothing():
    memory, blocks = growth(CASES["flow_stack ragged uint8"])
    assert blocks < BLOCKS
    assert memory < BYTES


@pytest.mark.unsanitized
def test_refusals_leak_nothing():
    flow, windows = torch.zeros(1, 2, 5, 6, 2), torch.zeros(1, 3, dtype=torch.int32)

    def refused():
        for wrong, place in ((flow.double(), windows), (flow, windows + 3)):
            try:
                ops.flow_stack(wrong, place, 4)
            except (TypeError, ValueError):
                continue
            raise AssertionError("not refused")

    memory, blocks = growth(refused)
    assert blocks < BLOCKS
    assert memory < BYTES
