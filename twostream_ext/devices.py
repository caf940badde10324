# SPDX-License-Identifier: BSD-3-Clause
"""Choosing where to compute."""

from __future__ import annotations

import torch

from twostream_ext import ops
from twostream_ext.errors import SettingsError


def find_device(name: str = "auto") -> torch.device:
    """Choose where to compute: "auto" takes a GPU where torch and our kernels can both use it.

    SettingsError for an unknown device, or one that is not there.
    """
    usable = torch.cuda.is_available() and ops.built_with_cuda()
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    device = parse_device(name)
    if device.type == "cuda" and not usable:
        why = "torch finds no GPU" if ops.built_with_cuda() else "twostream_ext is built without CUDA"
        raise SettingsError(f"device is {name!r}, but {why}")
    return device


def parse_device(name: str) -> torch.device:
    """The device of that name, there or not; SettingsError unless it is cpu or cuda."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device is {name!r}, expected auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device is {name!r}, expected auto, cpu or cuda")
    return device
