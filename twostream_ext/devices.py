# SPDX-License-Identifier: BSD-3-Clause
"""What there is to compute with: processors and devices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twostream_ext import _C
from twostream_ext.errors import SettingsError

if TYPE_CHECKING:  # the command counts processors before it knows whether it needs torch, which takes seconds to import
    import torch


def processors() -> int:
    """Number of processors that this process may use: a container or a job may be given fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def find_device(name: str = "auto", *, own_kernels: bool = True) -> torch.device:
    """Choose where to compute: "auto" takes a GPU where torch and our kernels can both use it.

    own_kernels: whether those are needed. SettingsError for an unknown device, or one that is not there.
    """
    import torch

    built = not own_kernels or bool(_C.cuda_architectures())
    usable = torch.cuda.is_available() and built
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    device = parse_device(name)
    if device.type == "cuda" and not usable:
        why = "torch finds no GPU" if built else "twostream_ext is built without CUDA"
        raise SettingsError(f"device is {name!r}, but {why}")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise SettingsError(f"device is {name!r}, but torch finds {torch.cuda.device_count()} GPU(s), counted from 0")
    return device


def parse_device(name: str) -> torch.device:
    """The device of that name, there or not; SettingsError unless it is cpu or cuda."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device is {name!r}, expected auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device is {name!r}, expected auto, cpu or cuda")
    return device
