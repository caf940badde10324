# SPDX-License-Identifier: BSD-3-Clause
"""The page that maps the paper to the code: every name on it exists, and nothing of the paper is left out."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import inspect
import re
from typing import Any

import pytest
from test_docs import FENCE, PACKAGE, ROOT, pytestmark, read  # noqa: F401  the mark: pages may not be beside the tests

from twostream_ext.cli import make_parser

PAGE = "docs/paper.md"

# The paper's own headings, numbered parts and paragraphs; from the paper and not from the page.
SECTIONS = {
    "1": "Introduction",
    "1.1": "Related work",
    "2": "Two-stream architecture for video recognition",
    "3": "Optical flow ConvNets",
    "3.1": "ConvNet input configurations",
    "3.2": "Relation of the temporal ConvNet architecture to previous representations",
    "4": "Multi-task learning",
    "5": "Implementation details",
    "6": "Evaluation",
    "7": "Conclusions and directions for improvement",
}
NUMBERED = {
    "2": ["figure 1"],
    "3": ["figure 2"],
    "3.1": ["equation (1)", "equation (2)", "figure 3"],
    "3.2": ["figure 4"],
    "6": ["table 1a", "table 1b", "table 2", "table 3", "table 4", "figure 5", "figure 6"],
}
PARAGRAPHS = {
    "2": ["spatial stream", "fusion by averaging", "fusion by an SVM"],
    "3": ["temporal stream"],
    "3.1": [
        "optical flow stacking",
        "trajectory stacking",
        "bi-directional flow",
        "mean flow subtraction",
        "input of the net",
    ],
    "4": ["two softmax layers", "sum of the losses"],
    "5": [
        "net configuration",
        "training",
        "testing",
        "pre-training on ImageNet",
        "multi-GPU training",
        "optical flow",
    ],
    "6": [
        "data sets and protocol",
        "spatial nets",
        "temporal nets",
        "multi-task learning of temporal nets",
        "two streams together",
        "state of the art",
    ],
}

TEST = re.compile(r"python_tests/(?P<file>test_\w+\.py)::(?P<name>test_\w+)")
DEFAULT = re.compile(r"(?P<name>[\w.]+)\((?P<argument>\w+)=(?P<value>[^()]+)\)")
NAME = re.compile(r"\w+(\.\w+)*")


# ---- what a name must be ---------------------------------------------------------------------------------------------


def wrong_names(text: str) -> list[str]:
    """What stands in backticks and is not what it says."""
    return [name for name in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)) if not exists(name)]


def exists(name: str) -> bool:
    """Whether a name is a test, a command with its options, a default as it is, or a public name of ours."""
    if found := TEST.fullmatch(name):
        return is_test(found["file"], found["name"])
    if name.startswith("twostream "):
        return is_command(name.split()[1:])
    if found := DEFAULT.fullmatch(name):
        return is_default(found["name"], found["argument"], found["value"])
    return NAME.fullmatch(name) is not None and is_public(name)


@functools.cache
def names_in(file: str) -> frozenset[str]:
    path = ROOT / "python_tests" / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef))


def is_test(file: str, name: str) -> bool:
    return name in names_in(file)


def is_command(words: list[str]) -> bool:
    """A subcommand; each word after it is an option of its own, or a value that what stands before may have."""
    parser = subcommands().get(words[0])
    if parser is None:
        return False
    last = next((action for action in parser._actions if not action.option_strings and action.nargs != 0), None)
    for word in words[1:]:
        if word.startswith("-"):
            last = parser._option_string_actions.get(word)
            if last is None:
                return False
        elif last is None or (last.choices is not None and word not in map(str, last.choices)):
            return False
    return True


@functools.cache
def subcommands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(commands.choices)


def is_default(name: str, argument: str, value: str) -> bool:
    called = find(name)
    parameter = inspect.signature(called).parameters.get(argument) if callable(called) else None
    return parameter is not None and bool(parameter.default == ast.literal_eval(value))


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split(".")) and find(name) is not None


def find(name: str) -> Any:
    """What `twostream_ext.<name>` is; None if there is no such thing."""
    parts = [] if name == PACKAGE.name else name.removeprefix(f"{PACKAGE.name}.").split(".")
    found: Any = importlib.import_module(PACKAGE.name)
    for part in parts:
        if not hasattr(found, part):
            try:
                importlib.import_module(f"{found.__name__}.{part}")
            except (AttributeError, ImportError):
                return None
        found = getattr(found, part)
    return found


# ---- the page --------------------------------------------------------------------------------------------------------


def sections() -> dict[str, str]:
    """The text of each numbered section of the page."""
    parts = re.split(r"^## ", read(PAGE), flags=re.MULTILINE)[1:]
    headings = [(each.partition("\n")[0], each) for each in parts]
    return {heading.partition(" ")[0]: text for heading, text in headings if heading[0].isdigit()}


def rows(text: str) -> list[list[str]]:
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if not re.match(r"[-:| ]+$", line)][1:]


def test_every_name_on_the_page_exists() -> None:
    assert wrong_names(read(PAGE)) == []


@pytest.mark.parametrize(
    "name",
    [
        "ops.no_such_operator",
        "engine.no_such.module",
        "no_such_room",
        "ops._door",
        "flow_stack",
        "python_tests/test_no_such.py::test_against_the_formula",
        "python_tests/test_flow_stack.py::test_no_such_thing",
        "python_tests/test_flow_stack.py",
        "twostream no-such-command",
        "twostream train --no-such-option",
        "twostream train temporal --input no_such_input",
        "twostream report --backward",
        "twostream reproduce table5",
        "engine.TrainSettings(weight_decay=1e-4)",
        "engine.TrainSettings(no_such=1)",
        "--backward",
        "twostream_ext/ops/flow_stack.py",
    ],
)
def test_a_name_of_nothing_is_found(name: str) -> None:
    good = "`ops.flow_stack`, `twostream_ext.ops`, `twostream reproduce table4 --seeds 3`, `extract(quality=90)`"
    assert wrong_names(f"{good} and `{name}`") == [name]


def test_no_section_equation_table_or_figure_is_left_out() -> None:
    headings = dict(re.findall(r"^## (\d\S*) (.*)$", read(PAGE), re.MULTILINE))
    assert headings == SECTIONS
    for number, text in sections().items():
        (first, *_) = zip(*rows(text), strict=True)
        items = [item for cell in first for item in re.findall(r"\*\*(.+?)\*\*", cell)]
        assert sorted(items) == sorted([*NUMBERED.get(number, []), *PARAGRAPHS.get(number, [])]), number


def test_every_row_has_code_and_a_test() -> None:
    """Or says that there is none."""
    for text in sections().values():
        for paper, code, command, test in rows(text):
            proven = "`python_tests/" in test and ("`" in code or "`twostream " in command)
            assert proven or code.startswith("Not here"), paper
    opened = rows(read(PAGE).partition("## What the paper leaves open")[2])
    assert len(opened) > 10
    for what, chosen, where, test in opened:
        assert chosen, what
        assert "`" in where, what
        assert "`python_tests/" in test, what


def test_sections_that_the_sources_name_are_of_the_paper() -> None:
    """`section 3.1` in a docstring, a message or a comment; there is nothing of 1.1 and 3.2 to compute."""
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "csrc").rglob("*.h"), ROOT / "docs" / "design.md"]
    named = {
        (str(path.relative_to(ROOT)), number)
        for path in sources
        for number in re.findall(r"\bsection (\d(?:\.\d)?)", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert {each for each in named if each[1] not in SECTIONS.keys() - {"1.1", "3.2"}} == set()
