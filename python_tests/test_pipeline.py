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

from twostream_ext import data, engine, media, report
from twostream_ext.cli import main
from twostream_ext.errors import CheckpointError, SettingsError, VideoError

DEMO = engine.RECIPES["demo"]
TINY = replace(
    DEMO,
    width=0.125,
    spatial=replace(DEMO.spatial, iterations=12, batch_size=8),
    temporal=replace(DEMO.temporal, iterations=12, batch_size=8),
    frames=2,
    crops=1,
)


def run(clips: Path, out: Path, **options):
    return engine.run_pipeline(clips, clips, out, recipe=TINY, workers=0, say=lambda _: None, **options)


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


def test_a_run_that_was_begun_before_backbones_were_noted_goes_on(clips, finished, tmp_path):
    noted = json.loads((finished / "run.json").read_text())
    assert noted.pop("backbone") == "cnn_m_2048"
    (tmp_path / "run.json").write_text(json.dumps(noted))
    shutil.copy(finished / "summary.json", tmp_path)
    assert run(clips, tmp_path)["seed"] == 0
    with pytest.raises(SettingsError, match="was made with backbone cnn_m_2048, not other"):
        engine.run_pipeline(clips, clips, tmp_path, recipe=replace(TINY, backbone="other"))


def test_nets_that_cannot_be_end_a_run_before_it_begins(clips, tmp_path, capsys):
    out = tmp_path / "out"
    sources = ["--videos", str(clips), "--lists", str(clips), "--out", str(out)]
    assert main(["run", *sources, "--recipe", "small", "--backbone", "no such net"]) == 2
    assert "backbone 'no such net' is not registered" in capsys.readouterr().err
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
        assert f"top-1 of 16 videos: {100 * value:.1f}" in capsys.readouterr().out
    assert main(["fuse", *files["test"], "--train", *files["train"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 classes, 16 videos"
    assert [line.split() for line in lines[2:]] == [
        [name, f"{100 * value:.1f}"]
        for name, value in zip([*files["test"], "average", "svm"], summary["top1"].values(), strict=True)
    ]


def test_report(finished):
    page = report.write_report(finished)
    text = page.read_text()
    summary = json.loads((finished / "summary.json").read_text())
    for value in summary["top1"].values():
        assert f"<td>{100 * value:.1f}</td>" in text
    assert text.count("data:image/png;base64,") == 3
    for name in ("examples", "confusion", "recall"):
        picture = cv2.imread(str(finished / "figures" / f"{name}.png"))
        assert picture.std() > 10  # not an empty canvas
    table = report.format_table(summary)
    assert f"{100 * summary['top1']['svm']:5.1f}" in table


def test_report_without_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="holds no finished run"):
        report.write_report(tmp_path)


def test_predict_agrees_with_the_run(clips, finished):
    scores = engine.load_scores(finished / "scores" / "temporal_test.safetensors")
    prediction = engine.predict_video(clips / f"{scores.names[0]}.mp4", finished)
    # The training data went through the store with the same settings: the scores are the same.
    torch.testing.assert_close(prediction.temporal, scores.scores[0], rtol=1e-5, atol=1e-6)
    assert prediction.average.sum().item() == pytest.approx(1, abs=1e-5)
    assert 0 <= prediction.svm < 16


def test_predict_on_real_video(real_clips, finished, tmp_path):
    video = real_clips / "carphone_pristine.mp4"
    prediction = engine.predict_video(video, finished)
    assert len(prediction.average) == 16
    out = tmp_path / "annotated.mp4"
    report.write_annotated_video(video, out, ["DottedBobbing 0.5"], smallest_side=72)
    frames = list(media.read_video(out, smallest_side=None))
    assert len(frames) == 119  # a flow field less than frames
    assert frames[0].shape[1] >= 2 * 88
    assert list(tmp_path.iterdir()) == [out]


def test_wrong_videos(finished, tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        engine.predict_video(tmp_path / "none.mp4", finished)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(Exception, match=r"text\.mp4"):
        engine.predict_video(tmp_path / "text.mp4", finished)
    with pytest.raises(CheckpointError, match="holds no run"):
        engine.predict_video(tmp_path / "text.mp4", tmp_path)
    with pytest.raises(VideoError, match=r"written as \.mp4"):
        report.write_annotated_video(tmp_path / "text.mp4", tmp_path / "out.avi", [])
