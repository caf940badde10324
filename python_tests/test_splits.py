# SPDX-License-Identifier: BSD-3-Clause
"""A run on several splits: each as if it were alone, one flow and one frame store, and their mean."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twostream_ext import engine, report
from twostream_ext.cli import main
from twostream_ext.data import DataSource, generate_videos, listed_splits
from twostream_ext.engine.splits import mean_of_splits
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowStore
from twostream_ext.media import write_frame_clip

TINY = replace(
    engine.GENERATED_RECIPE,
    width=0.0625,
    streams={
        name: replace(numbers, iterations=2, batch_size=4) for name, numbers in engine.GENERATED_RECIPE.streams.items()
    },
    frames=1,
    crops=1,
)
METHODS = ["spatial", "temporal", "average", "svm"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    generate_videos(folder, scenes="few_mixed", train_per_class=2, test_per_class=1, splits=2, size=(64, 64), frames=12)
    return folder


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Two splits of two classes, of files that nobody opens."""
    folder = tmp_path / "listed"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in (1, 2):
            (folder / name / f"v_{number}.mp4").touch()
    (folder / "classInd.txt").write_text("1 a\n2 b\n")
    for split, test in ((1, 2), (2, 1)):
        (folder / f"trainlist0{split}.txt").write_text(f"a/v_{split}.mp4 1\nb/v_{split}.mp4 2\n")
        (folder / f"testlist0{split}.txt").write_text(f"a/v_{test}.mp4\nb/v_{test}.mp4\n")
    return folder


@pytest.fixture(autouse=True)
def small_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command takes, whatever it is told."""
    monkeypatch.setattr(engine, "find_recipe", lambda name: TINY)


def run(clips: Path, out: Path, *splits: str) -> int:
    sources = ["--videos", str(clips), "--lists", str(clips)]
    return main(["run", *sources, "--out", str(out), "--split", *splits, "--workers", "0"])


@pytest.fixture(scope="module")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    engine.run_splits(clips, clips, out, splits=[1, 2], recipe=TINY, workers=0, say=lambda _: None)
    return out


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


@pytest.mark.slow
def test_each_split_is_what_it_is_alone(clips: Path, finished: Path, tmp_path: Path) -> None:
    alone = engine.run_pipeline(clips, clips, tmp_path, recipe=TINY, split=2, workers=0, say=lambda _: None)
    assert summary_of(finished / "split2") == alone
    for name in ("spatial_test", "temporal_train"):
        expected = engine.load_scores(tmp_path / "scores" / f"{name}.safetensors")
        found = engine.load_scores(finished / "split2" / "scores" / f"{name}.safetensors")
        assert found.names == expected.names
        assert torch.equal(found.scores, expected.scores)
    whole = summary_of(finished)
    assert list(whole["splits"]) == ["1", "2"]
    for measure in ("top1", "mean_class"):
        assert list(whole[measure]) == METHODS
        assert whole["splits"]["2"][measure] == alone[measure]
        for name, value in whole[measure].items():
            each = [whole["splits"][split][measure][name] for split in "12"]
            assert value == pytest.approx(np.mean(each), abs=1e-4)


@pytest.mark.slow
def test_there_is_one_store_for_all(clips: Path, finished: Path, tmp_path: Path) -> None:
    videos = len(list(clips.rglob("*.mp4")))
    for name in ("flow", "frames"):
        assert len(list((finished / name).rglob("*.safetensors"))) == videos
        for split in (1, 2):
            link = finished / f"split{split}" / name
            assert link.is_symlink()
            assert link.samefile(finished / name)
    moved = tmp_path / "moved"
    moved.symlink_to(finished)
    assert len(FlowStore.open(moved / "split1" / "flow")) == videos


@pytest.mark.slow
def test_the_command_goes_on_and_shows_the_splits_and_their_mean(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    train = engine.pipeline.train

    def broken_off(*given: Any, **named: Any) -> None:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(str(named["out_dir"].relative_to(tmp_path)))
        train(*given, **named)

    monkeypatch.setattr(engine.pipeline, "train", broken_off)
    assert run(clips, tmp_path, "1", "2") == 130
    assert not (tmp_path / "summary.json").exists()
    monkeypatch.setattr(
        engine.pipeline, "train", lambda *given, **named: (trained.append("more"), train(*given, **named))
    )
    assert run(clips, tmp_path, "all") == 0
    assert trained == ["split1/spatial", "split1/temporal", "split2/spatial", "more"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"report: {tmp_path}/report.html"
    table = report.format_splits(summary_of(tmp_path)).splitlines()
    assert lines[-2 - len(table) : -2] == table
    assert table[0] == "8 classes, 2 splits"
    assert table[1].split() == ["top-1", "split", "1", "split", "2", "mean", "95", "%", "interval"]
    assert sum(line.startswith("split 2: ") for line in lines) > 4
    pages = [tmp_path / name for name in ("report.html", "split1/report.html", "split2/report.html")]
    before = [page.stat().st_mtime_ns for page in pages]
    assert run(clips, tmp_path, "1", "2", "1") == 0
    assert [page.stat().st_mtime_ns for page in pages] == before
    assert trained[4:] == []
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-2 - len(table) : -2] == table


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Runs that compute nothing; gets what each is given."""
    given: list[dict[str, Any]] = []

    def pretend(videos: Path, lists: Path, out: Path, **options: Any) -> dict[str, Any]:
        given.append({"out": out, **options})
        options["say"]("begun")
        shares, ends = dict.fromkeys(METHODS, options["split"] / 10), {name: [0.05, 0.4] for name in METHODS}
        measures = {"top1": shares, "interval": ends, "mean_class": shares, "mean_class_interval": ends}
        return {**measures, "videos": {"train": 16, "test": 8}, "notes": ["doubtful"], "split": options["split"]}

    monkeypatch.setattr(engine.splits, "run_pipeline", pretend)
    return given


