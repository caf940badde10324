# SPDX-License-Identifier: BSD-3-Clause
"""The pages about a table of the paper and about several splits: in a browser, and at no cost to the result."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest

from twostream_ext import engine, report
from twostream_ext.cli import main
from twostream_ext.errors import CheckpointError, ReportError

RECIPE = engine.GENERATED_RECIPE.as_json()
HOSTILE = '</style><script>alert(1)</script>"><img src=x onerror=alert(1)> {{ 7 * 7 }} 走る'
METHODS = ("spatial", "temporal", "average", "svm")


def table_summary(name: str = "table3") -> dict[str, Any]:
    """As `reproduce` leaves it: all rows but the last were run."""
    *run, last = engine.TABLES[name].rows
    rows = [
        {
            "setting": {"text": f"{row.text} (pre-trained on many_looks)"},
            "top1": 0.5 + 0.06 * number,
            "interval": [0.4 + 0.06 * number, 0.57 + 0.06 * number],
            "seeds": 3,
            "paper": row.paper,
            "each": [0.48 + 0.06 * number, 0.5 + 0.06 * number, 0.52 + 0.06 * number],
            "mean_class": 0.49 + 0.06 * number,
        }
        for number, row in enumerate(run)
    ]
    reason = "needs a second data set"
    return {
        "table": name,
        "rows": rows,
        "not_run": [{"setting": {"text": last.text}, "reason": reason, "paper": last.paper}],
        "splits": 1,
        "recipe": RECIPE,
        "data": {"few_mixed": "/videos/few_mixed"},
        "notes": [f"few_mixed, split 1: {HOSTILE}"],
    }


def splits_summary() -> dict[str, Any]:
    def measures(shift: float) -> dict[str, Any]:
        top1 = {name: round(0.5 + 0.1 * number + shift, 4) for number, name in enumerate(METHODS)}
        ends = {name: [value - 0.05, value + 0.04] for name, value in top1.items()}
        return {"top1": top1, "interval": ends, "mean_class": top1, "mean_class_interval": ends}

    return {
        **measures(0),
        "splits": {str(n): {**measures(0.01 * n), "videos": {"train": 9537, "test": 3783}} for n in (1, 2, 3)},
        "classes": [f"class {number}" for number in range(101)],
        "seed": 0,
        "recipe": RECIPE,
        "notes": [f"split 1: {HOSTILE}"],
    }


SUMMARIES = {"table": table_summary, "splits": splits_summary}
PARTS = {"table": ["accuracy", "not-run", "settings"], "splits": ["accuracy", "splits", "settings"]}


@pytest.fixture(params=SUMMARIES)
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def out(tmp_path: Path, kind: str) -> Path:
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARIES[kind]()))
    return tmp_path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browse(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_in_a_browser(tab: chromium.Page, out: Path, kind: str, width: int) -> None:
    page = report.write_report(out)
    for dark in (False, True):
        tab.open(page, width=width, dark=dark)
        assert tab.complaints == []
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        assert tab.run("[...document.querySelectorAll('section')].map(each => each.id)") == PARTS[kind]
        assert tab.run("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    # Nothing of a table is cut off at its side, on a phone either.
    assert tab.run("[...document.querySelectorAll('.accuracy')].every(t => t.scrollWidth <= t.parentNode.clientWidth)")
    assert tab.run("document.querySelector('.notes li').textContent.trim()").endswith(HOSTILE)
    assert tab.run("document.querySelectorAll('script, img').length") == 1
    assert tab.run("document.querySelectorAll('.accuracy th button').length") > 4


def test_a_table_is_shown_beside_the_paper_s(tab: chromium.Page, tmp_path: Path) -> None:
    summary = table_summary()
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    tab.open(report.write_report(tmp_path), width=1200)
    rows = "[...document.querySelectorAll('.accuracy tbody tr')]"
    cells = f"{rows}.map(row => [...row.cells].map(cell => cell.innerText))"
    for cell, row in zip(tab.run(cells), summary["rows"], strict=True):
        low, high = (f"{100 * bound:.1f}" for bound in row["interval"])
        each = ", ".join(f"{100 * value:.1f}" for value in row["each"])
        paper, mean_class = (f"{100 * row[name]:.1f}" for name in ("paper", "mean_class"))
        expected = [row["setting"]["text"], f"{100 * row['top1']:.1f} {low} \u2013 {high}", paper, mean_class, each]
        assert [" ".join(text.split()) for text in cell] == expected
    (left_out,) = summary["not_run"]
    shown = tab.run("[...document.querySelectorAll('#not-run tbody td')].map(c => c.innerText)")
    assert shown == [left_out["setting"]["text"], left_out["reason"], f"{100 * left_out['paper']:.1f}"]
    facts = tab.run("document.getElementById('settings').innerText")
    assert "/videos/few_mixed" in facts
    assert "flow method" in facts


def test_the_chart_of_a_table(tmp_path: Path) -> None:
    """Dots, bars and the paper's marks lie where the numbers say, on one scale with the ticks."""
    summary = table_summary("table1b")
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    report.write_report(tmp_path)
    svg = "{http://www.w3.org/2000/svg}"
    root = ET.parse(tmp_path / "figures" / "table.svg").getroot()
    ticks = {each.text: float(each.get("x", "")) for each in root.iter(f"{svg}text") if each.get("class") == "tick"}
    first, last = ticks["0"], ticks["100"]

    def across(share: float) -> float:
        return first + share * (last - first)

    bars, dots, marks = (list(root.iter(f"{svg}{kind}"))[1:] for kind in ("rect", "circle", "path"))  # but the legend's
    assert len(bars) == len(dots) == len(marks) == len(summary["rows"])
    for row, bar, dot, mark in zip(summary["rows"], bars, dots, marks, strict=True):
        assert float(dot.get("cx", "")) == pytest.approx(across(row["top1"]), abs=0.1)
        assert float(bar.get("x", "")) == pytest.approx(across(row["interval"][0]), abs=0.1)
        width = across(row["interval"][1]) - across(row["interval"][0])
        assert float(bar.get("width", "")) == pytest.approx(width, abs=0.1)
        assert float(mark.get("d", "").split()[1]) == pytest.approx(across(row["paper"]), abs=0.1)


