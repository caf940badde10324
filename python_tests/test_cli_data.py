# SPDX-License-Identifier: BSD-3-Clause
"""The data sets of the commands: options or files, one or several, in every layout, whole or with videos missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
import training_runs
from test_formats import ODD

from twostream_ext import data, engine
from twostream_ext.cli import main
from twostream_ext.engine import RECIPES, load_model, load_scores
from twostream_ext.engine.checkpoint import model_origin
from twostream_ext.errors import SettingsError
from twostream_ext.extraction import extract
from twostream_ext.media import read_video

NUMBERS = ["--recipe", "demo", "--iterations", "3", "--batch-size", "8", "--length", "2", "--workers", "0"]
TESTS = ["--frames-per-video", "2", "--crops", "1"]


@pytest.fixture(autouse=True)
def small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's recipe with a smaller net."""
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], input_size=training_runs.SIDE, width=0.05))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two data sets: of the classes c0, c1 and c2, and of d and c1; each with lists, a flow store and a file."""
    for name in ("first", "second"):
        training_runs.make_folder(tmp_path / name)
        (tmp_path / name / "testlist01.txt").write_text("c0/a.avi\nc1/a.avi\n")
    second = tmp_path / "second"
    for folder in (second, second / "flow"):
        (folder / "c0").rename(folder / "d")
    (second / "classInd.txt").write_text("1 d\n2 c1\n")
    (second / "trainlist01.txt").write_text("d/a.avi\nc1/b.avi\n")
    (second / "testlist01.txt").write_text("d/b.avi\nc1/a.avi\n")
    (tmp_path / "first" / "trainlist01.txt").write_text("c0/b.avi\nc1/b.avi\nc2/a.avi\nc2/b.avi\n")
    write_toml(tmp_path / "one.toml", "first")
    write_toml(tmp_path / "two.toml", "second")
    return tmp_path


def write_toml(path: Path, folder: str, *more: str) -> str:
    lines = [f'videos = "{folder}"', f'lists = "{folder}"', f'flow = "{folder}/flow"', *more]
    path.write_text("\n".join(lines))
    return str(path)


def train(out: Path, *sources: str) -> int:
    return main(["train", "temporal", *sources, "--out", str(out), *NUMBERS])


def evaluate(model: Path, out: Path, *sources: str) -> int:
    return main(["evaluate", "--model", str(model / "model.safetensors"), *sources, "--out", str(out), *TESTS])


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_model(out / "model.safetensors").net.state_dict()


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ---- one data set ----------------------------------------------------------------------------------------------------


def test_a_file_says_what_the_options_say(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = root / "first"
    assert train(tmp_path / "a", *training_runs.sources(first)) == 0
    assert f"{first}: format ucf, 3 classes, 4 training and 2 test videos\n" in capsys.readouterr().out
    assert train(tmp_path / "b", "--data", str(root / "one.toml")) == 0
    assert all(torch.equal(value, weights(tmp_path / "b")[name]) for name, value in weights(tmp_path / "a").items())
    for number, sources in enumerate((training_runs.sources(first), ["--data", str(root / "one.toml")])):
        assert evaluate(tmp_path / "a", tmp_path / f"{number}.safetensors", *sources) == 0
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_an_option_beside_a_file_goes_before(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So one file serves all splits."""
    shutil.copy(root / "first" / "trainlist01.txt", root / "first" / "trainlist02.txt")
    (root / "first" / "testlist02.txt").write_text("c2/a.avi\n")
    assert train(tmp_path / "out", "--data", str(root / "one.toml"), "--split", "2") == 0
    assert "4 training and 1 test videos\nnote: 1 of 1 test videos are training videos" in capsys.readouterr().out
    write_toml(root / "tsn.toml", "first", 'format = "tsn"')
    assert train(tmp_path / "tsn", "--data", str(root / "tsn.toml")) == 1
    assert "no lists of split 1" in error_line(capsys)
    assert train(tmp_path / "tsn", "--data", str(root / "tsn.toml"), "--lists", str(root / "first")) == 0


