# SPDX-License-Identifier: BSD-3-Clause
"""Training that starts from a net in a file: what is taken, what is trained, and going on without the file."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import released_files as released
import torch
import training_runs
from safetensors import safe_open

from twostream_ext.cli import main
from twostream_ext.engine import CHECKPOINT_FILE, RECIPES, find_recipe, load_model, save_model, start_from
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.media import write_frame_clip
from twostream_ext.models import SpatialNet, StreamNet, TemporalNet, load_pretrained

CLASSES = ["c0", "c1", "c2"]
SIDE, WIDTH = training_runs.SIDE, 0.05


@pytest.fixture(autouse=True)
def small_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's with a smaller net and fewer iterations, dropout as the paper's recipe has it."""
    demo = RECIPES["demo"]
    streams = {name: replace(numbers, iterations=16, dropout=0.9) for name, numbers in demo.streams.items()}
    monkeypatch.setitem(RECIPES, "demo", replace(demo, input_size=SIDE, width=WIDTH, streams=streams))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists, both stores, and files in the place of the videos, which training does not read."""
    root = training_runs.make_folder(tmp_path_factory.mktemp("videos"))
    noise = np.random.default_rng(0)
    for video in training_runs.VIDEOS:
        frames = noise.integers(0, 256, (2, 226, 230, 3), dtype=np.uint8)
        write_frame_clip(root / "frames" / f"{video.name}.safetensors", list(frames))
    return root


@pytest.fixture(scope="module")
def temporal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of as many classes as the videos have."""
    path = tmp_path_factory.mktemp("nets") / "model.safetensors"
    torch.manual_seed(1)
    save_model(path, TemporalNet(3, length=2, width=WIDTH, input_size=SIDE), CLASSES)
    return path


