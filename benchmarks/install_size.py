# SPDX-License-Identifier: BSD-3-Clause
"""What the package and each of its extras bring to an environment: packages and megabytes.

    python benchmarks/install_size.py [--out FILE]

In an environment that has the extra `all`. Each extra's packages are followed through their metadata, and their files
counted as installed, without what Python compiles them to. torch itself is told apart: its builds are of all sizes.
Writes benchmarks/results/install_size.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from twostream_ext.files import atomic_write

PACKAGE = "twostream_ext"
EXTRAS = ("", "flow", "train", "report", "opencv", "all")


def packages(name: str, extra: str) -> set[str]:
    """All that a package with one of its extras stands on, itself too, but for torch and what is torch's."""
    found: set[str] = set()
    waiting = [(name, extra)]
    seen = set()
    while waiting:
        place = waiting.pop()
        if place in seen or canonicalize_name(place[0]) == "torch":
            continue
        seen.add(place)
        found.add(canonicalize_name(place[0]))
        waiting += needed(*place)
    return found


def needed(name: str, extra: str) -> Iterator[tuple[str, str]]:
    """The requirements of one package, each with the extras asked of it."""
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement.name, ""
            yield from ((requirement.name, each) for each in requirement.extras)


def size_of(name: str) -> float:
    """Bytes of a package's files."""
    files = metadata.files(name) or []
    paths = [Path(file.locate()) for file in files if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description="What the package and each of its extras bring.")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "install_size.json")
    options = parser.parse_args()
    record: dict[str, Any] = machine.facts(torch.device("cpu"), 1)
    with_torch = packages_of_torch()
    rows = {}
    for extra in EXTRAS:
        own = packages(PACKAGE, extra) - with_torch
        sizes = {name: round(size_of(name) / 1e6, 1) for name in sorted(own)}
        rows[extra or "none"] = {"packages": len(own), "mb": round(sum(map(size_of, own)) / 1e6, 1), "each": sizes}
        print(f"{extra or '(none)':8} {len(own):3} packages {rows[extra or 'none']['mb']:7.1f} MB")
    record["of torch"] = sorted(with_torch)
    record["extras"] = rows
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def packages_of_torch() -> set[str]:
    """What is there whenever torch is."""
    return {"torch"}.union(*(packages(name, extra) for name, extra in needed("torch", "")))


if __name__ == "__main__":
    main()
