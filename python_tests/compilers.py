# SPDX-License-Identifier: BSD-3-Clause
"""What torch.compile is tested with: always what traces and differentiates, and inductor where it finds a compiler."""

from __future__ import annotations

import shutil

import pytest

needs_cxx = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
BACKENDS = ("aot_eager", pytest.param("inductor", marks=needs_cxx))
BACKENDS_IF_SLOW = ("aot_eager", pytest.param("inductor", marks=(needs_cxx, pytest.mark.slow)))