@pytest.fixture(scope="module")
def released_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MatConvNet file of a narrow net with a mean image; of as many classes as the videos have."""
    path = tmp_path_factory.mktemp("released") / "imagenet.mat"
    layers = released.matconvnet_layers(released.caffe_net(3, WIDTH), old=False)
    released.save_matconvnet(path, layers, released.mean_image()[::-1].transpose(1, 2, 0), old=False)
    return path


def arguments(videos: Path, stream: str, out: Path, *more: str) -> list[str]:
    sources = ["--videos", str(videos), "--lists", str(videos), "--out", str(out)]
    store = ["--flow", str(videos / "flow")] if stream == "temporal" else ["--frames", str(videos / "frames")]
    numbers = ["--recipe", "demo", "--batch-size", "4", "--length", "2", "--workers", "0"]
    return ["train", stream, *sources, *store, *numbers, *more]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def learning_rates(out: Path) -> list[float]:
    with (out / "log.csv").open(newline="") as file:
        return [float(row["learning_rate"]) for row in csv.DictReader(file)]


def parts_that_moved(net: StreamNet, start: StreamNet) -> set[str]:
    """Of backbone and fc8, those with a changed weight."""
    before = start.state_dict()
    return {name.split(".")[0] for name, weight in net.state_dict().items() if not torch.equal(weight, before[name])}


# ---- what is taken -------------------------------------------------------------------------------


def test_all_layers_but_the_last_are_taken_from_a_file_of_ours(temporal_file: Path) -> None:
    """The last is not, although it has as many classes."""
    net = TemporalNet(3, length=2, width=WIDTH, input_size=SIDE, dropout=0.5)
    head = net.fc8["default"].weight.clone()
    start_from(net, temporal_file)
    source = load_model(temporal_file).net
    assert all(torch.equal(weight, source.state_dict()[name]) for name, weight in backbone(net).items())
    assert torch.equal(net.fc8["default"].weight, head)


def test_all_layers_but_the_last_are_taken_from_a_released_file(released_file: Path) -> None:
    net, whole = (SpatialNet(3, width=WIDTH) for _ in range(2))
    head = net.fc8["default"].weight.clone()
    start_from(net, released_file)
    load_pretrained(whole, released_file)
    assert all(torch.equal(weight, whole.state_dict()[name]) for name, weight in backbone(net).items())
    assert "backbone.mean_image" in net.state_dict()
    assert torch.equal(net.fc8["default"].weight, head)


def test_a_temporal_net_takes_a_released_file_averaged_over_rgb(released_file: Path) -> None:
    net, whole = (TemporalNet(4, length=2, width=WIDTH) for _ in range(2))
    start_from(net, released_file)
    load_pretrained(whole, released_file, cross_modality=True)
    assert all(torch.equal(weight, whole.state_dict()[name]) for name, weight in backbone(net).items())


def backbone(net: StreamNet) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in net.state_dict().items() if name.startswith("backbone.")}


def test_a_net_of_another_kind_is_refused_with_its_file(temporal_file: Path) -> None:
    common = {"width": WIDTH, "input_size": SIDE}
    nets = {
        "stream, got temporal and spatial": SpatialNet(3, **common),
        "length, got 2 and 4": TemporalNet(3, length=4, **common),
        "width, got 0.05 and 0.06": TemporalNet(3, length=2, width=0.06, input_size=SIDE),
        "input_size, got 57 and 64": TemporalNet(3, length=2, width=WIDTH, input_size=64),
    }
    for message, net in nets.items():
        with pytest.raises(SettingsError, match=rf"model\.safetensors: .*the same {message}"):
            start_from(net, temporal_file)


def test_a_released_file_of_another_width_is_refused(released_file: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"imagenet\.mat: conv1 must have 6 biases, got 5: it is of another width"
    ):
        start_from(SpatialNet(3, width=0.06), released_file)


# ---- the command ---------------------------------------------------------------------------------


def test_fine_tuning_all_layers_takes_a_quarter_of_the_iterations_and_its_own_schedule(
    videos: Path, temporal_file: Path, tmp_path: Path
) -> None:
    assert main(arguments(videos, "temporal", tmp_path, "--init", str(temporal_file))) == 0
    assert learning_rates(tmp_path) == pytest.approx([0.01, 0.01, 0.01, 0.001])  # of 16; falls after 14/20
    net = load_model(tmp_path / "model.safetensors").net
    assert net.settings.dropout == 0.9
    assert parts_that_moved(net, load_model(temporal_file).net) == {"backbone", "fc8"}


def test_only_the_last_layer_is_trained_when_asked(videos: Path, temporal_file: Path, tmp_path: Path) -> None:
    more = ["--init", str(temporal_file), "--last-layer", "--schedule", "scratch", "--iterations", "3"]
    assert main(arguments(videos, "temporal", tmp_path, *more)) == 0
    assert learning_rates(tmp_path) == pytest.approx([0.01, 0.01, 0.001])
    net = load_model(tmp_path / "model.safetensors").net
    assert net.settings.dropout == 0.5  # 0.9 is too much for one layer, table 1a
    assert parts_that_moved(net, load_model(temporal_file).net) == {"fc8"}
    with safe_open(tmp_path / CHECKPOINT_FILE, framework="pt") as file:
        momenta = {name for name in file.keys() if name.startswith("momentum.")}  # noqa: SIM118
    assert momenta == {"momentum.fc8.default.weight", "momentum.fc8.default.bias"}


@pytest.mark.parametrize("layers", ["all", "last"])
def test_a_stopped_run_goes_on_without_the_file_and_ends_with_the_same_bits(
    videos: Path, released_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: str
) -> None:
    """Also the mean image, of which only the released file and the checkpoint tell."""
    monkeypatch.setitem(RECIPES, "demo", replace(find_recipe("demo"), input_size=224))
    file = tmp_path / "released.mat"
    file.write_bytes(released_file.read_bytes())
    more = ["--init", str(file), *(["--last-layer"] if layers == "last" else [])]
    assert main(arguments(videos, "spatial", tmp_path / "whole", *more)) == 0
    with training_runs.sigterm_after(2):
        assert main(arguments(videos, "spatial", tmp_path / "stopped", *more)) == 143
    file.unlink()
    assert main(arguments(videos, "spatial", tmp_path / "stopped", *more, "--resume")) == 0
    whole, stopped = (load_model(tmp_path / name / "model.safetensors").net for name in ("whole", "stopped"))
    assert whole.settings == stopped.settings
    assert whole.backbone.mean_image is not None
    assert parts_that_moved(stopped, whole) == set()
    assert len(learning_rates(tmp_path / "stopped")) == 4


def test_going_on_with_other_layers_or_another_start_is_refused(
    videos: Path, temporal_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = ["--init", str(temporal_file)]
    assert main(arguments(videos, "temporal", tmp_path, *init, "--last-layer", "--dropout", "0.5")) == 0
    capsys.readouterr()
    assert main(arguments(videos, "temporal", tmp_path, *init, "--dropout", "0.5", "--resume")) == 1
    assert "made with trained_parameters 309, now asked for" in error_line(capsys)
    assert main(arguments(videos, "temporal", tmp_path, "--dropout", "0.5", "--resume")) == 1
    assert "made with iterations 4, now asked for 16" in error_line(capsys)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--init", "none.mat"], 1, "none.mat: cannot be read: No such file"),
        (["--init", "none.safetensors"], 1, "none.safetensors: cannot be read: No such file"),
        (["--init", "classInd.txt"], 1, "classInd.txt: neither a MATLAB 5 file nor"),
        (["--init", "flow/c0/a.safetensors"], 1, "a.safetensors: expected a file of kind 'twostream model 1'"),
        (["--last-layer"], 2, "--last-layer needs --init FILE"),
    ],
)
def test_what_cannot_be_started_from(
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(videos)
    assert main(arguments(videos, "temporal", tmp_path / "out", *more)) == code
    assert message in error_line(capsys)
    assert not (tmp_path / "out").exists()