@pytest.mark.parametrize("command", ["train temporal", "evaluate --model none", "run"])
def test_every_command_says_what_is_wrong_with_its_data(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    one, two = str(root / "one.toml"), str(root / "two.toml")
    (root / "bad.toml").write_text('vidoes = "x"')
    shutil.copytree(root, root / "again", ignore=lambda *_: ["again"])
    for sources, message in (
        ([], "which videos? give --videos DIR, or --data NAME.toml"),
        (["--data", str(root / "bad.toml")], "key 'vidoes' is not known; did you mean 'videos'?"),
        (["--data", one, "--data", two, "--flow", "f"], "--flow is given beside several --data files"),
        (["--data", one, "--data", str(root / "again" / "one.toml")], "another data set is called 'one', too"),
    ):
        assert main([*command.split(), *sources, "--out", str(tmp_path / "out")]) == 2
        assert message in error_line(capsys)
        assert not (tmp_path / "out").exists()


def test_what_is_doubtful_is_said_before_training(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = root / "first"
    (first / "trainlist01.txt").write_text("c0/a.avi\nc1/b.avi\nc1/none.avi\n")
    assert train(tmp_path / "out", *training_runs.sources(first)) == 1
    assert "line 3: no video" in error_line(capsys)
    assert train(tmp_path / "out", *training_runs.sources(first), "--skip-missing") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("note: ")] == [
        "note: 1 listed videos are missing and left out: 'c1/none.avi'",
        "note: 1 of 2 test videos are training videos, too: 'c0/a'",
        "note: 1 of 3 classes have no training video: 'c2'",
        "note: 1 of 3 classes have no test video: 'c2'",
    ]
    assert model_origin(tmp_path / "out" / "model.safetensors")["missing"] == ["c1/none.avi"]
    (first / "classInd.txt").write_text("1 c0\n")
    (first / "trainlist01.txt").write_text("c0/b.avi\n")
    (first / "testlist01.txt").write_text("c0/a.avi\n")
    for command in (["train", "temporal", *training_runs.sources(first)], ["run", *training_runs.sources(first)[:4]]):
        assert main([*command, "--out", str(tmp_path / "none")]) == 2
        assert "a classifier needs at least 2 classes, got ['c0']" in error_line(capsys)
    assert not (tmp_path / "none").exists()


def test_class_folders_without_lists(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lists that are made are left, and what is tested was not trained on."""
    videos, out = root / "first", tmp_path / "out"
    for path in videos.glob("*.txt"):
        path.unlink()
    sources = ["--videos", str(videos), "--flow", str(videos / "flow")]
    assert train(out, *sources, "--seed", "2") == 0
    assert "format folders, 3 classes, 3 training and 3 test videos\n" in capsys.readouterr().out
    drawn = data.Folders(videos, seed=2)
    assert data.UCFLists(videos, out / "lists").train == drawn.train
    (videos / "c0" / "new.avi").touch()  # which the store has not
    assert train(out, *sources, "--seed", "2", "--resume") == 0
    capsys.readouterr()
    assert evaluate(out, tmp_path / "scores", *sources) == 2
    assert "has no lists; give those that training left, --lists OUT/lists" in error_line(capsys)
    assert evaluate(out, tmp_path / "scores", *sources, "--lists", str(out / "lists")) == 0
    assert load_scores(tmp_path / "scores").names == [video.name for video in drawn.test.videos]


# ---- several data sets -----------------------------------------------------------------------------------------------


def test_two_data_sets_have_a_head_each_called_by_its_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = ["--data", str(root / "one.toml")], ["--data", str(root / "two.toml")]
    out = tmp_path / "both"
    assert train(out, *one, *two) == 0
    assert "temporal net, 3 classes and 2 classes, 6 videos" in capsys.readouterr().out
    trained = load_model(out / "model.safetensors")
    assert trained.classes == {"one": ["c0", "c1", "c2"], "two": ["d", "c1"]}
    for sources, dataset in ((one, "one"), (two, "two"), (training_runs.sources(root / "second"), "two")):
        assert evaluate(out, tmp_path / "scores", *sources) == 0
        found = load_scores(tmp_path / "scores")
        videos = data.read(root / f"{dataset}.toml").test
        expected = engine.evaluate(trained.net, videos, frames=2, crops=1, dataset=dataset)
        assert torch.equal(found.scores, expected)
        assert torch.equal(found.labels, videos.labels)
    # As in Python.
    sets = {name: data.read(root / f"{name}.toml").train for name in ("one", "two")}
    net = engine.new_net(replace(RECIPES["demo"], length=2), "temporal", {"one": 3, "two": 2}, seed=0)
    settings = replace(RECIPES["demo"].numbers("temporal"), iterations=3, batch_size=8).settings()
    joined = data.join_video_sets(sets, {"one": 3, "two": 2})
    engine.train(net, joined, settings=settings, out_dir=tmp_path / "python", workers=0)
    assert all(torch.equal(value, weights(out)[name]) for name, value in net.state_dict().items())


def test_heads_with_the_same_classes_are_told_apart_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toml(root / "three.toml", "first")
    both = ["--data", str(root / "one.toml"), "--data", str(root / "three.toml")]
    assert train(tmp_path / "out", *both) == 0
    assert evaluate(tmp_path / "out", tmp_path / "three", "--data", str(root / "three.toml")) == 0
    net = load_model(tmp_path / "out" / "model.safetensors").net
    videos = data.read(root / "three.toml").test
    expected = engine.evaluate(net, videos, frames=2, crops=1, dataset="three")
    assert torch.equal(load_scores(tmp_path / "three").scores, expected)
    capsys.readouterr()
    assert evaluate(tmp_path / "out", tmp_path / "none", *training_runs.sources(root / "first")) == 2
    assert f"one, three have the classes of {root / 'first'}; name one: --data X.toml" in error_line(capsys)
    assert evaluate(tmp_path / "out", tmp_path / "none", *both) == 2
    assert "--data is given 2 times; only training takes several" in error_line(capsys)


def test_two_data_sets_in_one_head(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 3 of table 2: classes of the second are left out that the first has, and all its videos are trained on."""
    one, two = ["--data", str(root / "one.toml")], ["--data", str(root / "two.toml")]
    assert train(tmp_path / "none", *one, *two, "--one-head") == 2
    assert "class 'c1' comes twice; leave out the second" in error_line(capsys)
    write_toml(root / "two.toml", "second", 'leave_out = ["c1"]', "whole = true")
    assert train(tmp_path / "out", *one, *two, "--one-head") == 0
    said = capsys.readouterr().out
    assert f"{root / 'second'}: format ucf, 1 classes, 2 training and 0 test videos" in said
    assert "temporal net, 4 classes, 6 videos" in said
    assert load_model(tmp_path / "out" / "model.safetensors").classes == {"one+two": ["c0", "c1", "c2", "d"]}
    for sources in (one, training_runs.sources(root / "first")):
        assert evaluate(tmp_path / "out", tmp_path / "scores", *sources) == 0
        found = load_scores(tmp_path / "scores")
        assert found.classes == ["c0", "c1", "c2", "d"]
        assert (list(found.scores.shape), found.labels.tolist()) == ([2, 4], [0, 1])
    assert train(tmp_path / "none", *one, "--one-head") == 2
    assert "--one-head needs several --data files" in error_line(capsys)


def test_a_net_of_one_data_set_starts_one_of_another(root: Path, tmp_path: Path) -> None:
    """Row 2 of table 2."""
    assert train(tmp_path / "first", "--data", str(root / "one.toml")) == 0
    init = ["--init", str(tmp_path / "first" / "model.safetensors"), "--last-layer"]
    assert train(tmp_path / "second", "--data", str(root / "two.toml"), *init) == 0
    nets = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(nets[0][name], value) for name, value in nets[1].items() if name.startswith("backbone"))
    assert load_model(tmp_path / "second" / "model.safetensors").classes == {"default": ["d", "c1"]}


@pytest.mark.parametrize("name", ["a.b", "train", "keys", "a+b"])
def test_names_that_no_head_can_have(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    file = write_toml(root / f"{name}.toml", "second")
    assert train(tmp_path / "out", "--data", str(root / "one.toml"), "--data", file) == 2
    assert f"{name!r}" in error_line(capsys)
    assert train(tmp_path / "out", "--data", file) == 0  # alone it needs no name


def test_drawn_lists_of_several_data_sets(root: Path, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        for path in (root / folder).glob("*.txt"):
            path.unlink()
    shutil.rmtree(root / "second" / "c2")
    for name, folder in (("one", "first"), ("two", "second")):
        (root / f"{name}.toml").write_text(f'videos = "{folder}"\nflow = "{folder}/flow"')
    assert train(tmp_path / "out", "--data", str(root / "one.toml"), "--data", str(root / "two.toml")) == 0
    lists = tmp_path / "out" / "lists"
    assert data.UCFLists(root / "first", lists / "one").train == data.Folders(root / "first").train
    assert data.UCFLists(root / "second", lists / "two").train == data.Folders(root / "second").train


# ---- runs ------------------------------------------------------------------------------------------------------------

TINY = replace(
    RECIPES["demo"],
    width=0.05,
    streams={name: replace(each, iterations=4, batch_size=8) for name, each in RECIPES["demo"].streams.items()},
    frames=1,
    crops=1,
    flow_method="dis",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders without lists, in two groups of clips."""
    folder = tmp_path_factory.mktemp("clips")
    data.generate_videos(folder, seed=5, train_per_class=2, test_per_class=1, frames=14)
    for path in folder.glob("*.txt"):
        path.unlink()
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir())[4:]:
        shutil.rmtree(folder / name)
    return folder


def run(out: Path, videos: Path, lists: Path | None = None, **more: object) -> dict[str, object]:
    return engine.run_pipeline(videos, lists, out, recipe=TINY, workers=0, say=lambda _: None, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def of_folders(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folders")
    run(out, clips)
    return out


def as_ucf(clips: Path, split: data.Split, root: Path) -> tuple[Path, Path]:
    data.write_ucf_lists(root / "lists", split)
    return clips, root / "lists"


def as_hmdb(clips: Path, split: data.Split, root: Path) -> tuple[Path, Path]:
    """With names that HMDB-51's clips have, and worse."""
    (root / "lists").mkdir()
    for label, name in enumerate(split.classes):
        lines = []
        for flag, videos in ((1, split.train), (2, split.test)):
            for number, video in enumerate(each for each in videos if each.label == label):
                clip = f"{flag} {ODD}_{number}.mp4"
                (root / "videos" / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(clips / video.path, root / "videos" / name / clip)
                lines.append(f"{clip} {flag} \n")
        (root / "lists" / f"{name}_test_split1.txt").write_text("".join(lines))
    return root / "videos", root / "lists"


def as_mmaction2(clips: Path, split: data.Split, root: Path) -> tuple[Path, Path]:
    (root / "lists").mkdir()
    for part, videos in (("train", split.train), ("val", split.test)):
        lines = "".join(f"{video.path} {video.label}\n" for video in videos)
        (root / "lists" / f"ucf101_{part}_split_1_videos.txt").write_text(lines)
    return clips, root / "lists"


@pytest.mark.parametrize("layout", [as_ucf, as_hmdb, as_mmaction2])
def test_the_same_clips_in_every_layout_give_the_same_accuracy_to_the_digit(
    clips: Path, of_folders: Path, tmp_path: Path, layout: Callable[[Path, data.Split, Path], tuple[Path, Path]]
) -> None:
    (tmp_path / "data").mkdir()
    expected = json.loads((of_folders / "summary.json").read_text())
    summary = run(tmp_path / "out", *layout(clips, data.split_folders(clips), tmp_path / "data"))
    assert expected["videos"] == {"train": 8, "test": 4}
    assert {name: summary[name] for name in ("top1", "videos", "classes", "notes")} == {
        name: expected[name] for name in ("top1", "videos", "classes", "notes")
    }
    for stream in engine.STREAMS:
        for part in ("train", "test"):
            name = f"scores/{stream}_{part}.safetensors"
            assert torch.equal(load_scores(tmp_path / "out" / name).scores, load_scores(of_folders / name).scores)


def test_a_run_without_lists_keeps_the_ones_it_made(clips: Path, of_folders: Path) -> None:
    """Also where the folder has more videos than it had."""
    more = clips / "zoom"
    more.mkdir()
    shutil.copy(next(clips.rglob("*.mp4")), more / "new.mp4")
    try:
        assert run(of_folders, clips) == json.loads((of_folders / "summary.json").read_text())
    finally:
        shutil.rmtree(more)
    assert data.UCFLists(clips, of_folders / "lists").split == data.split_folders(clips)


def test_a_run_takes_stores_that_are_there(
    clips: Path, of_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it then leaves is what it leaves where it makes them."""
    stores = {"flow": of_folders / "flow", "frames": of_folders / "frames"}
    summary = run(tmp_path / "out", clips, **stores)
    assert summary == json.loads((of_folders / "summary.json").read_text())
    assert (tmp_path / "out" / "flow").resolve() == (of_folders / "flow").resolve()
    sources = ["--videos", str(clips), "--out"]
    assert main(["run", *sources, str(tmp_path / "none"), "--flow", str(stores["flow"])]) == 2
    assert "flow is given without frames" in error_line(capsys)
    with pytest.raises(SettingsError, match=r"was made with flow .*/flow, not None"):
        run(tmp_path / "out", clips)


def test_a_run_says_and_notes_what_is_doubtful(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RECIPES, "small", TINY)
    split, lists = data.split_folders(clips), tmp_path / "lists"
    data.write_ucf_lists(lists, split._replace(test=[*split.test, split.train[0]]))
    with (lists / "trainlist01.txt").open("a") as file:
        file.write(f"{split.classes[0]}/none.mp4 1\n")
    (tmp_path / "set.toml").write_text(f'videos = "{clips}"\nlists = "lists"\nleave_out = ["{split.classes[3]}"]\n')
    command = ["run", "--data", str(tmp_path / "set.toml"), "--out", str(tmp_path / "out"), "--recipe", "small"]
    assert main([*command, "--workers", "0"]) == 1
    assert "none.mp4'; skip_missing (--skip-missing) goes on without" in error_line(capsys)
    assert not (tmp_path / "out").exists()
    assert main([*command, "--workers", "0", "--skip-missing"]) == 0
    said = capsys.readouterr().out.splitlines()
    notes = [
        f"1 listed videos are missing and left out: '{split.classes[0]}/none.mp4'",
        f"1 of 4 test videos are training videos, too: '{split.train[0].name}'",
    ]
    assert said[:3] == [
        f"{lists}: format ucf, 3 classes, 6 training and 4 test videos",
        *(f"note: {note}" for note in notes),
    ]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["notes"], summary["classes"]) == (notes, split.classes[:3])
    (tmp_path / "set.toml").write_text(f'videos = "{clips}"\nwhole = true\n')
    assert main(["run", "--data", str(tmp_path / "set.toml"), "--out", str(tmp_path / "whole")]) == 2
    assert "whole: a run needs test videos" in error_line(capsys)


def test_frame_folders_are_trained_on(clips: Path, tmp_path: Path) -> None:
    """MMAction2's raw frames, with their list; the frame folder stands for the video."""
    split = data.split_folders(clips)
    two_classes = [[video for video in videos if video.label < 2] for videos in (split.train, split.test)]
    for part, videos in zip(("train", "val"), two_classes, strict=True):
        lines = []
        for video in videos:
            folder = tmp_path / "frames" / video.name
            folder.mkdir(parents=True)
            frames = list(read_video(clips / video.path))
            for number, frame in enumerate(frames):
                cv2.imwrite(str(folder / f"img_{number:05d}.jpg"), frame[..., ::-1])
            lines.append(f"{video.name} {len(frames) - 1} {video.label}\n")
        (tmp_path / f"ucf101_{part}_split_1_rawframes.txt").write_text("".join(lines))
    store = extract(tmp_path / "frames", tmp_path / "flow", method="dis", smallest_side=None, progress=False)
    found = data.TSNLists(tmp_path / "frames", tmp_path, flow=tmp_path / "flow")
    assert [video.name for video in found.train.videos] == [video.name for video in two_classes[0]]
    assert {video.name for video in (*found.train.videos, *found.test.videos)} == set(store)
    assert data.find_doubts("set", found) == []
