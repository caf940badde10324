# SPDX-License-Identifier: BSD-3-Clause
"""`twostream reproduce`: rows and numbers are the paper's, nothing is trained twice, and what cannot be run is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream_ext import engine
from twostream_ext.cli import main
from twostream_ext.data import DataSource, generate_videos
from twostream_ext.engine import Sources
from twostream_ext.engine.experiments import interval_95
from twostream_ext.errors import SettingsError
from twostream_ext.report import format_experiment

# The paper's tables, in percent, row by row as they are printed there.
PAPER = {
    "table1a": [42.5, 52.3, 70.8, 72.8, 72.7, 59.9],
    "table1b": [73.9, 80.4, 79.9, 81.0, 79.6, 80.2, 81.2],
    "table2": [46.6, 49.0, 52.8, 55.4],
    "table3": [85.6, 85.9, 86.2, 87.0],
    "table4": [73.0, 83.7, 86.9, 88.0, 40.5, 54.6, 58.0, 59.4],
}
TINY = replace(
    engine.GENERATED_RECIPE,
    width=0.0625,
    streams={
        name: replace(numbers, iterations=3, batch_size=4) for name, numbers in engine.GENERATED_RECIPE.streams.items()
    },
    frames=1,
    crops=1,
)


@pytest.mark.parametrize("name", PAPER)
def test_rows_have_the_numbers_of_the_paper(name: str) -> None:
    assert [round(100 * row.paper, 1) for row in engine.TABLES[name].rows] == PAPER[name]
    assert len({row.text for row in engine.TABLES[name].rows}) * (2 if name == "table4" else 1) == len(PAPER[name])


def test_rows_have_the_settings_of_the_paper() -> None:
    """Table by table, what tells its rows apart."""
    (nets,) = zip(*(row.nets for row in engine.TABLES["table1a"].rows), strict=True)
    assert [(net.start is not None, net.last_layer, net.dropout) for net in nets] == [
        (False, False, 0.5),
        (False, False, 0.9),
        (True, False, 0.5),
        (True, False, 0.9),
        (True, True, 0.5),
        (True, True, 0.9),
    ]
    (nets,) = zip(*(row.nets for row in engine.TABLES["table1b"].rows), strict=True)
    assert [(net.input, net.length, net.bidirectional, net.subtract) for net in nets] == [
        ("stack", 1, False, "mean"),
        ("stack", 5, False, "mean"),
        ("stack", 10, False, "none"),
        ("stack", 10, False, "mean"),
        ("trajectory", 10, False, "none"),
        ("trajectory", 10, False, "mean"),
        ("stack", 10, True, "mean"),
    ]
    (nets,) = zip(*(row.nets for row in engine.TABLES["table2"].rows), strict=True)
    assert [(net.on, net.start and net.start.on) for net in nets] == [
        ("own", None),
        ("own", "other"),
        ("added", None),
        ("multi_task", None),
    ]
    rows = engine.TABLES["table3"].rows
    assert [(row.nets[1].on, row.nets[1].bidirectional, row.fusion) for row in rows] == [
        ("own", True, "average"),
        ("own", False, "average"),
        ("multi_task", False, "average"),
        ("multi_task", False, "svm"),
    ]
    rows = engine.TABLES["table4"].rows
    assert [(row.own, [net.stream for net in row.nets], row.fusion) for row in rows] == [
        (own, streams, fusion)
        for own in ("first", "second")
        for streams, fusion in (
            (["spatial"], None),
            (["temporal"], None),
            (["spatial", "temporal"], "average"),
            (["spatial", "temporal"], "svm"),
        )
    ]
    assert [engine.TABLES[name].splits for name in PAPER] == [1, 1, 1, 1, 3]
    for name in ("table3", "table4"):  # the best of table 1a, "used afterwards"
        spatial = {net for row in engine.TABLES[name].rows for net in row.nets if net.stream == "spatial"}
        assert [(net.last_layer, net.dropout, net.start == engine.paper_tables.IMAGES) for net in spatial] == [
            (True, 0.5, True)
        ]


def test_the_mean_class_accuracy_is_not_that_of_videos() -> None:
    right = np.array([[True, True, True, False], [True, True, True, True]])
    labels = np.array([0, 0, 0, 1])
    assert engine.experiments._mean_class(right, labels) == pytest.approx((1 + 0.5) / 2)  # of videos: 7 of 8


def test_a_budget_scales_iterations_and_weights() -> None:
    paper = engine.RECIPES["paper"]
    quarter = paper.scaled(0.25)
    assert (quarter.width, [numbers.iterations for numbers in quarter.streams.values()]) == (0.5, [20_000, 20_000])
    assert replace(quarter, width=1.0, streams=paper.streams) == paper  # and nothing else
    assert paper.scaled(4).width == 1.0  # no net is wider than the paper's
    assert engine.GENERATED_RECIPE.scaled(4).width == 0.25
    assert paper.scaled(1e-9).numbers("temporal").iterations == 1
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SettingsError, match="budget must be above 0"):
            paper.scaled(wrong)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    made = []
    for name in ("few_mixed", "many_mixed", "many_looks"):
        folder = tmp_path_factory.mktemp(name)
        generate_videos(folder, scenes=name, train_per_class=2, test_per_class=1, splits=1, size=(64, 64), frames=17)
        made.append(DataSource(folder, folder, name=name))
    return Sources(*made)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories of the nets that are trained, as they come."""
    begun: list[str] = []
    train = engine.kept_nets.train

    def noted(*arguments: Any, **options: Any) -> None:
        begun.append(options["out_dir"].name)
        train(*arguments, **options)

    monkeypatch.setattr(engine.kept_nets, "train", noted)
    return begun


