#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Whether a wheel is one to publish: its size, its files, what its libraries need, and on how old a Linux it runs.

.ci/check_wheel.py WHEEL [--glibc 2.28]

Needs auditwheel and readelf. `--glibc` is the newest version of the C library that it may ask for; without it the
version is only told, as of a wheel that was built on this machine and not in an image made for that.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

MOST_WHEEL = 4.5e6  # bytes
MOST_INSTALLED = 8e6
WANTED = (
    r"twostream_ext/_C\.[^/]*\.so",
    r"twostream_ext/py\.typed",
    r"twostream_ext/lib/libtwostream\.so",
    r"twostream_ext/include/twostream/twostream\.h",
    r"twostream_ext/share/cmake/twostream_ext/twostream_ext-config\.cmake",
    r"[^/]*\.dist-info/licenses/LICENSE",
    r"[^/]*\.dist-info/licenses/.*/dlpack/LICENSE",
    r"[^/]*\.dist-info/licenses/.*/cuda_runtime/NOTICE",
)
PLACES = r"twostream_ext/|twostream_ext-[^/]*\.dist-info/"
UNWANTED = r"(^|/)(test|bench|conftest)[^/]*\.py$|\.(cpp|cu|cuh|o|a)$|/__pycache__/"
LIBRARIES = r"(libstdc\+\+|libm|libgcc_s|libc|libpthread|libdl|librt|ld-linux-[a-z0-9-]+|libtwostream)\.so"
TAG = r'platform tag:\s*"(?P<tag>[a-z0-9_]+)"'


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether a wheel is one to publish.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--glibc", help="newest version of the C library that it may ask for")
    options = parser.parse_args()
    wheel: Path = options.wheel
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        installed = sum(entry.file_size for entry in entries)
        packed = wheel.stat().st_size
        print(f"{wheel.name}: {packed / 1e6:.2f} MB, installed {installed / 1e6:.2f} MB, {len(names)} files")
        faults = [*_of_sizes(packed, installed), *_of_names(names)]
        with tempfile.TemporaryDirectory() as folder:
            libraries = [Path(archive.extract(name, folder)) for name in names if name.endswith(".so")]
            for library in libraries:
                faults += _of_needed(library)
                for version, symbols in _newest(library):
                    print(f"{library.name}: {version} for {', '.join(symbols)}")
    faults += _of_tag(wheel, options.glibc)
    for fault in faults:
        print(f"{wheel.name}: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _of_sizes(packed: int, installed: int) -> Iterator[str]:
    for what, size, most in (("the wheel", packed, MOST_WHEEL), ("installed, it", installed, MOST_INSTALLED)):
        if size > most:
            yield f"{what} has {size / 1e6:.2f} MB, more than {most / 1e6:g}"


def _of_names(names: Iterable[str]) -> Iterator[str]:
    names = list(names)
    yield from (f"lacks {wanted}" for wanted in WANTED if not any(re.fullmatch(wanted, name) for name in names))
    yield from (f"holds {name}" for name in names if not re.match(PLACES, name) or re.search(UNWANTED, name))


def _of_needed(library: Path) -> Iterator[str]:
    shown = _output("readelf", "-d", library)
    needed = re.findall(r"NEEDED.*\[(.*)\]", shown)
    yield from (f"{library.name} needs {name}" for name in needed if not re.match(LIBRARIES, name))


def _newest(library: Path) -> Iterator[tuple[str, list[str]]]:
    """Of each kind of symbol version, the newest that a library asks for, and what for."""
    found: dict[str, dict[tuple[int, ...], list[str]]] = {}
    shown = _output("readelf", "-sW", library)
    for name, kind, number in re.findall(r"UND (\w+)@(GLIBC|GLIBCXX|CXXABI)_([0-9.]+)", shown):
        found.setdefault(kind, {}).setdefault(tuple(map(int, number.split("."))), []).append(name)
    for kind, versions in sorted(found.items()):
        newest = max(versions)
        yield f"{kind}_{'.'.join(map(str, newest))}", versions[newest]


def _of_tag(wheel: Path, glibc: str | None) -> Iterator[str]:
    shown = _output("auditwheel", "show", wheel)
    found = re.search(TAG, shown)
    if found is None:
        yield f"auditwheel does not tell its platform: {shown.strip()}"
        return
    tag = found["tag"]
    print(f"runs on {tag}")
    number = re.match(r"manylinux_(\d+)_(\d+)_", tag)
    if glibc is not None and (number is None or tuple(map(int, number.groups())) > tuple(map(int, glibc.split(".")))):
        yield f"runs on {tag} only, not from glibc {glibc} on"


def _output(*command: object) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