def test_several_splits_are_shown_beside_their_mean(tab: chromium.Page, tmp_path: Path) -> None:
    summary = splits_summary()
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    tab.open(report.write_report(tmp_path), width=1200)
    rows = "[...document.querySelector('table.accuracy').tBodies[0].rows]"
    cells = f"{rows}.map(row => [...row.cells].map(cell => cell.innerText))"
    for cell, name in zip(tab.run(cells), METHODS, strict=True):
        each = [f"{100 * split['top1'][name]:.1f}" for split in summary["splits"].values()]
        low, high = (f"{100 * bound:.1f}" for bound in summary["interval"][name])
        assert cell[1:4] == each
        assert " ".join(cell[4].split()) == f"{100 * summary['top1'][name]:.1f} {low} \u2013 {high}"
    links = tab.run("[...document.querySelectorAll('#splits a')].map(a => a.getAttribute('href'))")
    assert links == [f"split{number}/report.html" for number in (1, 2, 3)]


def test_a_page_is_of_the_summary_that_is_there(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not report.is_report_current(out)
    assert main(["report", str(out)]) == 0
    summary = engine.read_any_summary(out)
    assert capsys.readouterr().out.endswith(f"{report.format_summary(summary)}\n\nreport: {out}/report.html\n")
    assert report.is_report_current(out)
    (out / "summary.json").write_text(json.dumps({**summary, "notes": []}))
    assert not report.is_report_current(out)
    assert "About the data" not in report.write_report(out).read_text(encoding="utf-8")


@pytest.mark.parametrize("error", [ValueError, MemoryError, OSError, CheckpointError])
def test_a_page_that_cannot_be_drawn_costs_no_result(
    out: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("no such\nluck")

    monkeypatch.setattr(f"twostream_ext.report.page.draw_{kind}", fail)
    before = (out / "summary.json").read_bytes()
    assert main(["report", str(out)]) == 1
    said = capsys.readouterr()
    assert report.format_summary(json.loads(before)) in said.out
    (line,) = said.err.splitlines()
    assert line.startswith(f"twostream: error: {out}/report.html: cannot be made: ")
    assert line.endswith("luck; the result is in summary.json")
    assert [path.name for path in out.iterdir()] == ["summary.json"]


def test_a_table_whose_page_cannot_be_drawn_is_there_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command that makes it."""

    def fail(*_: object) -> None:
        raise ReportError("report.html: cannot be made: no luck")

    summary = table_summary()
    monkeypatch.setattr(engine, "reproduce", lambda *_, **__: summary)
    monkeypatch.setattr(engine, "generate_sources", lambda *_, **__: None)
    monkeypatch.setattr(report, "write_report", fail)
    assert main(["reproduce", "table3", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out.rstrip().endswith(report.format_experiment(summary))
    assert said.err == "twostream: error: report.html: cannot be made: no luck\n"


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("table", {"rows": [{}]}),
        ("table", {"rows": [{**table_summary()["rows"][0], "interval": [0.5]}]}),
        ("table", {"rows": [{**table_summary()["rows"][0], "setting": {}}]}),
        ("table", {"not_run": [{"setting": {"text": "x"}}]}),
        ("table", {"table": 3}),
        ("splits", {"splits": {"1": {}}}),
        ("splits", {"top1": {"spatial": "high"}}),
        ("splits", {"interval": {**splits_summary()["interval"], "svm": [0.5]}}),
        ("splits", {"mean_class": {}}),
    ],
)
def test_a_damaged_summary_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, damage: dict[str, Any]
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({**SUMMARIES[kind](), **damage}))
    assert main(["report", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/summary.json" in line


def test_a_strange_table_is_shown_within_its_directory(tmp_path: Path) -> None:
    """Whatever its name, and with no row that was run."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text(json.dumps({**table_summary(), "table": "../../table", "rows": []}))
    assert "No row of this table could be run" in report.write_report(out).read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