def run(table: str, out: Path, sources: Sources, **options: Any) -> dict[str, Any]:
    return engine.reproduce(table, out, sources, **{"recipe": TINY, "seeds": [0], "workers": 0, "say": str, **options})


def test_a_table_is_made_and_its_nets_are_kept_for_the_next(
    tmp_path: Path, sources: Sources, trainings: list[str]
) -> None:
    summary = run("table2", tmp_path, sources, seeds=[0, 1])
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["table"], summary["not_run"]) == ("table2", [])
    for row, paper in zip(summary["rows"], PAPER["table2"], strict=True):
        assert (row["seeds"], len(row["each"]), round(100 * row["paper"], 1)) == (2, 2, paper)
        assert row["top1"] == pytest.approx(np.mean(row["each"]), abs=1e-4)
        low, high = row["interval"]
        assert 0 <= low <= row["top1"] <= high <= 1
        assert row["mean_class"] == row["top1"]  # there are as many test videos of each class
    assert len(set(trainings)) == len(trainings) == 2 * 5  # alone, on the large one, fine-tuned, added, multi-task
    trainings.clear()
    assert run("table2", tmp_path, sources, seeds=[0, 1]) == summary
    assert trainings == []
    run("table3", tmp_path, sources)
    texts = [row["setting"]["text"] for row in json.loads((tmp_path / "summary.json").read_text())["rows"]]
    assert all("(pre-trained on many_looks)" in text for text in texts)  # and not on ImageNet
    # Images, the spatial net's last layer, bi-directional; the other temporal nets are those of table 2.
    assert [name.split("-")[0] for name in trainings] == ["spatial", "spatial", "temporal"]


