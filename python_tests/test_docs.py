# SPDX-License-Identifier: BSD-3-Clause
"""The pages for newcomers: what they name is there, and what they show runs."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from pages import FENCE, ROOT, page_names, read, without_blocks

import twostream_ext
from twostream_ext.data import read_source
from twostream_ext.errors import SettingsError
from twostream_ext.flow import find_method

PACKAGE = ROOT / "twostream_ext"
# Names of files that a reader finds in the sources; those of a user's own (`summary.json`, `classInd.txt`) are others.
SOURCES = (".py", ".pyi", ".h", ".cpp", ".cu", ".cuh", ".md", ".toml")
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]*)*")
MODULE = re.compile(r"twostream_ext(?:\.\w+)+")

pytestmark = pytest.mark.skipif(
    not ((ROOT / "docs").is_dir() and PACKAGE.is_dir()), reason="the pages, or the sources, are not beside the tests"
)


def blocks(text: str, language: str) -> list[str]:
    return [found["text"] for found in FENCE.finditer(text) if found["language"] == language]


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: letters, digits and hyphens, in small letters."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str, text: str) -> list[str]:
    """Links of a page, relative to it, to files or to headings that there are not."""
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", without_blocks(text))
    return [each for each in targets if "://" not in each and not leads_somewhere(page, text, each)]


def leads_somewhere(page: str, text: str, target: str) -> bool:
    name, _, anchor = target.partition("#")
    place = (ROOT / page).parent / name if name else ROOT / page
    if not place.exists():
        return False
    return not anchor or anchor in slugs(place.read_text(encoding="utf-8") if name else text)


def missing_names(text: str) -> list[str]:
    """What stands in backticks, looks like a file or a module of ours, and is none, nor that of a walked example."""
    named = re.findall(r"`([^`\n]+)`", without_blocks(text))
    shown = [path for diff in walked_examples().values() for path in re.findall(r"^\+\+\+ b/(\S+)", diff, re.MULTILINE)]
    return [name for name in named if not is_known(name) and not any(f"/{path}".endswith(f"/{name}") for path in shown)]


def is_known(name: str) -> bool:
    """Whether a name is a file, a folder or a module that there is, or no name of one."""
    if MODULE.fullmatch(name):
        return is_importable(name)
    if not PATH.fullmatch(name):
        return True
    first, slash, _ = name.partition("/")
    if first == "build":  # what is made in a checkout, and never committed
        return True
    if not slash:
        return not name.endswith(SOURCES) or name in {path.name for path in source_files()}
    places = [base for base in (ROOT, PACKAGE, ROOT / "csrc") if (base / first).is_dir()]
    return not places or any(exists(base, name) for base in places)


def exists(base: Path, name: str) -> bool:
    return any(base.glob(name)) if "*" in name else (base / name).exists()


def source_files() -> Iterator[Path]:
    yield from ROOT.glob("*.*")
    for folder in ("twostream_ext", "csrc", "python_tests", "benchmarks", "docs", "examples"):
        yield from (ROOT / folder).rglob("*.*")


def is_importable(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ImportError:
        return module == name or hasattr(importlib.import_module(module), attribute)
    return True


@pytest.mark.parametrize("page", page_names())
def test_links_and_names_lead_somewhere(page: str) -> None:
    assert broken_links(page, read(page)) == []
    assert missing_names(read(page)) == []


@pytest.mark.parametrize(
    "name",
    [
        "flow/no_such_file.py",
        "csrc/cuda/no_such_kernel.cu",
        "cuda/*.cpp",
        "no_such_file.py",
        "twostream_ext.no_such_room",
        "twostream_ext.flow.NoSuchStore",
    ],
)
def test_a_name_of_nothing_is_found(name: str) -> None:
    assert missing_names(f"see `{name}`, `FlowBatch` and `{Path(__file__).name}`") == [name]
    assert broken_links("docs/design.md", f"[there](../README.md) and [here]({name})") == [name]


def test_a_heading_that_is_not_there_is_found() -> None:
    text = "# A page\n\n## `run`, in short\n\n[a](#run-in-short) [b](#no) [c](data.md#the-file) [d](data.md#nothing)\n"
    assert broken_links("docs/design.md", text) == ["#no", "data.md#nothing"]


def test_the_rooms_of_the_design_are_those_there_are() -> None:
    table = read("docs/design.md").partition("## Rooms")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE)
    assert sorted(described) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    floor = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert {name for name in floor if f"`{name}`" in table} == floor


def test_the_site_has_all_pages_and_all_rooms() -> None:
    shown = re.findall(r": (\S+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    rooms = [path.parent.name for path in PACKAGE.glob("*/__init__.py") if path.parent.name != "cli"]
    api = [f"docs/api/{name}.md" for name in (*rooms, "errors")]
    assert sorted(shown) == sorted([*page_names(), *api, "CHANGELOG.md"])


def test_the_test_that_is_shown_is_one_of_ours_and_holds() -> None:
    page = read("CONTRIBUTING.md")
    (shown,) = blocks(page, "python")
    names: dict[str, object] = {}
    exec(compile(shown, "CONTRIBUTING.md", "exec"), names)
    (test,) = (each for name, each in names.items() if name.startswith("test_") and inspect.isfunction(each))
    (place,) = re.findall(r"One from `([^`]+)`:", page)
    assert shown.partition("\ndef ")[2] in (ROOT / place).read_text(encoding="utf-8")
    test(device=torch.device("cpu"))


def test_what_the_commands_install_is_declared() -> None:
    (command,) = re.findall(r"-e '\.\[([\w,]+)\]'", read("CONTRIBUTING.md"))
    extras = read("pyproject.toml").partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert set(command.split(",")) <= set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))


def test_the_errors_that_are_shown_are_those_that_come() -> None:
    shown = (
        read("CONTRIBUTING.md").partition("**Errors**")[2].partition("```text\n")[2].partition("```")[0].splitlines()
    )
    codes, ranges = torch.zeros(2, 3, 8, 9, 2, dtype=torch.uint8), torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match=rf"^{re.escape(shown[0])}$"):
        twostream_ext.ops.flow_stack(codes, torch.zeros(2, 3, dtype=torch.int32), 4, lo=ranges[:1], step=ranges)
    with pytest.raises(SettingsError, match=rf"^{re.escape(shown[2])}$"):
        find_method("tvl2")


def test_the_data_file_that_is_shown_has_every_key(tmp_path: Path) -> None:
    (shown,) = blocks(read("docs/data.md"), "toml")
    (tmp_path / "set.toml").write_text(shown)
    source = read_source(tmp_path / "set.toml")
    assert {each.name for each in fields(source)} - {"name"} == set(re.findall(r"^(\w+) = ", shown, re.MULTILINE))
    assert source.videos == tmp_path / "UCF-101"


# ---- the walked examples -------------------------------------------------------------------------------------------


def walked_examples() -> dict[str, str]:
    """The diffs by the heading they stand under: in the page, or in the file that it links to."""
    examples = {}
    for section in read("CONTRIBUTING.md").partition("## Walked examples")[2].split("\n### ")[1:]:
        (linked,) = re.findall(r"\]\((\S+\.diff)\)", section) or [None]
        diff = blocks(section, "diff")[0] if linked is None else read(linked)
        examples[section.partition("\n")[0]] = diff
    return examples


def apply(diff: str, tree: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}  # no checkout around it has a say
    command = ["git", "apply", "--whitespace=error-all", "-"]
    return subprocess.run(command, check=False, cwd=tree, env=environment, input=diff, capture_output=True, text=True)


def copy_touched(diff: str, tree: Path) -> None:
    """Copy what a diff changes; what it adds is not there."""
    for name in re.findall(r"^diff --git a/(\S+)", diff, re.MULTILINE):
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git, which applies the diffs")


@needs_git
@pytest.mark.parametrize("name", ["An operator", "A flow method", "A backbone"])
def test_a_walked_example_can_still_be_applied(name: str, tmp_path: Path) -> None:
    diff = walked_examples()[name]
    copy_touched(diff, tmp_path)
    done = apply(diff, tmp_path)
    assert done.returncode == 0, done.stderr
    assert apply(diff, tmp_path).returncode != 0  # it is there already


@needs_git
@pytest.mark.parametrize("name", ["A flow method", "A backbone"])
def test_a_walked_example_works(name: str, tmp_path: Path) -> None:
    """The tests that it brings, with the package that it makes."""
    diff = walked_examples()[name]
    skipped = shutil.ignore_patterns("__pycache__", "*.so", "lib")
    for folder in (PACKAGE, ROOT / "python_tests"):
        shutil.copytree(folder, tmp_path / folder.name, ignore=skipped)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    compiled = Path(twostream_ext._C.__file__)
    for part in (compiled, compiled.parent / "lib"):
        (tmp_path / PACKAGE.name / part.name).symlink_to(part)
    assert apply(diff, tmp_path).returncode == 0
    tests = re.findall(r"^\+def (test_\w+)", diff, re.MULTILINE)
    files = re.findall(r"^diff --git a/(python_tests/\S+)", diff, re.MULTILINE)
    # The copy is found before an installation in place, which has a finder of its own.
    script = f"""
import sys
from importlib.machinery import PathFinder
sys.meta_path.insert(0, PathFinder)
sys.path.insert(0, {str(tmp_path)!r})
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", {" or ".join(tests)!r}, *{files}]))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(tests)} passed" in done.stdout
