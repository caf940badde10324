# SPDX-License-Identifier: BSD-3-Clause
"""Every code block of the pages: Python runs, commands are taken by the programs they name, the rest can be read.

The blocks of a page share their names, in their order, as a reader goes on from one to the next. They run in a folder
in which the files that they name lie, small: two classes of short videos, lists, a finished run, files of weights.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import i3d_files
import numpy as np
import pytest
import released_files
import torch
from made_runs import RECIPE, make_run
from pages import ROOT, Block, find_blocks, page_names
from shell_blocks import commands, find_faults, missing_extras
from torchvision_package import import_torchvision
from videos import encode_video, moving_frames

from twostream_ext import engine
from twostream_ext.cli import main
from twostream_ext.models import backbones

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

pytestmark = pytest.mark.skipif(
    not ((ROOT / "docs").is_dir() and (ROOT / ".ci").is_dir()),
    reason="no pages or scripts beside the tests",
)

CLASSES = ("Biking", "Diving")
GROUPS = ("g01_c04", "g19_c01")  # for training, for testing


class StandIn(NamedTuple):
    shown: str
    run: str
    reason: str


STAND_INS = (
    StandIn("iterations=80_000, batch_size=256", "iterations=2, batch_size=4", "the paper's schedule takes a GPU days"),
    StandIn("length=10, dropout=0.9)", "length=10, dropout=0.9, width=0.05)", "the whole CNN-M-2048 fills the memory"),
    StandIn("SpatialNet(101)", "SpatialNet(101, width=0.05)", "and so does its file of weights"),
    StandIn('device="cuda"', 'device="cpu"', "there is no GPU here"),
    StandIn('backbone="resnet50", pretrained=True', 'backbone="resnet50"', "timm would fetch the weights"),
    StandIn("window=16, stride=4", "window=9, stride=100", "I3D takes seconds for each window"),
    StandIn("train_per_class=6, test_per_class=2", "train_per_class=1, test_per_class=1", "videos take time to write"),
)
NAMES: dict[str, dict[str, Any]] = {
    "docs/predict.md": {"frames": moving_frames(60)},  # a program's own
    "docs/estimators.md": {"frames": np.stack(moving_frames(3))},
}
ONE_VIDEO = ("docs/estimators.md", "docs/features.md")  # RAFT and I3D see frames of the size that they are made for
OF_A_RUN = ("docs/features.md", "docs/predict.md")  # begin with a finished run; on other pages it is made
NEEDS = {  # beside the extra test
    "docs/estimators.md": ("torchvision",),
    "docs/motion.md": ("pyarrow",),
    "docs/train.md": ("timm", "torchvision"),
}
TOUR = "docs/tour.md"  # its commands run, too
ELSEWHERE = {
    ("CONTRIBUTING.md", "diff"): "test_docs.py applies it",
    ("docs/c-api.md", "cmake"): "test_c_api_page.py configures it",
    ("docs/c-api.md", "cpp"): "test_c_api_page.py builds and runs it",
}


def all_blocks() -> list[Block]:
    return [block for page in page_names() for block in find_blocks(page)]


def pages_with(language: str) -> list[str]:
    return [page for page in page_names() if any(each.language == language for each in find_blocks(page))]


# ---- what can be read ----------------------------------------------------------------------------------------------


def check_shell(text: str) -> None:
    assert find_faults(text) == []


def check_toml(text: str) -> None:
    assert tomllib.loads(text)


def check_text(text: str) -> None:
    """What is printed, what lies in a folder, a formula: nothing to be read but by people."""
    assert text.strip()


CHECKS: dict[str, Callable[[str], None]] = {
    "": check_shell,
    "bash": check_shell,
    "toml": check_toml,
    "text": check_text,
}


@pytest.mark.parametrize("block", [each for each in all_blocks() if each.language != "python"], ids=str)
def test_a_block_can_be_read(block: Block) -> None:
    if (block.page, block.language) not in ELSEWHERE:
        assert block.language in CHECKS, f"a block of {block.language!r} is not tested: say here how it is"
        CHECKS[block.language](block.text)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("towstream info", "towstream info: no program that is known"),
        ("twostream extract A B --metod dis", "unrecognized arguments: --metod dis"),
        ("twostream run --videos A --out B --recipe tiny", "argument --recipe: invalid choice: 'tiny'"),
        ("twostream extract A B --method tvl2", "method is 'tvl2'"),
        ("twostream train temporal --videos A", "the following arguments are required: --out"),
        ("cat a.txt | twostream predict -  # a pipe", "the following arguments are required: --model"),
        ("twostream run --videos A \\\n  --oot B", "the following arguments are required: --out"),
        ("torchrun --nproc-per-node 2 -m twostream_ext train --out A", "the following arguments are required: STREAM"),
        ("cmake -B b -Da=$(twostream cmake-dirs)", "invalid choice: 'cmake-dirs'"),
        ("pip install '.[flow,no_such]'", "no extra no_such"),
        ("TWOSTREAM_ISA=baseline python benchmarks/no_such.py > log", "no file benchmarks/no_such.py"),
        (".ci/no_such FOLDER", "no such script"),
    ],
)
def test_a_wrong_command_is_found(line: str, fault: str) -> None:
    (found,) = find_faults(line)
    assert fault in found


def test_commands_of_a_line_are_told_apart() -> None:
    line = "cd a && X=1 twostream info >log | cat; twostream export A B --layout tsn  # or flo"
    assert list(commands(line))[1:] == [
        ["twostream", "info"],
        ["cat"],
        ["twostream", "export", "A", "B", "--layout", "tsn"],
    ]


# ---- what runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that blocks name."""
    folder = tmp_path_factory.mktemp("prepared")
    lists = folder / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(CLASSES, 1)))
    for number, (part, group) in enumerate(zip(("train", "test"), GROUPS, strict=True)):
        names = [f"{name}/v_{name}_{group}.avi" for name in CLASSES]
        label = [" 1", " 2"] if part == "train" else ["", ""]
        (lists / f"{part}list01.txt").write_text("".join(f"{a}{b}\n" for a, b in zip(names, label, strict=True)))
        for name in names:
            encode_video(folder / "videos" / name, moving_frames(24, seed=number), "mjpeg", pixels="yuvj420p", fps=10)
    for name in ("some.mp4", "a.mp4", "new/first.mp4", "new/second.mp4"):
        encode_video(folder / name, moving_frames(30, size=(72, 96)))
    make_run(folder / "out", CLASSES, 4, recipe=replace(RECIPE, flow_method="dis", frames=2, crops=1))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of weights as their authors give them, with random ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(i3d_files.make_weights(3), folder / "rgb_imagenet.pt")
    torch.save(i3d_files.make_weights(2), folder / "flow_imagenet.pt")
    layers = released_files.matconvnet_layers(released_files.caffe_net(1000, 0.05), old=True)
    released_files.save_matconvnet(folder / "imagenet-vgg-m-2048.mat", layers, None, old=True)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write into, with small recipes and a table of backbones that is forgotten."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backbones, "_registered", dict(backbones._registered))
    streams = {name: replace(numbers, iterations=2, batch_size=4) for name, numbers in RECIPE.streams.items()}
    small = replace(RECIPE, streams=streams, flow_method="dis", frames=2, crops=1)
    for name in ("demo", "small"):
        monkeypatch.setitem(engine.RECIPES, name, small)
    return tmp_path


