# SPDX-License-Identifier: BSD-3-Clause
"""torchvision itself, and timm, for tests that use them, also where wheel and torch are built for different devices."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest
import torch

_library = torch.library.Library("torchvision", "FRAGMENT")


def import_torchvision() -> ModuleType:
    """The package; skips the test where it cannot be imported.

    torchvision's wheels on PyPI are linked against the CUDA build of torch. With a CPU build their operators cannot
    load, and importing the package fails for want of their names, which are declared here: no net of timm uses them,
    and no net of flow.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        import torchvision
    except RuntimeError as error:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators(error)
        import torchvision
    module: ModuleType = torchvision
    return module


def import_timm() -> ModuleType:
    """timm, which imports torchvision; skips the test where one of them cannot be imported."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'twostream_ext[timm]'")
    import_torchvision()
    return importlib.import_module("timm")


def _declare_operators(error: RuntimeError) -> None:
    if "operator torchvision::" not in str(error):
        pytest.skip(f"torchvision cannot be imported: {error}")
    names = ["nms", "qnms", "deform_conv2d", "_deform_conv2d_backward"]
    for kind in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool"):
        names += [kind, f"_{kind}_backward"]
    for name in names:
        _library.define(f"{name}(Tensor x) -> Tensor")
