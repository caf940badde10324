# SPDX-License-Identifier: BSD-3-Clause
"""What pyproject.toml and CITATION.cff say of the package, held against each other and against what is installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from modules import load_module
from packaging.specifiers import SpecifierSet

import twostream_ext

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / ".ci" / "lowest_bounds.py"


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_is_of_this_version() -> None:
    citation = dict(
        re.findall(r'^(\w+): "?([^"\n]+)', (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert citation["version"] == twostream_ext.__version__
    assert citation["license"] == project()["license"]


def test_the_classifiers_are_the_pythons_that_are_admitted() -> None:
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(project()["classifiers"]), re.MULTILINE)
    admitted = SpecifierSet(project()["requires-python"])
    assert named == [f"3.{minor}" for minor in range(30) if f"3.{minor}.0" in admitted]


@pytest.mark.skipif(not SCRIPT.exists(), reason="no .ci beside the tests")
def test_lowest_bounds_are_the_highest_of_those_that_are_named() -> None:
    bounds = load_module(SCRIPT).lowest_bounds(
        {
            "dependencies": ["torch>=2.10", "one>=1.9,!=1.9.3"],
            "optional-dependencies": {
                "a": ["one>=1.10", 'two>=3; python_version < "3.11"', "exact==4"],
                "b": ["twostream_ext[a]", "one", "of_any_version"],
            },
        }
    )
    assert bounds == {"one": "1.10", "two": "3"}


@pytest.mark.skipif(not SCRIPT.exists(), reason="no .ci beside the tests")
def test_each_package_that_an_extra_brings_has_a_lowest_version() -> None:
    extras = project()["optional-dependencies"]
    bounds = load_module(SCRIPT).lowest_bounds(project())
    for extra in set(extras) - {"lint", "docs"}:
        for requirement in extras[extra]:
            name = re.split(r"[\[<>=;]", requirement)[0].strip()
            assert name in {*bounds, "twostream_ext"} or "==" in requirement, requirement
