# SPDX-License-Identifier: BSD-3-Clause
"""Every input of the temporal net, from store and settings to scores, against the formulas in NumPy."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import reference
import torch
import training_runs

from twostream_ext.cli import main
from twostream_ext.cli.options import add_flow_input
from twostream_ext.data import FlowStacks
from twostream_ext.engine import RECIPES, find_stream, load_model, load_scores, save_model, video_scores
from twostream_ext.engine.origin import net_digest
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.flow import FlowClip, FlowStore
from twostream_ext.models import FLOW_INPUTS, SUBTRACTIONS, StreamNet, TemporalNet
from twostream_ext.ops import random_windows
from twostream_ext.tensor_files import read_tensors, write_tensors

SIDE, SIZE, LENGTH, FIELDS = training_runs.SIDE, (60, 64), 4, 7
ROUNDS = 8  # of the camera's motion, by default
TEMPORAL = find_stream("temporal")
SETTINGS = [
    {"input": name, "bidirectional": both, "subtract": subtract}
    for name, both, subtract in itertools.product(FLOW_INPUTS, (False, True), SUBTRACTIONS)
]
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(map(str, each.values())))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists, flow of both directions, of up to three pixels so that trajectories part, and forward flow alone."""
    root = tmp_path_factory.mktemp("videos")
    training_runs.make_lists(root)
    training_runs.make_store(root / "flow", backward=True)
    training_runs.make_store(root / "forward")
    return root


@pytest.fixture(scope="module")
def store(videos: Path) -> FlowStore:
    return FlowStore.open(videos / "flow")


def new_net(**settings: Any) -> TemporalNet:
    torch.manual_seed(0)
    net = TemporalNet(3, length=LENGTH, width=0.05, input_size=SIDE, dropout=0.0, **settings).eval()
    with torch.no_grad():
        net.fc8["default"].weight *= 40  # scores that tell inputs apart
    return net


def pixels(clip: FlowClip, start: int, length: int, direction: str) -> npt.NDArray[np.float64]:
    read = clip.read(start, length, direction)
    lo, step = (np.asarray(each, np.float64)[:, None, None] for each in (read.lo, read.step))
    return lo + step * np.asarray(read.codes, np.float64)


def fields(clip: FlowClip, place: int, bidirectional: bool) -> npt.NDArray[np.float64]:
    """Those of the input at a place, [L, H, W, 2]; if bidirectional d_t, d_(t+1), b_t, b_(t-1) with t = place + 2."""
    if not bidirectional:
        return pixels(clip, place, LENGTH, "forward")
    half = LENGTH // 2
    t = place + half
    backward = [pixels(clip, t - k, 1, "backward") for k in range(half)]
    return np.concatenate([pixels(clip, t, half, "forward"), *backward])


def expected_input(clip: FlowClip, place: int, windows: npt.NDArray[Any], settings: dict[str, Any]) -> Any:
    """What the paper says of windows [K, 3]: float64 [K, 2L, side, side], and how far float32 may be from it."""
    given, places, size = [fields(clip, place, settings["bidirectional"])], [windows], (SIDE, SIDE)
    subtract = settings["subtract"] == "mean"
    camera, error = None, 1e-4
    if settings["subtract"] == "affine":
        camera, error = np.stack([[reference.camera_motion(field, ROUNDS) for field in given[0]]]), 1e-3
    if settings["input"] == "stack":
        return reference.flow_stack(given, places, size, subtract, camera)[0], error
    found, bound = reference.trajectory_stack(given, places, size, subtract, settings["bidirectional"], camera)
    return found[0], bound[0] + error


def ten_windows() -> npt.NDArray[np.int64]:
    bottom, right = SIZE[0] - SIDE, SIZE[1] - SIDE
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return np.array([(*place, flip) for flip in (0, 1) for place in places])