def test_each_split_has_a_directory_and_links_to_the_stores(
    listed: Path, tmp_path: Path, quick: list[dict[str, Any]]
) -> None:
    out, said = tmp_path / "out", list[str]()
    options: dict[str, Any] = {"recipe": TINY, "seed": 3, "skip_missing": True, "workers": 0, "say": said.append}
    summary = engine.run_splits(listed, listed, out, splits=[2, 1], **options)
    assert [(each["out"], each["split"]) for each in quick] == [(out / "split2", 2), (out / "split1", 1)]
    assert all((each["seed"], each["skip_missing"], each["workers"]) == (3, True, 0) for each in quick)
    assert said == ["split 2: begun", "split 1: begun"]
    assert summary == summary_of(out)
    assert summary["notes"] == ["split 2: doubtful", "split 1: doubtful"]
    assert summary["top1"] == dict.fromkeys(METHODS, 0.15)
    assert [(out / "split1" / name).readlink() for name in ("flow", "frames")] == [Path("../flow"), Path("../frames")]
    given = tmp_path / "frames"
    for path in listed.rglob("*.mp4"):
        write_frame_clip(given / path.parent.name / f"{path.stem}.safetensors", [np.zeros((8, 8, 3), np.uint8)] * 2)
    engine.run_splits(listed, listed, tmp_path / "other", splits=[1], **options, frames=given)
    assert quick[-1]["frames"] == given
    assert [path.name for path in (tmp_path / "other" / "split1").iterdir()] == ["flow"]  # links to what is given, else
    with pytest.raises(SettingsError, match=r"splits are \[1, 1\], expected one or more, each once"):
        engine.run_splits(listed, listed, out, splits=[1, 1], recipe=TINY)


def test_a_directory_is_of_one_split_or_of_several(
    listed: Path, tmp_path: Path, quick: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    several, one = tmp_path / "several", tmp_path / "one"
    engine.run_splits(listed, listed, several, splits=[1, 2], recipe=TINY, workers=0, say=lambda _: None)
    assert run(listed, several, "1") == 2
    assert "was made with split several, not 1; use another directory" in capsys.readouterr().err
    one.mkdir()
    (one / "run.json").write_text(json.dumps({**json.loads((several / "run.json").read_text()), "split": 1}))
    assert run(listed, one, "1", "2") == 2
    assert "was made with split 1, not several; use another directory" in capsys.readouterr().err
    assert [path.name for path in one.iterdir()] == ["run.json"]
    assert main(["predict", str(next(listed.rglob("*.mp4"))), "--model", str(several)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{several}: holds runs on several splits; give that of one, {several}/split1 say")


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (["all", "1"], "--split all is given beside numbers"),
        (["1", "0"], "expected a whole number from 1"),
        (["every"], "expected a whole number from 0, got 'every'"),
        (["1", "3"], "trainlist03.txt"),
    ],
)
def test_splits_that_cannot_be(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], splits: list[str], said: str
) -> None:
    """Before anything is computed or written."""
    out = tmp_path / "out"
    try:
        code = run(listed, out, *splits)
    except SystemExit as stopped:  # argparse
        code = int(str(stopped.code))
    assert code in (1, 2)
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_lists_tell_which_splits_there_are(tmp_path: Path) -> None:
    names = {
        "ucf": ["classInd.txt", *(f"{part}list{number:02}.txt" for part in ("train", "test") for number in (1, 2, 3))],
        "hmdb": [f"{name}_test_split{number}.txt" for name in ("brush_hair", "wave") for number in (1, 2, 3)],
        "tsn": [f"ucf101_{part}_split_{number}_videos.txt" for part in ("train", "val") for number in (1, 2, 3)],
        "kinetics": ["kinetics400_train_list_videos.txt", "kinetics400_val_list_videos.txt"],
    }
    for form, files in names.items():
        folder = tmp_path / form
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        assert listed_splits(DataSource(tmp_path, folder)) == ([1] if form == "kinetics" else [1, 2, 3])
    (tmp_path / "none").mkdir()
    with pytest.raises(SettingsError, match="none: has no lists of which all splits could be taken"):
        listed_splits(DataSource(tmp_path / "none"))


@pytest.mark.parametrize("disjoint", [True, False])
def test_the_mean_of_splits(disjoint: bool) -> None:
    """With its interval: independent errors add up by their squares, one and the same error as it is."""
    results = [
        {
            "top1": {"spatial": share},
            "interval": {"spatial": [share - 0.03, share + 0.02]},
            "mean_class": {"spatial": share / 2},
            "mean_class_interval": {"spatial": [share / 2 - 0.06, share / 2 + 0.1]},
        }
        for share in (0.5, 0.6, 0.9)
    ]
    found = mean_of_splits(results, disjoint=disjoint)
    assert found["top1"]["spatial"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["mean_class"]["spatial"] == pytest.approx(1 / 3, abs=1e-4)
    shrunk = math.sqrt(3) if disjoint else 1
    assert found["interval"]["spatial"] == pytest.approx([2 / 3 - 0.03 / shrunk, 2 / 3 + 0.02 / shrunk], abs=1e-4)
    expected = [1 / 3 - 0.06 / shrunk, 1 / 3 + 0.1 / shrunk]
    assert found["mean_class_interval"]["spatial"] == pytest.approx(expected, abs=1e-4)
