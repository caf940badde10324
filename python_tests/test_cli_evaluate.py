# SPDX-License-Identifier: BSD-3-Clause
"""`twostream evaluate` and `fuse` as a user meets them; that they agree with `run` is in test_pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs

from twostream_ext.cli import main
from twostream_ext.data import UCFLists
from twostream_ext.engine import evaluate, load_model, load_scores, save_model, save_scores
from twostream_ext.models import TemporalNet, choose_weights, wilson_interval
from twostream_ext.report import format_classes

CLASSES = ["c0", "c1", "c2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of six training videos and a test video, which is one of them; a flow store; nets with one head and two."""
    root = training_runs.make_folder(tmp_path_factory.mktemp("videos"))
    torch.manual_seed(0)
    net = TemporalNet(3, length=2, width=0.05, input_size=training_runs.SIDE)
    save_model(root / "model.safetensors", net, CLASSES)
    both = TemporalNet({"other": 2, "this": 3}, length=2, width=0.05, input_size=training_runs.SIDE)
    save_model(root / "both.safetensors", both, {"other": ["x", "y"], "this": CLASSES})
    return root


def arguments(videos: Path, out: Path, *more: str, model: str = "model.safetensors") -> list[str]:
    return ["evaluate", "--model", str(videos / model), *training_runs.sources(videos), "--out", str(out), *more]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ---- evaluate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "dataset"), [("model.safetensors", "default"), ("both.safetensors", "this")])
def test_the_scores_of_a_part_of_the_split_are_written_with_their_videos(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, dataset: str
) -> None:
    """Of a net with several heads, the one whose classes the lists have is asked."""
    out = tmp_path / "new" / "scores.safetensors"
    numbers = ["--frames-per-video", "3", "--crops", "10", "--part", "train"]
    assert main(arguments(videos, out, *numbers, model=model)) == 0
    found = load_scores(out)
    data = UCFLists(videos, videos, flow=videos / "flow")
    expected = evaluate(load_model(videos / model).net, data.train, frames=3, crops=10, dataset=dataset)
    assert torch.equal(found.scores, expected)
    assert found.names == [video.name for video in data.train.videos]
    right = (expected.argmax(1) == data.train.labels).numpy()
    shown = capsys.readouterr().out
    low, high = (100 * end for end in wilson_interval(int(right.sum()), 6))
    assert f"top-1 of 6 videos: {100 * right.mean():.1f} (95 % interval {low:.1f} - {high:.1f}), mean class: " in shown
    assert f"\nscores: {out}\n" in shown
    for label, name in enumerate(CLASSES):
        percent = 100 * right[data.train.labels.numpy() == label].mean()
        assert [name, "2", f"{percent:.1f}"] in [line.split()[:3] for line in shown.splitlines()]


