# SPDX-License-Identifier: BSD-3-Clause
"""Modules that no package gives: examples, scripts and libraries built by a test."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType


def load_module(path: Path, name: str | None = None) -> ModuleType:
    """The module in a file, run anew; its name is by default that of the file."""
    spec = importlib.util.spec_from_file_location(name or path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forget_scripts(folder: Path) -> None:
    """Let the next import of each script of a folder read it anew."""
    for path in folder.glob("[!_]*.py"):  # not __main__: that is the module by which this process was started
        sys.modules.pop(path.stem, None)


def jax_numpy() -> ModuleType | None:
    """JAX, where TWOSTREAM_JAX=1 allows it: once it is imported it warns at each fork, and other tests fork."""
    if os.environ.get("TWOSTREAM_JAX") != "1":
        return None
    return importlib.import_module("jax.numpy")
