# SPDX-License-Identifier: BSD-3-Clause
"""The pages of the documentation, and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def page_names() -> list[str]:
    """All but CHANGELOG.md, which tells of what is no more, and the API's pages, which hold docstrings alone."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[a-z]*/README.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.name != "CHANGELOG.md")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


class Block(NamedTuple):
    page: str
    line: int  # of its first line in the page, from 1
    language: str  # "" where none is given
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def find_blocks(page: str) -> list[Block]:
    """All code blocks of a page, in their order."""
    text = read(page)
    return [
        Block(page, text.count("\n", 0, found.start()) + 2, found["language"], found["text"])
        for found in FENCE.finditer(text)
    ]


def without_blocks(text: str) -> str:
    return FENCE.sub("", text)
