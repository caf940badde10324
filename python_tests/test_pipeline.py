# SPDX-License-Identifier: BSD-3-Clause
"""The whole slice, small: videos in, a table, a report and predictions out; broken off, it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from twostream_ext import data, engine, media, models, report
from twostream_ext.cli import main
from twostream_ext.engine.origin import video_digest
from twostream_ext.errors import CheckpointError, SettingsError, VideoError
from twostream_ext.flow import METHODS
from twostream_ext.tensor_files import read_description

DEMO = engine.RECIPES["demo"]
TINY = replace(
    DEMO,
    width=0.125,
    streams={name: replace(numbers, iterations=12, batch_size=8) for name, numbers in DEMO.streams.items()},
    frames=2,
    crops=1,
)


def run(clips: Path, out: Path, recipe: engine.Recipe = TINY, **options):
    return engine.run_pipeline(clips, clips, out, recipe=recipe, workers=0, say=lambda _: None, **options)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    data.generate_videos(folder, seed=5, train_per_class=2, test_per_class=1, frames=14)
    return folder


@pytest.fixture(scope="module")
def finished(clips, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    run(clips, out)
    return out


def test_summary(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary["top1"]) == ["spatial", "temporal", "average", "svm"]
    assert all(0 <= value <= 1 for value in summary["top1"].values())
    assert summary["videos"] == {"train": 32, "test": 16}
    for name, value in summary["top1"].items():
        low, high = summary["interval"][name]
        assert 0 <= low <= value <= high <= 1
        assert summary["mean_class"][name] == value  # as many videos of each class
    # The same numbers, computed anew from the score files.
    files = [
        engine.load_scores(finished / "scores" / f"{stream}_test.safetensors") for stream in ("spatial", "temporal")
    ]
    assert files[0].names == files[1].names
    for scores, stream in zip(files, ("spatial", "temporal"), strict=True):
        assert torch.allclose(scores.scores.sum(1), torch.ones(16), atol=1e-5)
        right = (scores.scores.argmax(1) == scores.labels).float().mean().item()
        assert summary["top1"][stream] == pytest.approx(right, abs=1e-4)
    fused = (files[0].scores + files[1].scores).argmax(1)
    assert summary["top1"]["average"] == pytest.approx((fused == files[0].labels).float().mean().item(), abs=1e-4)


def test_a_finished_run_is_not_done_again(clips, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    started = time.perf_counter()
    assert run(clips, finished) == json.loads((finished / "summary.json").read_text())
    assert time.perf_counter() - started < 10
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")} == before


def test_other_settings_in_the_same_directory(clips, finished):
    with pytest.raises(SettingsError, match="was made with seed 0, not 1"):
        run(clips, finished, seed=1)


def test_a_run_that_was_begun_before_some_settings_were_noted_goes_on(clips, finished, tmp_path):
    noted = json.loads((finished / "run.json").read_text())
    later = {name: noted.pop(name) for name in ("backbone", "input", "bidirectional", "subtract")}
    assert list(later.values()) == ["cnn_m_2048", "stack", False, "mean"]
    (tmp_path / "run.json").write_text(json.dumps(noted))
    shutil.copy(finished / "summary.json", tmp_path)
    assert run(clips, tmp_path)["seed"] == 0
    with pytest.raises(SettingsError, match="was made with backbone cnn_m_2048, not other"):
        engine.run_pipeline(clips, clips, tmp_path, recipe=replace(TINY, backbone="other"))
    with pytest.raises(SettingsError, match="was made with subtract mean, not none"):
        run(clips, tmp_path, replace(TINY, subtract="none"))


def test_nets_that_cannot_be_end_a_run_before_it_begins(clips, finished, tmp_path, capsys):
    out = tmp_path / "out"
    sources = ["--videos", str(clips), "--lists", str(clips), "--out", str(out)]
    assert main(["run", *sources, "--recipe", "small", "--backbone", "no such net"]) == 2
    assert "backbone 'no such net' is not registered" in capsys.readouterr().err
    init = finished / "temporal" / "model.safetensors"
    assert main(["run", *sources, "--recipe", "small", "--init", str(init)]) == 2
    assert f"{init}: copy_backbone: source and target must have the same stream" in capsys.readouterr().err
    assert main(["run", *sources, "--last-layer"]) == 2
    assert "--last-layer needs --init FILE" in capsys.readouterr().err
    assert main(["run", *sources, "--recipe", "small", "--hold-out", "1.5"]) == 2
    assert "hold_out is 1.5, expected between 0 and 1" in capsys.readouterr().err
    assert main(["run", *sources, "--method", "brox"]) == 2
    assert "method is 'brox', expected one of tvl1, tvl1-fast," in capsys.readouterr().err
    assert main(["run", *sources, "--method", "tvl1-fast", "--flow", str(finished / "flow")]) == 2
    assert f"method is 'tvl1-fast', but the flow is given: {finished / 'flow'}" in capsys.readouterr().err
    assert not out.exists()


def test_killed_runs_go_on_and_end_alike(clips, finished, tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[3]); from pathlib import Path; import test_pipeline;"
        "test_pipeline.run(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(clips), str(tmp_path), str(Path(__file__).parent)]
    milestones = ["flow/store.json", "spatial/checkpoint.safetensors", "scores/spatial_train.safetensors"]
    for milestone in milestones:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (tmp_path / milestone).exists():
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert not (tmp_path / "summary.json").exists()
    run(clips, tmp_path)
    for name in ("spatial_test", "temporal_test", "temporal_train"):
        expected = engine.load_scores(finished / "scores" / f"{name}.safetensors").scores
        assert torch.equal(engine.load_scores(tmp_path / "scores" / f"{name}.safetensors").scores, expected)


def test_inputs_and_beginnings_of_another_kind_go_all_the_way(clips, finished, tmp_path, capsys):
    """Flow of both directions is made, a prediction prepares it as the training did; a last layer is trained alone."""
    kind = {"input": "trajectory", "bidirectional": True, "subtract": "none", "length": 4}
    init = finished / "spatial" / "model.safetensors"
    streams = {
        "spatial": TINY.streams["spatial"].fine_tuned(init, last_layer=True),
        "temporal": replace(TINY.streams["temporal"], iterations=2),
    }
    summary = run(clips, tmp_path, replace(TINY, **kind, streams=streams, hold_out=0.5))
    spatial, first = (engine.load_model(file).net for file in (tmp_path / "spatial" / "model.safetensors", init))
    same = {name: torch.equal(weight, first.get_parameter(name)) for name, weight in spatial.named_parameters()}
    assert {name for name in same if not same[name]} == {"fc8.default.weight", "fc8.default.bias"}
    noted = json.loads((tmp_path / "run.json").read_text())["spatial"]
    assert (noted["init"], noted["last_layer"], noted["iterations"], noted["dropout"]) == (str(init), True, 3, 0.5)
    checkpoint = read_description(tmp_path / "spatial" / "checkpoint.safetensors", "twostream checkpoint 1")
    assert checkpoint["settings"]["schedule"] == "fine_tune"
    trained = engine.load_model(tmp_path / "temporal" / "model.safetensors").net
    assert {name: getattr(trained.settings, name) for name in kind} == kind
    scores = engine.load_scores(tmp_path / "scores" / "temporal_test.safetensors")
    prediction = engine.predict_video(clips / f"{scores.names[0]}.mp4", tmp_path)
    torch.testing.assert_close(prediction.scores["temporal"], scores.scores[0], rtol=1e-5, atol=1e-6)

    check_what_was_held_out(tmp_path, summary)
    check_prediction_by_what_was_chosen(tmp_path, clips / f"{scores.names[0]}.mp4", prediction, summary, capsys)


def check_what_was_held_out(out, summary):
    """Half of each class: no net was trained on it, and weights and C were chosen by it."""
    assert summary["videos"] == {"train": 16, "held_out": 16, "test": 16}
    scores = {
        part: [engine.load_scores(out / "scores" / f"{stream}_{part}.safetensors") for stream in engine.STREAMS]
        for part in summary["videos"]
    }
    seen, unseen, test = (scores[part] for part in ("train", "held_out", "test"))
    assert sorted(unseen[0].labels.tolist()) == sorted(seen[0].labels.tolist()) == list(range(16))
    assert not set(seen[0].names) & set(unseen[0].names)
    videos = [data.Video("", name, label) for name, label in zip(seen[0].names, seen[0].labels.tolist(), strict=True)]
    for stream in engine.STREAMS:
        description = read_description(out / stream / "model.safetensors", "twostream model 1")
        assert description["made_from"]["videos"] == video_digest(videos)
    weights = models.choose_weights([each.scores for each in unseen], unseen[0].labels)
    assert tuple(summary["fusion"]["weights"].values()) == weights
    fused = sum(weight * each.scores for weight, each in zip(weights, test, strict=True))
    right = (fused.argmax(1) == test[0].labels).double().mean().item()
    assert summary["top1"]["weighted"] == pytest.approx(right, abs=1e-4)
    assert list(summary["top1"]) == ["spatial", "temporal", "average", "svm", "weighted", "svm_chosen"]
    table = report.format_table(summary)
    assert "16 training videos that no net trained on: weights spatial" in table
    report.write_report(out)


def check_prediction_by_what_was_chosen(out, video, prediction, summary, capsys):
    """A prediction fuses by the weights, and shows what the SVM with the chosen C says of it."""
    streams = [prediction.scores[stream].double() for stream in engine.STREAMS]
    weights = summary["fusion"]["weights"].values()
    expected = sum(weight * scores for weight, scores in zip(weights, streams, strict=True))
    torch.testing.assert_close(prediction.scores["weighted"].double(), expected, rtol=1e-5, atol=1e-6)
    assert prediction.best == prediction.classes[int(expected.argmax())]
    files = [
        [engine.load_scores(out / "scores" / f"{stream}_{part}.safetensors") for stream in engine.STREAMS]
        for part in ("train", "test")
    ]
    seen, test = ([each.scores for each in part] for part in files)
    machine = models.SVMFusion(summary["fusion"]["C"]).fit(seen, files[0][0].labels)
    assert prediction.svm_chosen == machine.predict([scores[:1] for scores in test]).item()
    assert main(["predict", str(video), "--model", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["weighted", "average", "spatial", "temporal"]
    assert lines[1].split()[0] == prediction.best
    assert lines[-1] == f"SVM, C chosen: {prediction.classes[prediction.svm_chosen]}"
    (out / "fusion" / "svm_chosen.safetensors").unlink()  # as runs before it was kept
    assert engine.predict_video(video, out).svm_chosen is None


def test_the_demo_leaves_other_runs_alone(finished, capsys):
    assert main(["demo", "--out", str(finished)]) == 2
    assert "holds a run on other videos" in capsys.readouterr().err
    assert not (finished / "videos").exists()


def test_evaluate_and_fuse_give_what_the_run_gave(clips, finished, tmp_path, capsys):
    summary = json.loads((finished / "summary.json").read_text())
    files = {"test": [], "train": []}
    for stream, store in (("spatial", "--frames"), ("temporal", "--flow")):
        for part, names in files.items():
            out = tmp_path / f"{stream}_{part}.safetensors"
            sources = ["--videos", str(clips), "--lists", str(clips), store, str(finished / store[2:])]
            model = ["--model", str(finished / stream / "model.safetensors")]
            numbers = ["--frames-per-video", "2", "--crops", "1", "--part", part, "--out", str(out)]
            assert main(["evaluate", *model, *sources, *numbers]) == 0
            ours, theirs = engine.load_scores(out), engine.load_scores(finished / "scores" / out.name)
            assert ours.names == theirs.names
            assert torch.equal(ours.labels, theirs.labels)
            assert torch.equal(ours.scores, theirs.scores)
            names.append(str(out))
        value = summary["top1"][stream]
        assert f"top-1 of 16 videos: {100 * value:.1f} (95 % interval " in capsys.readouterr().out
    assert main(["fuse", *files["test"], "--train", *files["train"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 classes, 16 videos"
    assert [line.split()[:2] for line in lines[2:6]] == [
        [name, f"{100 * value:.1f}"]
        for name, value in zip([*files["test"], "average", "svm"], summary["top1"].values(), strict=True)
    ]


def test_report(finished):
    page = report.write_report(finished)
    text = page.read_text()
    summary = json.loads((finished / "summary.json").read_text())
    for value in summary["top1"].values():
        assert f"<b>{100 * value:.1f}</b>" in text
    for name in ("examples", "confusion", "filters_spatial", "filters_temporal"):
        picture = cv2.imread(str(finished / "figures" / f"{name}.png"))
        assert picture.std() > 10  # not an empty canvas
    assert "cannot be read" not in text
    table = report.format_table(summary)
    assert f"two streams, SVM      {100 * summary['top1']['svm']:5.1f}  " in table
    for later in ("interval", "mean_class", "mean_class_interval"):
        del summary[later]  # as 0.1.0 left it
    rows = report.format_table(summary).splitlines()
    assert [row.split()[-2:] for row in rows if "stream" in row and "alone" not in row] == [["-", "-"]] * 4
    assert rows[2][:43] == table.splitlines()[2][:43]


def test_report_without_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="holds no finished run"):
        report.write_report(tmp_path)


def test_predict_agrees_with_the_run(clips, finished):
    scores = engine.load_scores(finished / "scores" / "temporal_test.safetensors")
    prediction = engine.predict_video(clips / f"{scores.names[0]}.mp4", finished)
    # The training data went through the store with the same settings: the scores are the same.
    torch.testing.assert_close(prediction.scores["temporal"], scores.scores[0], rtol=1e-5, atol=1e-6)
    assert prediction.scores["average"].sum().item() == pytest.approx(1, abs=1e-5)
    assert 0 <= prediction.svm < 16


def test_predict_on_real_video(real_clips, finished, tmp_path, monkeypatch, capsys):
    """With a video of it: what the nets saw, at their size, for which no flow is computed again."""
    video = real_clips / "carphone_pristine.mp4"
    method = METHODS["tvl1"]
    pairs = []

    def counting(frames, device, backward):
        pairs.append(len(frames) - 1)
        return method.estimate(frames, device, backward)

    monkeypatch.setitem(METHODS, "tvl1", method._replace(estimate=counting))
    out = tmp_path / "annotated.mp4"
    assert main(["predict", str(video), "--model", str(finished), "--top", "2", "--annotated", str(out)]) == 0
    assert sum(pairs) == 119
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["average", "spatial", "temporal"]
    assert len(lines) == 5
    assert lines[3].startswith("SVM: ")
    frames = list(media.read_video(out, smallest_side=None))
    assert len(frames) == 119  # a flow field less than frames
    # Enlarged, so that there is room for names: a title, two bars and a margin stand below.
    assert frames[0].shape == (4 * 72 + 3 * 18 + 12, 4 * 2 * 88, 3)
    assert list(tmp_path.iterdir()) == [out]


def test_a_video_is_not_overwritten_by_the_one_made_of_it(clips, finished, tmp_path, capsys):
    video = tmp_path / "video.mp4"
    video.write_bytes(next(clips.rglob("*.mp4")).read_bytes())
    (tmp_path / "link.mp4").symlink_to(video)
    before = video.read_bytes()
    for out in (video, tmp_path / "link.mp4"):
        assert main(["predict", str(video), "--model", str(finished), "--annotated", str(out)]) == 2
        assert "is the input" in capsys.readouterr().err
        assert video.read_bytes() == before


class StopError(Exception):
    """In place of what a test need not do."""


@pytest.mark.parametrize(
    ("method", "device", "expected"),
    [("tvl1", "cpu", "cpu"), ("tvl1", "cuda:1", "cuda:1"), ("dis", "cuda:1", "cpu"), ("farneback", "cuda", "cpu")],
)
def test_flow_is_computed_on_the_device_that_was_asked_for(
    clips, finished, tmp_path, monkeypatch, method, device, expected
):
    """Or on the CPU, where that is all that the method knows."""
    devices = []

    def extract(*_, method, device=None, **__):
        devices.append((method, device))
        raise StopError

    monkeypatch.setattr("twostream_ext.engine.pipeline.extract", extract)
    with pytest.raises(StopError):
        run(clips, tmp_path / "run", device=device, recipe=replace(TINY, flow_method=method))
    monkeypatch.setattr("twostream_ext.engine.predict.extract", extract)
    monkeypatch.setattr("twostream_ext.engine.predict.load_model", lambda path, _: engine.load_model(path))
    other = tmp_path / "finished"
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns("flow", "frames"))
    (other / "run.json").write_text(json.dumps({**engine.read_run(other), "flow_method": method}))
    with pytest.raises(StopError):
        engine.predict_video(next(clips.rglob("*.mp4")), other, device=device)
    assert devices == [(method, expected)] * 2


def test_a_run_that_0_1_0_began_goes_on(clips, tmp_path, monkeypatch):
    """Its settings as it noted them, with a recipe of two fields for two streams."""
    numbers = {"iterations": 12, "batch_size": 8, "learning_rate": 0.01, "dropout": 0.5}
    noted = {
        "videos": str(clips),
        "lists": str(clips),
        "split": 1,
        "seed": 0,
        "smallest_side": 72,
        "input_size": 64,
        "width": 0.125,
        "length": 10,
        "spatial": numbers,
        "temporal": numbers,
        "frames": 2,
        "crops": 1,
        "flow_method": "tvl1",
        "jpeg_quality": 90,
    }

    def extract(*_, **__):
        raise StopError

    monkeypatch.setattr("twostream_ext.engine.pipeline.extract", extract)
    (tmp_path / "run.json").write_text(json.dumps(noted))
    with pytest.raises(StopError):
        run(clips, tmp_path)
    noted["temporal"] = numbers | {"iterations": 13}
    (tmp_path / "run.json").write_text(json.dumps(noted))
    with pytest.raises(SettingsError, match="was made with temporal"):
        run(clips, tmp_path)


def test_wrong_videos(finished, tmp_path, capsys):
    with pytest.raises(VideoError, match="no such file"):
        engine.predict_video(tmp_path / "none.mp4", finished)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(Exception, match=r"text\.mp4"):
        engine.predict_video(tmp_path / "text.mp4", finished)
    with pytest.raises(CheckpointError, match="holds no run"):
        engine.predict_video(tmp_path / "text.mp4", tmp_path)
    assert main(["predict", "text.mp4", "--model", str(finished), "--annotated", str(tmp_path / "out.avi")]) == 1
    assert "is written as .mp4" in capsys.readouterr().err
