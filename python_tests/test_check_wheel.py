# SPDX-License-Identifier: BSD-3-Clause
"""The check of wheels before they are published: what must not be in one is told, by name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from modules import load_module

from twostream_ext import _C

SCRIPT = Path(__file__).parents[1] / ".ci" / "check_wheel.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="no .ci beside the tests")

NAMES = [
    "twostream_ext/__init__.py",
    "twostream_ext/_C.cpython-313-x86_64-linux-gnu.so",
    "twostream_ext/py.typed",
    "twostream_ext/lib/libtwostream.so",
    "twostream_ext/include/twostream/twostream.h",
    "twostream_ext/share/cmake/twostream_ext/twostream_ext-config.cmake",
    "twostream_ext-0.1.0.dist-info/RECORD",
    "twostream_ext-0.1.0.dist-info/licenses/LICENSE",
    "twostream_ext-0.1.0.dist-info/licenses/csrc/third_party/dlpack/LICENSE",
    "twostream_ext-0.1.0.dist-info/licenses/csrc/third_party/cuda_runtime/NOTICE",
]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_module(SCRIPT)


def test_a_wheel_holds_what_it_must_and_nothing_else(check: ModuleType) -> None:
    assert list(check._of_names(NAMES)) == []
    for lacking in NAMES:
        wanted = not lacking.endswith(("__init__.py", "RECORD"))
        found = list(check._of_names([name for name in NAMES if name != lacking]))
        assert len(found) == wanted
        assert all(fault.startswith("lacks ") for fault in found)
    for unwanted in (
        "python_tests/stores.py",
        "twostream_ext/test_flow.py",
        "twostream_ext/csrc/flow_stack.cu",
        "twostream_ext/__pycache__/errors.cpython-313.pyc",
        "twostream_ext/lib/libtwostream.a",
    ):
        assert list(check._of_names([*NAMES, unwanted])) == [f"holds {unwanted}"]


def test_a_wheel_is_small(check: ModuleType) -> None:
    assert list(check._of_sizes(4.4e6, 7.9e6)) == []
    (fault,) = check._of_sizes(4.6e6, 7.9e6)
    assert fault == "the wheel has 4.60 MB, more than 4.5"
    (fault,) = check._of_sizes(4.4e6, 8.1e6)
    assert fault == "installed, it has 8.10 MB, more than 8"


def test_a_library_needs_the_system_alone(check: ModuleType) -> None:
    assert list(check._of_needed(Path(_C.__file__))) == []
    found = list(check._of_needed(Path(torch._C.__file__)))
    assert any("needs libtorch_python.so" in fault for fault in found)
