# SPDX-License-Identifier: BSD-3-Clause
"""What torch.compile is tested with: always what traces and differentiates, and inductor where it finds a compiler."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

needs_cxx = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
BACKENDS = ("aot_eager", pytest.param("inductor", marks=needs_cxx))
BACKENDS_IF_SLOW = ("aot_eager", pytest.param("inductor", marks=(needs_cxx, pytest.mark.slow)))


@pytest.fixture
def fresh_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing compiled before counts, in this process or on disk; and no pool of compiling processes is left behind."""
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()
    with config.patch(compile_threads=1):
        yield
    torch.compiler.reset()
