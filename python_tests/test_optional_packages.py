# SPDX-License-Identifier: BSD-3-Clause
"""Whoever installs a part pays for that part alone: the rest says in one line what it lacks, and what brings it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import training_runs
from videos import moving_frames, write_video

# As if those packages were not installed: nothing finds them.
WITHOUT = """
import sys
from importlib.machinery import PathFinder

missing = set(sys.argv[1].split(","))

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else super().find_spec(name, path, target)

sys.meta_path[:] = [Without if each is PathFinder else each for each in sys.meta_path]
"""
COMMAND = "from twostream_ext.cli import main\nsys.exit(main(sys.argv[2:]))"
FLOW = ("numpy", "av", "safetensors", "tqdm")
LATER = ("sklearn", "tensorboard", "google", "h5py", "pyarrow", "timm", "distributed", "scipy", "matplotlib")
SVM = """
import torch
from twostream_ext.errors import MissingPackageError
from twostream_ext.models import SVMFusion
try:
    SVMFusion().fit([torch.eye(4)], torch.arange(4))
except MissingPackageError as error:
    print(error)
"""
SMALL_RECIPE = f"""
from dataclasses import replace
from twostream_ext.engine import RECIPES
RECIPES["small"] = replace(RECIPES["small"], width=0.05, input_size={training_runs.SIDE})
"""
KERNELS = """
import torch
from twostream_ext import ops
stack = ops.flow_stack(torch.ones(1, 2, 6, 7, 2), torch.tensor([[0, 1, 1]], dtype=torch.int32), 4)
assert stack.flatten().tolist()[:1] == [-1.0]
"""


def without(packages: str, code: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, packages, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_kernels_need_torch_alone(tmp_path: Path) -> None:
    """And so do the commands that only tell."""
    everything = ",".join([*FLOW, "cv2", "simplejpeg", *LATER])
    done = without(everything, KERNELS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for command in (["--help"], ["extract", "--help"], ["info"], ["cmake-dir"]):
        done = without(everything, COMMAND, *command, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "not installed" in without(everything, COMMAND, "info", folder=tmp_path).stdout


@pytest.mark.parametrize("room", ["media", "flow", "extraction", "motion", "data", "models", "engine", "report"])
def test_each_room_says_what_it_lacks(tmp_path: Path, room: str) -> None:
    extra = {"models": "train", "engine": "train", "report": "report"}.get(room, "flow")
    code = f"""
from twostream_ext.errors import MissingPackageError
try:
    import twostream_ext.{room}
except MissingPackageError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    for package in ["numpy", "safetensors", *([] if room == "models" else ["av", "tqdm"])]:
        done = without(package, code, folder=tmp_path)
        assert done.stdout == f"twostream_ext.{room} needs {package}: pip install 'twostream_ext[{extra}]'\n", (
            done.stderr
        )
    if room != "models":
        done = without("cv2", code, folder=tmp_path)
        expected = "needs OpenCV, one package of it: pip install opencv-python-headless"
        assert done.stdout == f"twostream_ext.{room} {expected}\n", done.stderr


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for name in ("A/v_a", "B/v_b"):
        write_video(root / f"{name}.avi", moving_frames(8, size=(48, 64)))
    return root


def test_a_missing_package_is_one_line_of_a_command(videos: Path, tmp_path: Path) -> None:
    done = without("av", COMMAND, "extract", videos, tmp_path / "flow", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"twostream: error: twostream_ext\.\w+ needs av: pip install 'twostream_ext\[flow\]'\n", done.stderr
    )
    assert not (tmp_path / "flow").exists()


def test_flow_needs_nothing_of_training(videos: Path, tmp_path: Path) -> None:
    later = ",".join(LATER)
    flow, tree = tmp_path / "flow", tmp_path / "tree"
    for command in (
        ["extract", videos, flow, "--method", "dis", "--size", "32", "--preview"],
        ["export", flow, tree, "--layout", "denseflow"],
        ["motion", videos, "--fps", "8", "--out", tmp_path / "scores.csv"],
        ["denseflow", videos / "A" / "v_a.avi", f"-o={tmp_path / 'dense'}", "-a=farn", "-b=20", "-ns=32"],
    ):
        done = without(later, COMMAND, *command, folder=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "scores.csv").read_text().count("\n") == 3


def test_training_and_scores_need_no_tensorboard_no_svm_and_no_page(tmp_path: Path) -> None:
    """The log and the table are there without them; an SVM says what it lacks."""
    later = ",".join(LATER)
    training_runs.make_lists(tmp_path)
    training_runs.make_store(tmp_path / "flow")
    sources = ["--videos", tmp_path, "--lists", tmp_path, "--flow", tmp_path / "flow"]
    run = tmp_path / "run"
    small = ["--iterations", "2", "--batch-size", "4", "--workers", "0", "--length", "4", "--recipe", "small"]
    done = without(later, SMALL_RECIPE + COMMAND, "train", "temporal", *sources, "--out", run, *small, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "log.csv").read_text().count("\n") == 3
    assert not (run / "tensorboard").exists()
    evaluate = ["evaluate", "--model", run / "model.safetensors", *sources, "--frames-per-video", "2"]
    first, second = (tmp_path / f"scores{number}.safetensors" for number in (1, 2))
    done = without(later, COMMAND, *evaluate, "--out", first, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "top-1" in done.stdout
    shutil.copy(first, second)
    done = without(later, COMMAND, "fuse", first, second, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = without(later, SVM, folder=tmp_path)
    assert done.stdout == "fusion by an SVM needs scikit-learn: pip install 'twostream_ext[train]'\n", done.stderr


def test_an_opencv_that_lacks_a_library_of_the_system_is_told(tmp_path: Path, videos: Path) -> None:
    """As the one with windows does in a container without a screen."""
    (tmp_path / "cv2").mkdir()
    fault = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2" / "__init__.py").write_text(f"raise ImportError({fault!r})\n")
    code = "sys.path.insert(0, sys.argv.pop())\n" + COMMAND
    done = without("", code, "extract", videos, tmp_path / "flow", tmp_path, folder=videos)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"needs OpenCV, which cannot be imported here ({fault})" in line
    assert line.endswith("&& pip install opencv-python-headless")
    done = without("", code, "info", tmp_path, folder=videos)
    assert done.returncode == 0, done.stderr
    assert f"cannot be imported: {fault}" in done.stdout


def test_a_package_that_is_there_and_broken_says_why(tmp_path: Path, videos: Path) -> None:
    """Or its reader would install again what is installed."""
    (tmp_path / "av").mkdir()
    (tmp_path / "av" / "__init__.py").write_text("import no_such_part_of_it\n")
    code = "sys.path.insert(0, sys.argv.pop())\n" + COMMAND
    done = without("", code, "extract", videos, tmp_path / "flow", tmp_path, folder=videos)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "needs av, which cannot be imported here (No module named 'no_such_part_of_it'): pip install" in line