def near(found: torch.Tensor, expected: tuple[Any, Any]) -> None:
    values, bound = expected
    difference = np.abs(found.double().numpy() - values)
    assert (difference <= bound).all(), difference.max()


@every_setting
def test_training_and_test_inputs_are_those_of_the_paper(store: FlowStore, settings: dict[str, Any]) -> None:
    clip, net = store["c1/a"], new_net(**settings)
    places = [0, 2]
    batch = TEMPORAL.inputs(net.settings).read([clip, clip], places, threads=1)
    labels = torch.tensor([1, 1])
    inputs, _ = TEMPORAL.training_input((batch, labels), settings=net.settings, seed=4, offset=10)
    windows = random_windows(torch.tensor([SIZE, SIZE]), SIDE, seed=4, offset=10).numpy()
    views = TEMPORAL.views(batch, settings=net.settings, crops=10)
    for n, place in enumerate(places):
        near(inputs[n : n + 1], expected_input(clip, place, windows[n : n + 1], settings))
        near(views[n], expected_input(clip, place, ten_windows(), settings))


def test_every_setting_gives_another_input(store: FlowStore) -> None:
    """So that none of the judges above could be taken for another."""
    views = []
    for settings in SETTINGS:
        net = new_net(**settings)
        batch = TEMPORAL.inputs(net.settings).read([store["c1/a"]], [1], threads=1)
        views.append(TEMPORAL.views(batch, settings=net.settings, crops=1))
    for one, other in itertools.combinations(views, 2):
        assert (one - other).abs().mean() > 0.01  # ten times what the judges allow


def expected_scores(net: StreamNet, clip: FlowClip, settings: dict[str, Any], frames: int) -> torch.Tensor:
    """Mean softmax over so many places at equal spacing and ten windows of each."""
    places = np.linspace(0, FIELDS - LENGTH, frames).round().astype(int)
    inputs = np.concatenate([expected_input(clip, place, ten_windows(), settings)[0] for place in places])
    with torch.no_grad():
        return net(torch.from_numpy(inputs).float()).softmax(1).mean(0)


@every_setting
def test_a_model_file_keeps_how_inputs_were_made(store: FlowStore, settings: dict[str, Any], tmp_path: Path) -> None:
    net = new_net(**settings)
    save_model(tmp_path / "model.safetensors", net, ["a", "b", "c"])
    again = load_model(tmp_path / "model.safetensors").net
    assert again.settings == net.settings
    found = video_scores(again, store["c2/a"], frames=3)
    torch.testing.assert_close(found, expected_scores(net, store["c2/a"], settings, 3), atol=2e-5, rtol=0)


def sources(videos: Path, flow: str = "flow") -> list[str]:
    return ["--videos", str(videos), "--lists", str(videos), "--flow", str(videos / flow)]


def as_options(settings: dict[str, Any]) -> list[str]:
    both = ["--bidirectional"] if settings["bidirectional"] else []
    return ["--input", settings["input"], "--subtract", settings["subtract"], "--length", str(LENGTH), *both]


TINY = ["--recipe", "demo", "--iterations", "2", "--batch-size", "4", "--workers", "0"]


@pytest.fixture
def small_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], width=0.05, input_size=SIDE))


@every_setting
@pytest.mark.usefixtures("small_recipe")
def test_the_commands_train_and_evaluate_with_it(
    videos: Path, store: FlowStore, settings: dict[str, Any], tmp_path: Path
) -> None:
    """`evaluate` is told nothing of it."""
    assert main(["train", "temporal", *sources(videos), "--out", str(tmp_path), *TINY, *as_options(settings)]) == 0
    model, scores = tmp_path / "model.safetensors", tmp_path / "scores.safetensors"
    net = load_model(model).net
    assert {name: getattr(net.settings, name) for name in settings} == settings
    assert net.settings.length == LENGTH
    numbers = ["--frames-per-video", "2", "--out", str(scores)]
    assert main(["evaluate", "--model", str(model), *sources(videos), *numbers]) == 0
    found = load_scores(scores).scores[0]
    torch.testing.assert_close(found, expected_scores(net, store["c0/a"], settings, 2), atol=2e-5, rtol=0)