def test_the_test_videos_are_scored_with_25_frames_and_10_crops_if_nothing_is_said(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(videos, tmp_path / "scores.safetensors")) == 0
    found = load_scores(tmp_path / "scores.safetensors")
    data = UCFLists(videos, videos, flow=videos / "flow")
    net = load_model(videos / "model.safetensors").net
    assert torch.equal(found.scores, evaluate(net, data.test, frames=25, crops=10))
    assert ["c1", "0", "-", "-"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_table_of_classes_counts_each_class_s_own_videos() -> None:
    labels = torch.tensor([0, 0, 0, 2, 2])
    scores = torch.eye(3)[[0, 1, 0, 2, 2]]
    rows = [line.split() for line in format_classes(["walk", "run", "hand stand"], scores, labels).splitlines()]
    assert rows == [
        ["videos", "top-1", "95", "%", "interval"],
        ["walk", "3", "66.7", "20.8", "-", "93.9"],
        ["run", "0", "-", "-"],
        ["hand", "stand", "2", "100.0", "34.2", "-", "100.0"],
    ]


def test_what_cannot_be_evaluated(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = load_model(videos / "model.safetensors").net
    save_model(tmp_path / "order.safetensors", net, ["c0", "c2", "c1"])
    more = TemporalNet(4, length=2, width=0.05, input_size=training_runs.SIDE)
    save_model(tmp_path / "more.safetensors", more, [*CLASSES, "c3"])
    for model, message in (
        ("order.safetensors", f"has class 'c2' where {videos} has 'c1'"),
        ("more.safetensors", f"has 4 classes, {videos} has 3"),
        ("none.safetensors", "cannot be read: No such file"),
    ):
        path = str(tmp_path / model)
        assert main(arguments(videos, tmp_path / "scores.safetensors", model=path)) in (1, 2)
        assert f"{path}: {message}" in error_line(capsys)
    without = arguments(videos, tmp_path / "scores.safetensors")
    del without[without.index("--flow") : without.index("--flow") + 2]
    assert main(without) == 2
    assert "no flow store was given" in error_line(capsys)
    assert not (tmp_path / "scores.safetensors").exists()


def test_scores_are_not_written_over_the_net(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes((videos / "model.safetensors").read_bytes())
    assert main(arguments(videos, model, model=str(model))) == 2
    assert f"{model}: is the input {model} itself" in error_line(capsys)
    assert model.read_bytes() == (videos / "model.safetensors").read_bytes()


# ---- fuse ----------------------------------------------------------------------------------------


def write(path: Path, names: list[str], labels: list[int], scores: list[list[float]]) -> str:
    save_scores(path, names, torch.tensor(labels), torch.tensor(scores))
    return str(path)


def accuracies(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """Top-1 of each row, behind which are its interval and the same for the mean class: seven words."""
    lines = capsys.readouterr().out.splitlines()[2:]
    rows = [line.rsplit(maxsplit=8) for line in lines if not line.startswith("Not above")]
    return {name.strip(): float(value) for name, value, *_ in rows}


def test_averaging_takes_the_class_that_both_nets_together_prefer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, labels = ["a", "b", "c", "d"], [0, 1, 0, 1]
    first = write(tmp_path / "first", names, labels, [[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.3, 0.7]])
    second = write(tmp_path / "second", names, labels, [[0.4, 0.6], [0.1, 0.9], [0.7, 0.3], [0.8, 0.2]])
    assert main(["fuse", first, second]) == 0
    assert accuracies(capsys) == {first: 50, second: 50, "average": 75}
    assert main(["fuse", first, second, "--weights", "0", "0.5"]) == 0
    assert accuracies(capsys) == {first: 50, second: 50, "average": 75, "weighted": 50}


def test_a_fusion_that_does_not_help_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The better of the nets alone is as good as its average with the other."""
    names, labels = ["a", "b", "c", "d"], [0, 1, 0, 1]
    good = write(tmp_path / "good", names, labels, [[0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [0.6, 0.4]])
    bad = write(tmp_path / "bad", names, labels, [[0.0, 1.0], [0.2, 0.8], [0.0, 1.0], [0.0, 1.0]])
    assert main(["fuse", good, bad, "--weights", "3", "1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Not above the {good} alone: average"
    assert main(["fuse", good]) == 0
    assert "Not above" not in capsys.readouterr().out


def test_the_svm_learns_which_net_to_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first net is sure of nonsense, the second right with little confidence."""
    random = np.random.default_rng(0)
    files: dict[str, list[str]] = {}
    for part, count in (("train", 40), ("test", 30)):
        names = [f"{part}{number}" for number in range(count)]
        labels = random.integers(0, 3, count)
        nonsense = np.eye(3)[random.integers(0, 3, count)] * 0.97 + 0.01
        right = np.eye(3)[labels] * 0.1 + 0.3
        files[part] = [
            write(tmp_path / f"{name}_{part}", names, labels.tolist(), scores.tolist())
            for name, scores in (("nonsense", nonsense), ("right", right))
        ]
    assert main(["fuse", *files["test"], "--train", *files["train"]]) == 0
    found = accuracies(capsys)
    assert found[files["test"][0]] == found["average"] < 60
    assert found[files["test"][1]] == found["svm"] == 100


def test_weights_and_cost_are_chosen_on_held_out_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first net is right on what it learnt by heart and guesses on all else, the second is often right."""
    random = np.random.default_rng(1)
    files: dict[str, list[str]] = {}
    for part, known in (("train", 1.0), ("held_out", 0.33), ("test", 0.33)):
        labels = random.integers(0, 3, 60)
        files[part] = []
        for net, share in (("first", known), ("second", 0.8)):
            guessed = np.where(random.random(60) < share, labels, random.integers(0, 3, 60))
            scores = np.eye(3)[guessed] * 0.4 + 0.2
            names = [f"{part}{number}" for number in range(60)]
            files[part].append(write(tmp_path / f"{net}_{part}", names, labels.tolist(), scores.tolist()))
    both = ["--train", *files["train"], "--held-out", *files["held_out"]]
    assert main(["fuse", *files["test"], *both]) == 0
    shown = capsys.readouterr().out
    held_out = [load_scores(path) for path in files["held_out"]]
    first, second = choose_weights([each.scores for each in held_out], held_out[0].labels)
    assert first < second
    assert f"Chosen on 60 held-out videos: weights {first:g} {second:g} and C " in shown
    names = [line.split()[0] for line in shown.splitlines()[2:]]
    assert names[2:6] == ["average", "svm", "weighted", "svm_chosen"]
    assert main(["fuse", *files["test"], "--held-out", *files["held_out"]]) == 0
    assert "svm" not in capsys.readouterr().out
    for more, message in (
        (["--held-out", files["test"][0], files["test"][1]], f"'test0' is a video of {files['test'][0]} too"),
        (
            ["--train", *files["train"], "--held-out", *files["train"]],
            f"'train0' is a video of {files['train'][0]} too",
        ),
        (["--held-out", files["train"][0]], "--held-out: 1 files, expected one for each of 2 nets"),
    ):
        assert main(["fuse", *files["test"], *more]) == 2
        assert message in error_line(capsys)


def test_what_cannot_be_fused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = [[0.9, 0.1], [0.2, 0.8]]
    a = write(tmp_path / "a", ["v", "w"], [0, 1], scores)
    b = write(tmp_path / "b", ["v", "x"], [0, 1], scores)
    c = write(tmp_path / "c", ["v", "w"], [0, 0], scores)
    d = write(tmp_path / "d", ["v", "w"], [0, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0]])
    e = write(tmp_path / "e", ["v"], [0], scores[:1])
    f = write(tmp_path / "f", ["v", "w"], [0, 1], scores)
    t = write(tmp_path / "t", ["y", "z"], [0, 1], scores)
    for more, message in (
        ([a, b], f"{b}: has video 'x' where {a} has 'w'"),
        ([a, c], f"{c}: 'w' has class 0, in {a} 1"),
        ([a, d], f"{d}: scores of 3 classes, {a} of 2"),
        ([a, e], f"{e}: scores of 1 videos, {a} of 2"),
        ([a, a], f"{a}: given twice"),
        ([a, f, "--train", t], "--train: 1 files, expected one for each of 2 nets"),
        ([a, f, "--weights", "1"], "weights are 1, expected one for each of 2 nets"),
        ([a, f, "--weights", "1", "-1"], "weights must be 0 or more and not all 0, got 1 -1"),
        ([a, "--train", b], f"{b}: 'v' is a video of {a} too"),
        ([d, "--train", t], f"{t}: scores of 2 classes, {d} of 3"),
        ([t, "--train", a, a], "--train: 2 files"),
        ([a, str(tmp_path / "none")], "none: cannot be read: No such file"),
    ):
        assert main(["fuse", *more]) in (1, 2)
        assert message in error_line(capsys)
