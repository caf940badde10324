# SPDX-License-Identifier: BSD-3-Clause
"""The examples that others start from do what they say."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from modules import load_module
from videos import moving_frames, write_video

from twostream_ext import ops

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="no examples beside the tests")


def load(name: str) -> ModuleType:
    return load_module(EXAMPLES / f"{name}.py")


def test_every_example_has_a_row_in_the_table() -> None:
    table = re.findall(r"^\| \[(\S+)\]\((\S+)\) \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert all(name == target for name, target in table)
    files = [path.name + "/" * path.is_dir() for path in EXAMPLES.iterdir() if path.name != "__pycache__"]
    assert sorted(name for name, _ in table) == sorted(set(files) - {"README.md"})


def test_the_flow_of_a_video_as_a_picture(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", moving_frames(3, size=(48, 64), step=(2, 0)))
    load("flow_of_a_video").main(video, tmp_path / "flow.png")
    blue, green, red = np.median(cv2.imread(str(tmp_path / "flow.png"))[12:36, 16:48].reshape(-1, 3), axis=0)
    assert red > 200  # all of it moves to the right
    assert red - max(blue, green) > 100


def test_the_kernels_on_arrays_of_numpy() -> None:
    flow = np.random.default_rng(0).normal(3.0, 1.0, size=(5, 2, 20, 30, 2)).astype(np.float32)
    found = load("numpy_alone").stacks(flow, 12, seed=4)
    assert type(found) is np.ndarray
    windows = ops.random_windows(np.tile([20, 30], (5, 1)), 12, seed=4).numpy()
    for stack, fields, (top, left, flip) in zip(found, flow, windows, strict=True):
        pixels = (fields.astype(np.float64) - fields.astype(np.float64).mean((1, 2), keepdims=True))[
            :, top : top + 12, left : left + 12
        ]
        if flip:
            pixels = pixels[:, :, ::-1] * [-1, 1]
        np.testing.assert_allclose(stack, pixels.transpose(0, 3, 1, 2).reshape(4, 12, 12), atol=1e-5)
    assert {bool(each) for each in windows[:, 2]} == {False, True}


@pytest.fixture
def mmaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for MMAction2, of which a step needs the registry and the base class."""

    class BaseTransform:
        def __call__(self, results: dict[str, object]) -> dict[str, object]:
            return self.transform(results)

    modules = {name: types.ModuleType(name) for name in ("mmaction", "mmaction.registry", "mmcv", "mmcv.transforms")}
    modules["mmaction.registry"].TRANSFORMS = types.SimpleNamespace(register_module=lambda: lambda step: step)
    modules["mmcv.transforms"].BaseTransform = BaseTransform
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("mmaction")
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_step_of_mmaction_flips_values_and_not_bytes(flip: float) -> None:
    random = np.random.default_rng(1)
    planes = random.integers(0, 256, (12, 20, 26), dtype=np.uint8)  # two stacks of three fields
    results = load("mmaction_step").FlowStack(size=20, length=3, flip_ratio=flip)({"imgs": list(planes), "label": 3})
    assert (results["label"], results["flip"], results["input_shape"]) == (3, bool(flip), (2, 6, 20, 20))
    values = -20 + planes.astype(np.float64) * 40 / 255
    if flip:
        values = values[:, :, ::-1] * np.array([-1, 1] * 6)[:, None, None]
    places = [values[:, :, left : left + 20].reshape(2, 6, 20, 20) for left in range(7)]
    distances = [np.abs(results["imgs"] - each).max() for each in places]
    assert min(distances) < 1e-4
