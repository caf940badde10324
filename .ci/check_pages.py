#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Whether the built documentation holds together: links, anchors, pictures, the API's names, nothing from other hosts,
no `<word>` of a text that a browser takes for a tag.

.ci/check_pages.py SITE PACKAGE

SITE is the folder that zensical has written. PACKAGE is the folder of the package's sources: each page in SITE/docs/api
must show all that the `__all__` of its room names.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; where an `a` leads is its reader's choice.
FETCHED = {("img", "src"), ("script", "src"), ("source", "src"), ("video", "src"), ("iframe", "src"), ("link", "href")}
# Those that Zensical and Markdown make; another is a word in angle brackets that lacks its backticks.
TAGS = {
    *("a", "article", "aside", "b", "blockquote", "body", "br", "button", "circle", "code", "details", "div", "em"),
    *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "img", "input", "label"),
    *("li", "link", "main", "meta", "nav", "ol", "p", "path", "pre", "rect", "script", "span", "strong", "style"),
    *("sub", "summary", "sup", "svg", "table", "tbody", "td", "th", "thead", "title", "tr", "ul"),
}
MADE_FOR_A_SERVER = {"404.html"}  # its links begin at the root of a host


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("package", type=Path)
    options = parser.parse_args()
    faults = list(find_faults(options.site, options.package))
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        count = sum(1 for _ in options.site.rglob("*.html"))
        print(f"{count} pages: all links, anchors, pictures and names are there")
    return int(bool(faults))


def find_faults(site: Path, package: Path) -> Iterator[str]:
    """A line for each link, anchor or picture that is not there, each request elsewhere, each name not shown."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        if path.name not in MADE_FOR_A_SERVER:
            for tag, attribute, target in page.targets:
                fault = _fault(path, tag, attribute, target, pages)
                if fault is not None:
                    yield f"{path.relative_to(site)}: {tag} {attribute}={target}: {fault}"
        yield from (f"{path.relative_to(site)}: <{tag}> is no text" for tag in sorted(page.tags - TAGS))
    for path in sorted(site.rglob("*.css")):
        fetched = re.findall(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^)\"'\s]*)", path.read_text(encoding="utf-8"))
        yield from (f"{path.relative_to(site)}: {target}: another host" for target in fetched)
    for path, page in pages.items():
        if path.parent == site / "docs" / "api":
            wanted = _given_out(package, path.stem)
            yield from (f"{path.relative_to(site)}: does not show {name}" for name in wanted if name not in page.ids)


class Page(HTMLParser):
    """The tags and ids of a page, and where its elements lead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.targets: list[tuple[str, str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for attribute, value in attrs:
            if attribute == "id" or (tag, attribute) == ("a", "name"):
                self.ids.add(value or "")
            elif value and ((tag, attribute) == ("a", "href") or (tag, attribute) in FETCHED):
                self.targets.append((tag, attribute, value))


def _fault(path: Path, tag: str, attribute: str, target: str, pages: dict[Path, Page]) -> str | None:
    address = urlsplit(target)
    if address.scheme == "data":
        return None
    if address.scheme or address.netloc:
        return "another host" if (tag, attribute) in FETCHED else None
    place = (path.parent / unquote(address.path)).resolve() if address.path else path
    if not place.is_file():
        return "nothing there"
    if address.fragment and place in pages and unquote(address.fragment) not in pages[place].ids:
        return "no such anchor"
    return None


def _given_out(package: Path, room: str) -> list[str]:
    """What a room's `__all__` names, by its full name; of a module without one, its public classes and functions."""
    path = package / f"{room}.py" if (package / f"{room}.py").exists() else package / room / "__init__.py"
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [f"{package.name}.{room}.{name}" for name in ast.literal_eval(node.value)]
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            names.append(f"{package.name}.{room}.{node.name}")
    return names


if __name__ == "__main__":
    sys.exit(main())
