# SPDX-License-Identifier: BSD-3-Clause
"""The page of the operators: each is there with all its parts, its figures are those recorded, its examples run."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from typing import Any

import operators
import pytest
import torch
from test_docs import ROOT, blocks, pytestmark, read  # noqa: F401  the mark: without the pages there is nothing to test

from twostream_ext import ops

PAGE = "docs/operators.md"
OPERATORS = [name for name in ops.__all__ if hasattr(torch.ops.twostream, name)]
OURS = "twostream_ext"


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))
    return found


def section(name: str) -> str:
    (text,) = re.findall(rf"^## `{name}`\n(.*?)(?=^## |\Z)", read(PAGE), re.MULTILINE | re.DOTALL)
    return str(text)


def ours(kernel: dict[str, Any]) -> dict[str, Any]:
    (entry,) = (each for each in kernel["implementations"] if each["name"] == OURS)
    return dict(entry)


def size(count: int) -> str:
    """A number of bytes as the page has it."""
    for unit, name in ((1_000_000, "MB"), (1000, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def rows(operator: str) -> list[str]:
    """The lines of the table of an operator, as they follow from what was recorded."""
    lines = []
    for kernel in record("kernels_cpu.json")["kernels"]:
        if kernel["operator"] == operator:
            moved, shapes = kernel["bytes"], kernel["shapes"].replace("->", "to")
            limit = " + ".join(part.split(" of ")[0] for part in kernel["limit"]["what"].split(" + "))
            cells = [kernel["workload"], shapes, size(moved["read"]), size(moved["written"]), limit]
            lines.append(f"| {' | '.join(cells)} | {ours(kernel)['fraction_of_limit']:.2f} |")
    return lines


def span(values: list[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def of_camera_motion() -> str:
    found = record("camera_motion.json")
    entries = [each for each in found["accuracy"] if each["method"] == OURS]
    times, errors = ([each[name] for each in entries] for name in ("least_ms", "mean_error"))
    where = f"{found['machine']['cpu']}, {found['machine']['threads']} thread, {found['date'][:10]}"
    return f"({where}) .*: {span(times, 2)} ms each, with a mean error of {span(errors, 4)} px"


def of_tvl1_flow() -> str:
    found, settings = record("tvl1_flow_cpu.json"), "no median, 300 iterations"
    times = [each["median_ms"][f"{OURS}, {settings}"] for each in found["speed"]]
    ratios = [each["times_opencv"][settings] for each in found["speed"]]
    where = f"{found['machine']['cpu']}, {found['machine']['threads']} thread, {found['date'][:10]}"
    return f"{span(times, 0)} ms, {span(ratios, 0)} times less .*: {where})"


def test_every_public_name_is_described() -> None:
    named = set(re.findall(r"`(\w+)`", read(PAGE)))
    assert set(ops.__all__) <= named
    described = re.findall(r"^## `(\w+)`$", read(PAGE), re.MULTILINE)
    assert sorted(described) == sorted(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_has_all_its_parts(name: str) -> None:
    text = section(name)
    assert name == "tvl1_clip_flow" or blocks(text, "text")  # the formula
    assert len(blocks(text, "python")) == 1 or name == "tvl1_flow"
    for part in ("result", "derivatives", "bytes"):
        assert len(re.findall(rf"^\| [^|]*\b{part} \| \S|^\| {part} \| \S", text, re.MULTILINE)) == 1, part
    assert re.search(r"^- ", text, re.MULTILINE)  # what goes wrong
    assert all(1 < len(example.splitlines()) <= 6 for example in blocks(text, "python"))


@pytest.mark.parametrize("name", OPERATORS)
def test_fractions_of_limits_are_those_recorded(name: str) -> None:
    table = [line for line in section(name).splitlines() if re.search(r"\| \d\.\d\d \|$", line)]
    assert table == rows(name)


def test_the_other_figures_are_those_recorded() -> None:
    text, found = " ".join(read(PAGE).split()), record("kernels_cpu.json")
    machine = found["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
    date = f"{found['date'][:10]}, commit {found['commit'][:7]}"
    assert f"{where}; torch {found['versions']['torch']}; {date}." in text
    (overhead,) = (ours(each)["median_ms"] for each in found["kernels"] if each["operator"] == "overhead")
    assert f"of `flow_stack` with `out=`: {overhead * 1e3:.1f} µs" in text
    for sentence in (of_camera_motion(), of_tvl1_flow()):
        assert re.search(re.escape(sentence).replace(r"\.\*", ".{1,200}?"), text), sentence


@pytest.mark.parametrize("name", OPERATORS)
def test_derivatives_are_those_there_are(name: str) -> None:
    (said,) = re.findall(r"^\| derivatives \| (.*) \|$", section(name), re.MULTILINE)
    assert (said == "none") == (not has_gradient(name))


def has_gradient(name: str) -> bool:
    """Whether a call on float pixels that want a gradient gives a result that has one."""
    made = [case for case in operators.cases().values() if case.operator == name]
    assert made
    return any(is_differentiated(case.moved(wanting)) for case in made)


def wanting(name: str, tensor: torch.Tensor) -> torch.Tensor:
    is_pixels = name in ("flow", "frames", "x", "prev", "next", "clip")
    return tensor.clone().requires_grad_() if is_pixels and tensor.dtype == torch.float32 else tensor


def is_differentiated(case: Callable[[], Any]) -> bool:
    try:
        return any(each.requires_grad for each in operators.flattened(case()))
    except RuntimeError as error:
        if "gradient" not in str(error):
            raise
        return False


def test_the_examples_print_what_stands_beside_them() -> None:
    names: dict[str, object] = {}
    for example in blocks(read(PAGE), "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example, PAGE, "exec"), names)
        assert printed.getvalue().splitlines() == re.findall(r"^print\(.*\)  # (.*)$", example, re.MULTILINE)
