# SPDX-License-Identifier: BSD-3-Clause
"""The report of a run: what its numbers are, that it opens in a browser, and that it never costs the result."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from argparse import Namespace
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import chromium
import cv2
import numpy as np
import pytest
import torch
from made_runs import RECIPE, make_run, measure_report
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from twostream_ext import engine, report
from twostream_ext.cli import main
from twostream_ext.cli.run import run_and_report
from twostream_ext.data import DataSource
from twostream_ext.errors import CheckpointError, ReportError
from twostream_ext.models import accuracy, first_filters
from twostream_ext.report import pictures
from twostream_ext.report.result import accuracies, class_recall, confident_mistakes, confused_pairs, read_result

# As names of folders come, and as a reader should see them.
NAMES = {
    "Win$100_$": "Win$100_$",
    "走る": "走る",
    "<b>x</b>": "<b>x</b>",
    "يركض": "يركض",
    'it\'s "quoted"': 'it\'s "quoted"',
    "a & b &amp; c": "a & b &amp; c",
    "</script><script>alert(1)</script>": "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}": "{{ 7 * 7 }}",
    "back\\slash": "back\\slash",
    " two  spaces ": " two  spaces ",
    "new\nline": "new\nline",
    "\x1b[31mred": "\\x1b[31mred",
    "half\udcff": "half\\udcff",
    "\u202eturned": "\u202eturned",
    "L" * 120: "L" * 120,
}
PARTS = ("accuracy", "training", "mistakes", "pairs", "examples", "recall", "confusion", "filters", "settings")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("named")
    make_run(out, list(NAMES), 5 * len(NAMES))
    return out


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return report.write_report(run)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with more classes than a picture has room for names."""
    out = tmp_path_factory.mktemp("many")
    make_run(out, [*NAMES, *(f"class {number}" for number in range(60 - len(NAMES)))], 180)
    return report.write_report(out)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browse(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


class Words(HTMLParser):
    """All elements of a page, and the text of those of class "name"."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.names: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        assert not any(name.startswith("on") for name, _ in attributes)
        self._inside = ("class", "name") in attributes
        if self._inside:
            self.names.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, text: str) -> None:
        if self._inside:
            self.names[-1] += text


def test_every_name_is_shown_as_it_is(page: Path) -> None:
    found = Words(page.read_text(encoding="utf-8"))
    assert set(NAMES.values()) <= set(found.names)
    assert found.elements.count("script") == 1  # of few classes
    methods = 4  # the page's own: of each a dot and its interval, and two numbers
    assert found.elements.count("i") == methods
    assert found.elements.count("b") == 3 * methods


def test_figures_are_files_too(page: Path) -> None:
    folder = page.parent / "figures"
    pngs = {"confusion", "examples", "filters_spatial", "filters_temporal", "mistakes", "pairs"}
    assert {path.stem for path in folder.glob("*.png")} == pngs
    for path in folder.glob("*.png"):
        assert cv2.imread(str(path)).std() > 10  # not an empty canvas
    svgs = {path.stem: ET.parse(path).getroot() for path in folder.glob("*.svg")}
    assert set(svgs) == {"confusion", "recall", "loss", "learning_rate", "samples_per_second"}
    for name in ("confusion", "recall"):
        titles = {each.text for each in svgs[name].iter("{http://www.w3.org/2000/svg}title")}
        assert titles == set(NAMES.values())


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("which", ["page", "many"])
def test_the_page_in_a_browser(tab: chromium.Page, request: pytest.FixtureRequest, which: str, width: int) -> None:
    for dark in (False, True):
        tab.open(request.getfixturevalue(which), width=width, dark=dark)
        assert tab.complaints == []
        assert tab.run("[...document.images].filter(image => !image.naturalWidth).length") == 0
        assert tab.run("document.images.length") > 30
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        sections = tab.run("[...document.querySelectorAll('section')].map(each => each.id)")
        assert sections == list(PARTS)
        assert tab.run("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    names = tab.run("[...document.querySelectorAll('.recall .name')].map(each => each.textContent)")
    assert names[: len(NAMES)] == list(NAMES.values())


def test_tables_are_sorted_by_a_click(tab: chromium.Page, page: Path) -> None:
    tab.open(page, width=1200)
    column = "[...document.querySelectorAll('.recall tbody tr')].map(row => row.cells[{}].{})"
    click = "document.querySelectorAll('.recall th button')[{}].click()"
    before = tab.run(column.format(4, "dataset.value"))
    tab.run(click.format(4))
    upwards = [float(value) for value in tab.run(column.format(4, "dataset.value"))]
    assert upwards == sorted(map(float, before)) != list(map(float, before))
    tab.run(click.format(4))
    assert [float(value) for value in tab.run(column.format(4, "dataset.value"))] == upwards[::-1]
    assert tab.run("document.querySelectorAll('.recall th')[4].ariaSort") == "descending"
    tab.run(click.format(0))
    names = tab.run(column.format(0, "textContent.trim()"))
    assert sorted(names) == sorted(name.strip() for name in NAMES.values())
    assert names.index("back\\slash") < names.index("Win$100_$") < names.index("走る")
    assert tab.complaints == []


def test_a_cell_of_many_classes_is_told_in_words(tab: chromium.Page, many: Path) -> None:
    tab.open(many, width=1200)
    box = tab.run(
        "(() => { const box = document.getElementById('cells'); box.scrollIntoView();"
        " const {x, y, width} = box.getBoundingClientRect(); return [x, y, width / 60]; })()"
    )
    x, y, cell = box
    tab.move(x + 2.5 * cell, y + 2.5 * cell)
    assert tab.run("document.getElementById('readout').textContent").startswith("<b>x</b> recognised: ")
    tab.move(x + 1.5 * cell, y + 0.5 * cell)
    told = tab.run("document.getElementById('readout').textContent")
    assert told.startswith("Win$100_$ taken for 走る: ")
    assert told.endswith(" of 3 videos")


def test_the_page_works_without_its_script(tab: chromium.Page, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    without = tmp_path / "page.html"
    without.write_text(text[: text.rindex("<script>")] + text[text.rindex("</script>") :], encoding="utf-8")
    tab.open(without, width=390)
    assert tab.run("document.querySelectorAll('.recall tbody tr').length") == len(NAMES)
    assert tab.complaints == []


def test_the_numbers_are_those_of_other_libraries(run: Path) -> None:
    result = read_result(run, engine.read_summary(run))
    labels = result.labels.numpy()
    for name, found in accuracies(result).items():
        predicted = result.predicted[name].numpy()
        right = int((predicted == labels).sum())
        assert found.top1 == pytest.approx(right / len(labels))
        interval = binomtest(right, len(labels)).proportion_ci(method="wilson")
        assert found.interval == pytest.approx((interval.low, interval.high))
        assert found.mean_class == pytest.approx(balanced_accuracy_score(labels, predicted))
        recall = class_recall(result.predicted[name], result.labels, len(NAMES))
        assert found.mean_class == pytest.approx(recall.mean())
        assert found.mean_class_interval[0] < found.mean_class < found.mean_class_interval[1]
    counts = confusion_matrix(labels, result.predicted["average"].numpy())
    np.fill_diagonal(counts, 0)
    pairs = confused_pairs(result, 400)
    assert sum(pair.videos for pair in pairs) == counts.sum()
    assert [pair.videos for pair in pairs] == sorted((pair.videos for pair in pairs), reverse=True)
    for pair in pairs:
        assert counts[pair.label, pair.predicted] == pair.videos
        assert labels[pair.example] == pair.label
        assert result.predicted["average"][pair.example] == pair.predicted
    average = result.scores["average"].numpy()
    wrong = [number for number in range(len(labels)) if average[number].argmax() != labels[number]]
    expected = sorted(wrong, key=lambda number: -average[number].max())
    assert confident_mistakes(result, 5) == expected[:5]


def test_means_over_classes() -> None:
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    predicted = torch.tensor([0, 0, 0, 1, 2, 0])
    assert class_recall(predicted, labels, 3).tolist() == pytest.approx([0.75, float("nan"), 0.5], nan_ok=True)
    assert accuracy(predicted, labels).mean_class == pytest.approx(0.625)


def test_a_method_whose_answers_are_not_kept_has_a_row_too(copy: Path) -> None:
    summary = json.loads((copy / "summary.json").read_text())
    summary["top1"]["of tomorrow"] = 0.5
    (copy / "summary.json").write_text(json.dumps(summary))
    assert "<td>of tomorrow</td>" in report.write_report(copy).read_text(encoding="utf-8")


def test_notes_about_the_data_are_on_the_page(copy: Path) -> None:
    """As they are; a run that has none, or did not keep them, has no such part."""
    assert "About the data" not in report.write_report(copy).read_text(encoding="utf-8")
    summary = json.loads((copy / "summary.json").read_text())
    notes = ["1 of 16 classes have no test video: '</script><script>alert(1)</script>'", "3 listed videos are missing"]
    (copy / "summary.json").write_text(json.dumps({**summary, "notes": notes}))
    page = report.write_report(copy).read_text(encoding="utf-8")
    assert "About the data" in page
    assert set(notes) <= set(Words(page).names)


def test_a_confusion_matrix_is_one_picture() -> None:
    counts = np.array([[3, 1], [0, 0]])
    picture = pictures.draw_confusion(counts)
    assert picture.shape == (2, 2, 4)
    assert tuple(picture[0, 0, :3]) == pictures.RIGHT
    assert tuple(picture[0, 1, :3]) == pictures.WRONG
    assert picture[0, 0, 3] > picture[0, 1, 3] > 0
    assert not picture[1, :, 3].any()  # no videos


def test_filters_are_drawn_as_the_paper_does() -> None:
    """A column a filter, a row an input channel, each filter on a scale of its own."""
    weights = np.zeros((3, 4, 7, 7), np.float32)
    weights[2, 1, 0, 6] = -0.5
    weights[0, 3, 6, 0] = 2
    picture = pictures.draw_flow_filters(weights)
    assert picture.shape == (4 * 8 - 1, 3 * 8 - 1, 4)
    assert picture[8, 2 * 8 + 6].tolist() == [0, 0, 0, 255]
    assert picture[3 * 8 + 6, 0].tolist() == [255, 255, 255, 255]
    assert (picture[:7, :7, :3] == 128).all()
    assert not picture[7].any()  # a gap
    colours = pictures.draw_colour_filters(np.float32(np.eye(3)).reshape(3, 3, 1, 1))
    assert colours[0, ::2].tolist() == [[255, 128, 128, 255], [128, 255, 128, 255], [128, 128, 255, 255]]


def test_the_filters_are_those_of_the_input(run: Path) -> None:
    for stream, channels in (("spatial", 3), ("temporal", 2 * RECIPE.length)):
        net = engine.load_model(run / stream / "model.safetensors").net
        weights = first_filters(net)
        assert weights is not None
        assert weights.shape[1] == channels
        assert torch.equal(weights, net.state_dict()["backbone.conv1.weight"])


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("report.html", "figures"))
    return out


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("flow", "no flow: "),
        ("frames", "no frame: "),
        ("spatial/model.safetensors", "spatial/model.safetensors: cannot be read"),
        ("temporal/log.csv", "temporal/log.csv: No such file"),
        ("fusion", "two streams, SVM"),
        ("run.json", "holds no run"),
    ],
)
def test_what_has_been_deleted_is_missing_on_the_page(copy: Path, gone: str, said: str) -> None:
    path = copy / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in report.write_report(copy).read_text(encoding="utf-8")


def test_a_damaged_clip_is_said_on_the_page(copy: Path) -> None:
    for path in (copy / "flow").rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    assert "no flow: " in report.write_report(copy).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [ValueError, MemoryError, OSError, CheckpointError])
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_report_that_cannot_be_drawn_costs_no_result(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[Exception], command: str
) -> None:
    def fail(*_: object) -> None:
        raise kind("no such\nluck")

    before = (copy / "summary.json").read_bytes()
    summary = json.loads(before)
    monkeypatch.setattr("twostream_ext.report.page.draw", fail)
    if command == "run":
        monkeypatch.setattr("twostream_ext.engine.run_pipeline", lambda *_, **__: summary)
        options = Namespace(out=copy, seed=0, device="cpu", workers=0)
        with pytest.raises(ReportError, match=r"report\.html: cannot be made"):
            run_and_report(options, DataSource(copy), RECIPE)
    else:
        assert main(["report", str(copy)]) == 1
    said = capsys.readouterr()
    assert report.format_table(summary) in said.out
    assert "report:" not in said.out
    if command == "report":
        (line,) = said.err.splitlines()
        assert line.startswith(f"twostream: error: {copy}/report.html: cannot be made: ")
        assert line.endswith("luck; the result is in summary.json")
    assert (copy / "summary.json").read_bytes() == before
    assert not report.is_report_current(copy)


def test_a_page_that_lacks_what_is_back_is_written_again(copy: Path) -> None:
    """A fault of the disk, say, that a next run does not have."""
    report.write_report(copy)
    assert report.is_report_current(copy)
    aside = (copy / "flow").rename(copy / "aside")
    page = report.write_report(copy).read_text(encoding="utf-8")
    assert not report.is_report_current(copy)
    aside.rename(copy / "flow")
    assert report.write_report(copy).read_text(encoding="utf-8") != page
    assert report.is_report_current(copy)


def test_the_command_writes_the_page_again(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{len(NAMES)} classes, {15 * len(NAMES)} training and {5 * len(NAMES)} test videos"
    assert lines[-1] == f"report: {copy}/report.html"
    assert report.is_report_current(copy)


@pytest.mark.parametrize("summary", [None, "{}", '{"table": "table2", "rows": []}', '{"splits": {}}', "[]", "{"])
def test_there_is_no_report_of_what_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], summary: str | None
) -> None:
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary)
    assert main(["report", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(CheckpointError):
        report.write_report(tmp_path)


def test_a_training_log_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / engine.LOG_FILE
    path.write_text(
        "iteration,loss,learning_rate,seconds,seconds_waiting\n0,3.5,0.01,0.2,0.1\nx,1\n1,nan,0.01,0.2,0.1\n2,2"
    )
    log = engine.read_training_log(path)
    assert log.iteration.tolist() == [0, 1]
    assert log.loss[0] == 3.5
    with pytest.raises(CheckpointError, match=r"none\.csv: No such file"):
        engine.read_training_log(tmp_path / "none.csv")


def test_a_page_is_of_one_training_too(copy: Path) -> None:
    """A log of one line, or of none, is drawn or left out."""
    (copy / "spatial" / engine.LOG_FILE).write_text("iteration,loss,learning_rate,seconds,seconds_waiting\n")
    (copy / "temporal" / engine.LOG_FILE).write_text("\n0,nan,0.01,0.2,0.1\n")
    report.write_report(copy)


@pytest.mark.slow
@pytest.mark.unsanitized
def test_a_report_of_the_size_of_kinetics(tmp_path: Path, tab: chromium.Page) -> None:
    """700 classes and 10,000 test videos: under a minute of processor time and a gigabyte, and it opens."""
    make_run(tmp_path, [f"class number {number}" for number in range(700)], 10_000)
    found = measure_report(tmp_path)
    assert found.processor_seconds < 60
    assert found.peak_memory_bytes < 1e9
    tab.open(tmp_path / "report.html", width=390)
    assert tab.complaints == []
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert tab.run("document.querySelectorAll('.recall tbody tr').length") == 700