def run(block: Block, names: dict[str, Any]) -> None:
    text = block.text
    for each in STAND_INS:
        text = text.replace(each.shown, each.run)
    exec(compile("\n" * (block.line - 1) + text, block.page, "exec"), names)


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page != TOUR])
def test_the_python_of_a_page_runs(page: str, folder: Path, weights: Path) -> None:
    for name in NEEDS.get(page, ()):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
        if name == "torchvision":
            import_torchvision()
    for path in weights.iterdir():
        (folder / path.name).symlink_to(path)
    if page == "docs/estimators.md":
        net = import_torchvision().models.optical_flow.raft_small(weights=None)
        torch.save(net.state_dict(), folder / "raft_small.pth")
    if page in ONE_VIDEO:
        for path in sorted((folder / "videos").rglob("*.avi"))[1:]:
            path.unlink()
    if page not in OF_A_RUN:
        shutil.rmtree(folder / "out")
    names = {"__name__": page, **NAMES.get(page, {})}
    for block in find_blocks(page):
        if block.language == "python":
            run(block, names)


def test_the_tour_runs_as_it_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for made in ("videos", "out"):
        shutil.rmtree(folder / made)
    names: dict[str, Any] = {"__name__": TOUR}
    for block in find_blocks(TOUR):
        if block.language == "python":
            run(block, names)
        elif block.language == "":
            for program, *arguments in commands(block.text):
                assert program == "twostream"
                assert main(arguments) == 0, capsys.readouterr().err
    assert "answer.mp4" in {path.name for path in folder.iterdir()}
    assert len(list((folder / "flow").rglob("*.png"))) == len(list((folder / "features").rglob("*.npy"))) == 32


def test_every_stand_in_stands_for_something() -> None:
    text = "".join(block.text for block in all_blocks() if block.language == "python")
    assert [each.shown for each in STAND_INS if each.shown not in text] == []


def test_a_wrong_block_fails_with_its_line() -> None:
    block = Block("docs/page.md", 7, "python", "from twostream_ext import ops\n\nops.no_such(1)\n")
    with pytest.raises(AttributeError, match="no_such") as caught:
        run(block, {})
    assert caught.traceback[-1].lineno == 8  # from 0


def test_extras_that_are_named_in_the_text_exist() -> None:
    for page in page_names():
        text = (ROOT / page).read_text(encoding="utf-8")
        for extras in re.findall(r"['`](?:\.|twostream_ext)(\[[\w,]+\])", text):
            assert missing_extras(extras) == [], page
