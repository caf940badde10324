# SPDX-License-Identifier: BSD-3-Clause
"""Shell commands in the pages: whether the programs that they name would take them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator

from pages import ROOT

from twostream_ext.cli import make_parser
from twostream_ext.errors import SettingsError
from twostream_ext.flow import find_method

# Programs that are not ours, and words of the shell.
OTHERS = {
    *("git", "cmake", "make", "ninja", "ffmpeg", "g++", "c++", "cc", "nvcc", "docker", "curl", "apt-get", "denseflow"),
    *("cd", ".", "source", "export", "mkdir", "ls", "cp", "cat", "clang-format", "ruff", "mypy", "sbatch"),
}
OPERATORS = {"|", "||", "&", "&&", ";", "(", ")", "<", ">", ">>"}


def find_faults(text: str) -> list[str]:
    """What is wrong with the commands of a block, a line each."""
    return [f"{' '.join(words)}: {fault}" for words in commands(text) for fault in _faults(words)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command, without comments, redirections and what is set for it alone."""
    for line in text.replace("\\\n", " ").splitlines():
        for inner in re.findall(r"\$\(([^)]*)\)", line):
            yield from commands(inner)
        words: list[str] = []
        skip = False
        for word in [*_words(re.sub(r"\$\(([^)]*)\)|\$\w+", "1", line)), ";"]:
            if word in OPERATORS:
                skip = word in {"<", ">", ">>"}
                if words and not skip:
                    yield words
                    words = []
            elif skip:
                skip = False
            elif words or not re.fullmatch(r"\w+=.*", word):
                words.append(word)


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.wordchars += ":@,[]+%{}!^"
    return list(lexer)


def _faults(words: list[str]) -> Iterator[str]:
    program, *arguments = words
    if program.startswith(".ci/"):
        if not (ROOT / program).exists():
            yield "no such script"
    elif program in CHECKS:
        yield from CHECKS[program](arguments)
    elif program not in OTHERS:
        yield "no program that is known"


def _of_twostream(arguments: list[str]) -> Iterator[str]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            options = make_parser().parse_args(arguments)
        if getattr(options, "method", None):
            find_method(options.method)
    except SystemExit as end:
        if end.code:
            yield said.getvalue().strip().splitlines()[-1]
    except SettingsError as error:
        yield str(error)


def _of_python(arguments: list[str]) -> Iterator[str]:
    first, *others = arguments
    if first == "-m":
        if others[0] == "twostream_ext":
            yield from _of_twostream(others[1:])
        elif importlib.util.find_spec(others[0]) is None and not (ROOT / others[0] / "__main__.py").exists():
            yield f"no module {others[0]}"
    elif not first.startswith("-") and not (ROOT / first).exists():
        yield f"no file {first}"


def _of_torchrun(arguments: list[str]) -> Iterator[str]:
    yield from _of_python(arguments[arguments.index("-m") :])


def _of_pytest(arguments: list[str]) -> Iterator[str]:
    for each in arguments:
        if "/" in each and not (ROOT / each.partition("::")[0]).exists():
            yield f"no file {each}"


def _of_pip(arguments: list[str]) -> Iterator[str]:
    for each in arguments:
        found = re.fullmatch(r"(\.|twostream_ext)(\[[\w,]+\])", each)
        if found:
            yield from (f"no extra {name}" for name in missing_extras(found[2]))


def missing_extras(text: str) -> list[str]:
    """The names in brackets, as in `.[a,b]`, that pyproject.toml does not have."""
    table = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^(\w+) = \[", table.partition("\n[")[0], re.MULTILINE))
    return [name for name in text.strip("[]").split(",") if name not in extras]


CHECKS = {
    "twostream": _of_twostream,
    "python": _of_python,
    "python3": _of_python,
    "torchrun": _of_torchrun,
    "pytest": _of_pytest,
    "pip": _of_pip,
}
