# SPDX-License-Identifier: BSD-3-Clause
"""The lowest version of each package that pyproject.toml admits, as constraints for pip; torch is left to the caller.

python .ci/lowest_bounds.py >lowest.txt
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CHOSEN_BY_CALLER = ("torch", "twostream_ext")


def lowest_bounds(project: dict[str, object]) -> dict[str, str]:
    """Of `[project]`: package -> the version after `>=`, the highest where several lines name it."""
    bounds: dict[str, str] = {}
    for requirement in _requirements(project):
        for specifier in requirement.specifier:
            if specifier.operator == ">=" and requirement.name not in CHOSEN_BY_CALLER:
                bounds[requirement.name] = max(bounds.get(requirement.name, "0"), specifier.version, key=_ordered)
    return bounds


def _requirements(project: dict[str, object]) -> Iterator[Requirement]:
    extras = project["optional-dependencies"]
    for lines in (project["dependencies"], *extras.values()):
        yield from map(Requirement, lines)


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    for name, version in sorted(lowest_bounds(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]).items()):
        print(f"{name}=={version}")
