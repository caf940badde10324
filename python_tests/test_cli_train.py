# SPDX-License-Identifier: BSD-3-Clause
"""`twostream train` as a user meets it: one process or two by torchrun, stops, and one line for each mistake."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import training_runs

from twostream_ext.cli import main
from twostream_ext.engine import CHECKPOINT_FILE, load_model


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists, a flow store, and files in the place of the videos, which training does not read."""
    return training_runs.make_folder(tmp_path_factory.mktemp("videos"))


def arguments(videos: Path, out: Path, *more: str) -> list[str]:
    numbers = ["--recipe", "demo", "--iterations", "4", "--batch-size", "8", "--length", "2", "--workers", "0"]
    return ["train", "temporal", *training_runs.sources(videos), "--out", str(out), *numbers, *more]


@pytest.fixture(autouse=True)
def small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's recipe with a smaller net."""
    from dataclasses import replace

    from twostream_ext.engine import RECIPES

    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], input_size=training_runs.SIDE, width=0.05))


def losses(out: Path) -> list[float]:
    with (out / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_training_leaves_a_model_and_its_log(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(videos, tmp_path, "--schedule", "1:0.5,3:0.25", "--accumulate", "2", "--lr", "0.125")) == 0
    assert f"model: {tmp_path / 'model.safetensors'}" in capsys.readouterr().out
    net, classes = load_model(tmp_path / "model.safetensors")
    assert classes == {"default": ["c0", "c1", "c2"]}
    assert (net.settings.length, net.settings.dropout) == (2, 0.5)
    with (tmp_path / "log.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == [0.125, 0.5, 0.5, 0.25]


def test_a_run_goes_on_only_when_asked_to(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(videos, tmp_path, "--resume")) == 0  # nothing there yet
    capsys.readouterr()
    assert main(arguments(videos, tmp_path)) == 2
    assert "holds a training run; give --resume" in error_line(capsys)
    assert main(arguments(videos, tmp_path, "--resume", "--dropout", "0.3")) == 1
    assert "made with dropout 0.5, now asked for 0.3" in error_line(capsys)
    assert main(arguments(videos, tmp_path, "--resume")) == 0


def test_the_net_to_start_from_is_not_written_over(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(videos, tmp_path / "first")) == 0
    first = tmp_path / "first" / "model.safetensors"
    model = tmp_path / "model.safetensors"
    model.write_bytes(first.read_bytes())
    capsys.readouterr()
    assert main(arguments(videos, tmp_path, "--init", str(model))) == 2
    assert f"{model}: is the input {model} itself" in error_line(capsys)
    assert model.read_bytes() == first.read_bytes()


def test_sigterm_ends_with_143_and_the_rest_gives_the_same_bits(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(videos, tmp_path / "whole")) == 0
    capsys.readouterr()
    with training_runs.sigterm_after(2):
        assert main(arguments(videos, tmp_path / "stopped")) == 143
    assert "stopped by SIGTERM" in error_line(capsys)
    assert len(losses(tmp_path / "stopped")) == 2
    assert main(arguments(videos, tmp_path / "stopped", "--resume")) == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    nets = [load_model(tmp_path / name / "model.safetensors").net.state_dict() for name in ("whole", "stopped")]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


def test_a_run_that_diverges_says_so_in_one_line(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(videos, tmp_path, "--lr", "1e30")) == 1
    assert "training diverged: the loss is" in error_line(capsys)
    assert not (tmp_path / CHECKPOINT_FILE).exists()
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--accumulate", "9"], "batch_size is 8, expected at least 1 sample for each of"),
        (["--schedule", "cosine"], "schedule must be scratch or fine_tune, or pairs"),
        (["--bidirectional"], "has no backward flow"),
        (["--length", "8"], "a stack of 8 flow fields needs 9"),
    ],
)
def test_settings_that_cannot_be(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(arguments(videos, tmp_path, *more)) == 2
    assert message in error_line(capsys)
    assert not (tmp_path / CHECKPOINT_FILE).exists()


def test_wrong_usage(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["train"], ["train", "both"], arguments(videos, tmp_path, "--schedule", "1:x")):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2
    assert "usage: twostream train" in capsys.readouterr().err


# ---- torchrun ------------------------------------------------------------------------------------

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos large enough for the demo's recipe as it is, and their flow store."""
    from twostream_ext.data import generate_videos
    from twostream_ext.extraction import extract

    root = tmp_path_factory.mktemp("clips")
    generate_videos(root, seed=5, train_per_class=1, test_per_class=1, frames=14)
    extract(root, root / "flow", method="dis")
    return root


def command(launcher: list[str], clips: Path, out: Path, *more: str) -> list[str]:
    options = [*training_runs.sources(clips), "--out", str(out), "--recipe", "demo", "--workers", "1"]
    return [*launcher, "twostream_ext", "train", "temporal", *options, *more]


def call(command: list[str]) -> None:
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_torchrun_runs_the_same_recipe_as_one_process(clips: Path, tmp_path: Path) -> None:
    """But for dropout, whose draws differ between processes."""
    for launcher, out in (([sys.executable, "-m"], "one"), (TORCHRUN, "two")):
        call(command(launcher, clips, tmp_path / out, "--dropout", "0", "--iterations", "6"))
    nets = [load_model(tmp_path / name / "model.safetensors").net.state_dict() for name in ("one", "two")]
    assert max((nets[0][name] - nets[1][name]).abs().max().item() for name in nets[0]) < 1e-5
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert len(losses(tmp_path / "two")) == 6


@pytest.mark.slow
def test_two_processes_stopped_by_torchrun_save_once_and_go_on_to_the_same_bits(clips: Path, tmp_path: Path) -> None:
    """torchrun hands SIGTERM to all processes, also to those that read batches."""
    numbers = ["--iterations", "120", "--batch-size", "4", "--lr", "0.001", "--checkpoint-every", "10"]
    call(command(TORCHRUN, clips, tmp_path / "whole", *numbers))
    out = tmp_path / "stopped"
    run = subprocess.Popen(
        command(TORCHRUN, clips, out, *numbers),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        while not (out / CHECKPOINT_FILE).exists():
            assert run.poll() is None, run.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.01)
        run.terminate()
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode != 0
    iterations = {int(found) for found in re.findall(r"stopped by SIGTERM; .* goes on from iteration (\d+)", errors)}
    assert len(iterations) == 1, errors  # both stopped after the same
    assert 10 <= iterations.pop() == len(losses(out)) < 120
    assert not (out / "model.safetensors").exists()
    assert sorted(path.name for path in out.iterdir()) == [CHECKPOINT_FILE, "log.csv", "tensorboard"]
    call(command(TORCHRUN, clips, out, *numbers, "--resume"))
    nets = [load_model(tmp_path / name / "model.safetensors").net.state_dict() for name in ("whole", "stopped")]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert losses(out) == losses(tmp_path / "whole")