@pytest.mark.usefixtures("small_recipe")
def test_a_store_without_backward_flow_is_told_before_any_work(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where only a later video lacks it."""
    store = tmp_path / "flow"
    shutil.copytree(videos / "flow", store)
    shutil.copy(videos / "forward" / "c2" / "b.safetensors", store / "c2")
    save_model(tmp_path / "model.safetensors", new_net(bidirectional=True), ["c0", "c1", "c2"])
    lists = ["--videos", str(videos), "--lists", str(videos), "--flow", str(store)]
    train = ["train", "temporal", *lists, "--out", str(tmp_path / "run"), *TINY, "--length", "4", "--bidirectional"]
    test = ["evaluate", "--model", str(tmp_path / "model.safetensors"), *lists, "--part", "train"]
    for command in (train, [*test, "--out", str(tmp_path / "scores.safetensors")]):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(FlowStacks, "read", None)
            assert main(command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "c2/b" in line
        assert "has no backward flow" in line
    assert not (tmp_path / "scores.safetensors").exists()


def test_values_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, message in (
        ({"input": "trajectories"}, "input is 'trajectories', expected one of stack, trajectory"),
        ({"subtract": "median"}, "subtract is 'median', expected one of none, mean, affine"),
        ({"input": "trajectory", "bidirectional": True, "length": 5}, "even for a bi-directional stack, got 5"),
    ):
        with pytest.raises(SettingsError, match=message):
            TemporalNet(3, **wrong)  # type: ignore[arg-type]
    for option in ("--input", "--subtract"):
        with pytest.raises(SystemExit, match="2"):
            main(["run", "--videos", "v", "--lists", "l", "--out", str(tmp_path), option, "other"])
        assert f"argument {option}: invalid choice: 'other'" in capsys.readouterr().err


def test_the_commands_offer_what_the_nets_know() -> None:
    parser = argparse.ArgumentParser()
    add_flow_input(parser)
    offered = {action.dest: action.choices for action in parser._actions}
    assert (offered["input"], offered["subtract"]) == (FLOW_INPUTS, SUBTRACTIONS)


# ---- files that were written before they were noted ----------------------------------------------------------------


def written_before(path: Path, net: StreamNet) -> None:
    """A model without the settings that came later."""
    save_model(path, net, ["a", "b", "c"])
    tensors, description = read_tensors(path, "twostream model 1")
    for name in ("input", "subtract"):
        del description["net"][name]
    write_tensors(path, "twostream model 1", tensors, description)


def test_a_model_of_before_takes_stacks_without_their_mean(tmp_path: Path) -> None:
    net = new_net()
    written_before(tmp_path / "model.safetensors", net)
    again = load_model(tmp_path / "model.safetensors").net
    assert again.settings == net.settings
    assert (again.settings.input, again.settings.subtract) == ("stack", "mean")


def test_what_was_noted_of_a_net_before_still_names_it() -> None:
    """Else the scores and machines of finished runs would be taken for those of other nets."""
    settings = asdict(new_net().settings)
    del settings["input"], settings["subtract"]
    digests = {net_digest(new_net(**each)) for each in SETTINGS}
    assert len(digests) == len(SETTINGS)
    found = hashlib.sha256(json.dumps(settings).encode())
    for name, tensor in sorted(new_net().state_dict().items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.contiguous().reshape(-1).numpy().tobytes())
    assert found.hexdigest() == net_digest(new_net())


def test_a_setting_of_a_later_version_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, new_net(), ["a", "b", "c"])
    tensors, description = read_tensors(path, "twostream model 1")
    description["net"]["subtract"] = "median"
    write_tensors(path, "twostream model 1", tensors, description)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: of its net, subtract is 'median', expected one of"):
        load_model(path)
