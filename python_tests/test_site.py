# SPDX-License-Identifier: BSD-3-Clause
"""The documentation's site: what its check finds, and how its pages show in a browser."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from chromium import Page, browse
from modules import load_module
from pages import ROOT

SCRIPT = ROOT / ".ci" / "check_pages.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="no .ci beside the tests")

PAGE = """<html><head><link rel="stylesheet" href="style.css"></head><body>
<h1 id="top">A page</h1><a href="docs/other.html#part">there</a> <a href="https://example.org/">elsewhere</a>
<img src="picture.png"></body></html>"""
OTHER = '<html><body><h2 id="part">A part</h2><a href="../index.html">back</a></body></html>'
API = '<html><body><h2 id="package.room.given">given</h2></body></html>'
ROOM = '__all__ = ["given"]\n'


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_module(SCRIPT)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write(tmp_path / "package", {"room/__init__.py": ROOM})
    sound = {"index.html": PAGE, "docs/other.html": OTHER, "docs/api/room.html": API}
    write(tmp_path / "site", {**sound, "style.css": "h1 { background: url(picture.png) }", "picture.png": ""})
    return tmp_path / "site"


def faults(check: ModuleType, site: Path) -> list[str]:
    return list(check.find_faults(site, site.parent / "package"))


def test_a_sound_site_has_no_faults(check: ModuleType, site: Path) -> None:
    assert faults(check, site) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("index.html", "other.html#", "othar.html#", "index.html: a href=docs/othar.html#part: nothing there"),
        ("index.html", "#part", "#prat", "index.html: a href=docs/other.html#prat: no such anchor"),
        ("index.html", "docs/other.html#part", "#end", "index.html: a href=#end: no such anchor"),
        ("index.html", "picture.png", "no.png", "index.html: img src=no.png: nothing there"),
        ("index.html", "picture.png", "//a.net/p.png", "index.html: img src=//a.net/p.png: another host"),
        ("index.html", "style.css", "https://a.net/s.css", "index.html: link href=https://a.net/s.css: another host"),
        ("style.css", "picture.png", "https://a.net/f", "style.css: https://a.net/f: another host"),
        ("style.css", "h1", '@import "//a.net/s.css";', "style.css: //a.net/s.css: another host"),
        ("docs/api/room.html", ">given<", "><class>/a<", "docs/api/room.html: <class> is no text"),
        ("docs/api/room.html", "room.given", "room.other", "docs/api/room.html: does not show package.room.given"),
    ],
)
def test_a_fault_is_told(check: ModuleType, site: Path, name: str, old: str, new: str, fault: str) -> None:
    text = (site / name).read_text()
    assert old in text
    (site / name).write_text(text.replace(old, new))
    assert faults(check, site) == [fault]


# ---- the site itself -----------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the built site is served; the search needs a server."""
    if shutil.which("zensical") is None:
        pytest.skip("the extra docs is not installed")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([ROOT / ".ci" / "pages", out], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Page]:
    with browse(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["index", "docs/tour", "docs/benchmarks", "docs/api/ops", "docs/api/media"])
def test_a_page_fits_its_window_and_asks_nobody_else(page: Page, address: str, name: str, width: int) -> None:
    page.visit(f"{address}/{name}.html", width=width)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert [each for each in page.complaints if not each.startswith(address)] == []


# The links in the window of the search, which is a tree of its own in the page, as soon as there are some.
FOUND = """(async () => {
  for (let wait = 0; wait < 200; wait++) {
    const roots = [...document.querySelectorAll("*")].flatMap(each => each.shadowRoot ?? []);
    const links = roots.flatMap(root => [...root.querySelectorAll("a")]).map(each => each.href);
    if (links.length) return links;
    await new Promise(done => setTimeout(done, 100));
  }
  return [];
})()"""


def test_the_search_finds_an_operator(page: Page, address: str) -> None:
    page.visit(f"{address}/index.html", width=1280)
    page.run("document.querySelector('.md-search__button').click()")
    page.run("new Promise(done => setTimeout(done, 500))")
    page.type("trajectory_stack")
    assert page.run(FOUND)[0].startswith(f"{address}/docs/api/ops.html")