def test_what_was_broken_off_goes_on_and_trains_nothing_twice(
    tmp_path: Path, sources: Sources, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("table2", tmp_path / "whole", sources)
    names = list(trainings)
    trainings.clear()
    train = engine.kept_nets.train

    def broken_off(*arguments: Any, **options: Any) -> None:
        if len(trainings) == 2:
            raise KeyboardInterrupt
        train(*arguments, **options)

    monkeypatch.setattr(engine.kept_nets, "train", broken_off)
    with pytest.raises(KeyboardInterrupt):
        run("table2", tmp_path / "broken", sources)
    monkeypatch.setattr(engine.kept_nets, "train", train)
    assert not (tmp_path / "broken" / "summary.json").exists()
    assert run("table2", tmp_path / "broken", sources) == whole
    assert trainings == names


def test_a_net_is_of_its_videos_and_numbers(tmp_path: Path, sources: Sources, trainings: list[str]) -> None:
    """Other numbers, another seed or other videos are other nets in the same directory; numbers of a test are not."""
    changes: list[dict[str, Any]] = [
        {},
        {"seeds": [1]},
        {"recipe": replace(TINY, width=0.03)},
        {"recipe": replace(TINY, frames=2)},
        {"recipe": TINY.with_numbers("spatial", replace(TINY.numbers("spatial"), iterations=9))},
        {},
    ]
    for options in changes:
        run("table2", tmp_path, Sources(sources.first), **options)
    run("table2", tmp_path, Sources(sources.images))
    assert len(set(trainings)) == len(trainings) == 4


def test_rows_that_cannot_be_run_say_why(tmp_path: Path, sources: Sources) -> None:
    said: list[str] = []
    summary = run("table2", tmp_path, Sources(sources.first), say=said.append)
    assert [row["setting"]["text"] for row in summary["rows"]] == ["small data set alone"]
    assert {row["reason"] for row in summary["not_run"]} == {"needs a second data set"}
    assert [row["paper"] for row in summary["not_run"]] == [0.490, 0.528, 0.554]
    assert sum("not run: needs a second data set" in line for line in said) == 3
    summary = run("table1a", tmp_path, Sources(sources.first))
    assert [row["paper"] for row in summary["rows"]] == [0.425, 0.523]
    assert {row["reason"] for row in summary["not_run"]} == {"needs a net trained on single images (--init FILE)"}
    table = format_experiment(summary)
    assert "not run" in table
    assert "42.5" in table
    summary = run("table4", tmp_path, Sources(sources.first))
    assert (summary["rows"], len(summary["not_run"])) == ([], 8)


@pytest.mark.slow
def test_a_mean_of_splits_is_of_each_splits_own_nets(tmp_path: Path, trainings: list[str]) -> None:
    folders = []
    for name in ("few_mixed", "many_mixed", "many_looks"):
        folders.append(tmp_path / name)
        generate_videos(
            folders[-1], scenes=name, train_per_class=3, test_per_class=1, splits=3, size=(64, 64), frames=11
        )
    three = Sources(*(DataSource(folder, folder, name=folder.name) for folder in folders))
    summary = run("table4", tmp_path / "out", three)
    assert (len(summary["rows"]), summary["splits"]) == (8, 3)
    # One net on images; of each data set and split, its last layer for the frames and a multi-task net for the flow.
    assert len(set(trainings)) == len(trainings) == 1 + 2 * 3 * 2


def test_the_interval_is_wilsons_and_widens_with_the_spread_of_seeds() -> None:
    right = np.zeros((1, 100), bool)
    right[:, :80] = True
    assert interval_95([right]) == pytest.approx((0.7112, 0.8666), abs=1e-4)  # 80 of 100, of any textbook
    again = interval_95([np.repeat(right, 3, axis=0)])  # three seeds that say the same tell no more
    assert again == pytest.approx(interval_95([right]))
    others = np.stack([np.roll(right[0], shift) for shift in (0, 40, 80)])  # as good, of other videos: they tell more
    low, high = interval_95([others])
    assert high - low < 0.7 * (again[1] - again[0])
    worse = np.stack([right[0], right[0] & (np.arange(100) < 50), right[0] & (np.arange(100) < 65)])
    low, high = interval_95([worse])  # seeds that differ say that another seed would differ too
    assert high - low > 0.25
    low, high = interval_95([np.ones((3, 50), bool)])
    assert (low, high) == pytest.approx((50 / (50 + 1.96**2), 1.0), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["table9"], "table9"),
        (["table2", "--lists", "here"], "which videos?"),
        (["table2", "--data", "a.toml", "--data", "b.toml", "--data", "c.toml"], "--data is given 3 times"),
        (["table2", "--data", "stored.toml"], "data set 'stored': flow, frames and whole are of no use here"),
        (["table1b", "--videos", "nowhere", "--lists", "nowhere"], "nowhere"),
        (["table1b", "--budget", "0"], "expected a number above 0"),
        (["table1b", "--seeds", "0"], "expected a whole number from 1"),
        (["table1a", "--init", "nowhere.mat"], "nowhere.mat"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "stored"):
        flow = 'flow = "flow"' if name == "stored" else ""
        Path(f"{name}.toml").write_text(f'videos = "nowhere"\n{flow}')
    try:
        code = main(["reproduce", *options, "--out", str(tmp_path / "out")])
    except SystemExit as stopped:  # argparse
        code = int(str(stopped.code))
    assert code in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()
    assert expected in error[-1]
    assert not any("Traceback" in line for line in error)


def test_the_command_on_generated_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"table1b": {"first": engine.generated_tables._Generated("shaken", 1, 1)}}
    monkeypatch.setattr(engine.generated_tables, "_GENERATED", made)
    command = ["reproduce", "table1b", "--out", str(tmp_path), "--seeds", "1", "--budget", "0.004", "--workers", "0"]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in printed[-9:-2]] == [f"{value:.1f}" for value in PAPER["table1b"]]
    assert printed[-2:] == ["", f"report: {tmp_path}/report.html"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["setting"]["nets"][0]["length"] for row in summary["rows"]] == [1, 5, 10, 10, 10, 10, 10]
    assert summary["data"] == {"shaken": str(tmp_path / "videos" / "shaken")}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f"<b>{100 * row['top1']:.1f}</b>" in page for row in summary["rows"])
