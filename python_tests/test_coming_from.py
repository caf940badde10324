# SPDX-License-Identifier: BSD-3-Clause
"""The page for users of other tools: its commands are ours, its example runs, and its numbers are those that come."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_docs import ROOT, blocks, pytestmark, read  # noqa: F401  the mark: the pages may not be beside the tests
from test_examples import load, mmaction  # noqa: F401  a fixture
from test_flow_trees import random_flow, write_flow_x, write_x
from test_paper_map import find, is_command, subcommands
from videos import moving_frames, write_video

from twostream_ext import ops
from twostream_ext.cli import main, make_parser
from twostream_ext.data import TSNLists, equally_spaced
from twostream_ext.engine import RECIPES
from twostream_ext.flow import FlowStore

PAGE = "docs/coming-from.md"
BOUND = 20
STEP = 2 * BOUND / 255


def section(name: str) -> str:
    return " ".join(read(PAGE).partition(f"\n## {name}\n")[2].partition("\n## ")[0].split())


def commands() -> list[str]:
    return [line for block in blocks(read(PAGE), "") for line in block.splitlines()]


def test_every_tool_has_its_section() -> None:
    headings = re.findall(r"^## (.*)$", read(PAGE), re.MULTILINE)
    assert headings == ["denseflow", "TSN", "MMAction2", "video_features", "DeepEthogram"]
    linked = re.findall(r"\]\(#([^)]+)\)", read(PAGE))
    assert set(linked) == {heading.lower() for heading in headings}
    assert all("**Stays there:**" in section(heading) for heading in headings)


def test_commands_are_ours() -> None:
    assert len(commands()) > 10
    for command in commands():
        program, *arguments = shlex.split(command)
        assert program == "twostream"
        assert make_parser().parse_args(arguments).command.prog == f"{program} {arguments[0]}"


def test_names_of_ours_exist() -> None:
    named = re.findall(r"`([^`\n]+)`", read(PAGE))
    inline = [name.removeprefix("twostream ").split() for name in named if name.startswith("twostream ")]
    assert len(inline) > 8
    for words in inline:
        own = [word for word in words if word not in ("...", "TREE", "tsn") and not word[0].isupper()]
        assert is_command([word for word in own if word.startswith("-") or word in (own[0], "temporal")]), words
    options = {name.split()[0] for name in named if name.startswith("--")}
    known = {option for parser in subcommands().values() for option in parser._option_string_actions}
    assert len(options) > 10
    assert options - known == set()
    for name in named:
        if name.startswith("ts."):
            assert find(name.removeprefix("ts.")) is not None, name


def test_the_example_prints_what_stands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "videos" / "A" / "one.avi", moving_frames(5))
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(read(PAGE), "python")
    printed, made = io.StringIO(), dict[str, object]()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, PAGE, "exec"), made)
    assert printed.getvalue().splitlines() == re.findall(r"^print\(.*\)  # (.*)$", example, re.MULTILINE)
    assert sorted(path.name for path in (tmp_path / "tree" / "A" / "one").glob("flow_x_*"))[0] == "flow_x_00001.jpg"


def test_flat_trees_and_lists_of_tsn_are_trained_on(tmp_path: Path) -> None:
    """By the command of the page; the lists have paths from the root of another machine."""
    lists = {"train": "", "val": ""}
    for number, name in enumerate(f"v_{name}_g{group:02d}_c01" for name in ("Swing", "Turn") for group in (1, 2)):
        write_flow_x(tmp_path / "TREE" / name, random_flow(6, size=(120, 140), seed=number), start=1, images=6)
        lists["val" if "_g01_" in name else "train"] += f"/elsewhere/frames/{name} 6 {number // 2}\n"
    for part, text in lists.items():
        (tmp_path / f"ucf101_flow_{part}_split_1.txt").write_text(text)
    data = TSNLists(tmp_path / "TREE", tmp_path, split=1, flow=tmp_path / "TREE")
    assert [[video.name for video in part.videos] for part in (data.train, data.test)] == [
        ["v_Swing_g02_c01", "v_Turn_g02_c01"],
        ["v_Swing_g01_c01", "v_Turn_g01_c01"],
    ]
    (command,) = (line for line in commands() if line.startswith("twostream train temporal --videos TREE"))
    places = {"TREE": tmp_path / "TREE", "LISTS": tmp_path, "OUT": tmp_path / "OUT"}
    words = [str(places.get(word, word)) for word in shlex.split(command)[1:]]
    assert main([*words, "--iterations", "1", "--batch-size", "2", "--workers", "0", "--recipe", "small"]) == 0
    assert (tmp_path / "OUT" / "model.safetensors").is_file()


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_a_still_pixel_is_0_in_trees_that_round_and_in_those_that_truncate(tmp_path: Path) -> None:
    still = [np.zeros((24, 40, 2), np.float32)] * 2
    write_flow_x(tmp_path / "rounded" / "v", still, start=0, images=3)
    write_x(tmp_path / "truncated" / "v", still)
    for kind, name, code in (("rounded", "flow_x_00000.jpg", 128), ("truncated", "x_00001.jpg", 127)):
        assert (cv2.imread(str(tmp_path / kind / "v" / name), cv2.IMREAD_GRAYSCALE) == code).all()
        assert (FlowStore.open(tmp_path / kind)["v"].displacement(0) == 0).all()
    text = " ".join(read(PAGE).split())
    assert "Tools that round have 128 for it, one that truncates has 127." in text
    moved = (128 - (255 - 128)) * STEP
    assert f"255 - x, which makes {255 - 128} of 128: the still background of a flipped crop" in text
    assert f"moves by {moved:.3f} pixels." in text
    assert f"a step of {STEP:.3f} pixels" in text


def test_places_and_corners_are_where_the_page_says() -> None:
    """Theirs by their formulas, ours by ours."""
    count, length, places = 100, 5, 25
    step = (count - length) // (places - 1)
    theirs = list(range(1, min(2 + step * (places - 1), count + 1), step))
    assert len(theirs) == places
    ours = equally_spaced(places, count - length + 1) + 1  # they count from 1
    said = section("TSN")
    assert f"of 100 fields they end at the {theirs[-1]}rd place of {count - length + 1} |" in said
    assert f"from the first place to the last, rounded: the {ours[-1]}th |" in said
    corner = 4 * ((341 - 224) // 4)
    right = ops.ten_crop_windows([[256, 341]], 224)[0, 1, 1].item()
    assert f"so that the right corner of 341 pixels lies at {corner} | at {right}, the last place there is |" in said
    assert f"| 5, x and y in turn | {RECIPES['paper'].length};" in said


def test_the_order_of_the_ten_is_five_and_their_flips() -> None:
    assert ops.ten_crop_windows([[30, 40]], 20)[0, :, 2].tolist() == [0] * 5 + [1] * 5
    assert "| each crop followed by its flip | the five, then their flips |" in section("MMAction2")


def test_windows_and_levels_of_i3d() -> None:
    said = section("video_features")
    zero = 2 * np.rint(128 + 255 / 40 * 0.0) / 255 - 1
    assert f"0 becomes {zero:.3f} | clipped at {BOUND}, divided by {BOUND}: 0 stays 0 |" in said
    theirs, ours = ((64 - 1 - 64) // 64 + 1, (64 - 64) // 64 + 1)
    assert (theirs, ours) == (0, 1)
    assert "A video of 64 frames has one window of 64 here, and none there" in said
    parser = subcommands()["features"]
    assert (parser.get_default("window"), parser.get_default("stride")) == (16, 4)
    assert "`--window 16`, `--stride 4`" in said


def test_the_agreement_with_opencv_is_that_recorded() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "denseflow.json").read_text(encoding="utf-8"))
    found = record["all"]["as on CUDA"]
    assert f"{100 * found['equal']:.1f} % of codes are those of OpenCV's TV-L1" in section("denseflow")
    assert f"{100 * found['at_most_one_apart']:.1f} % are at most one apart" in section("denseflow")


@pytest.mark.usefixtures("mmaction")
def test_the_step_of_mmaction_takes_fields_as_either_version_reads_them() -> None:
    """Picture by picture, or x and y of a field in one array."""
    planes = np.random.default_rng(2).integers(0, 256, (12, 20, 26), dtype=np.uint8)
    together = [np.stack(planes[number : number + 2], axis=-1) for number in range(0, 12, 2)]
    found = []
    for imgs in (list(planes), together):
        np.random.seed(5)  # noqa: NPY002  what the step draws from
        found.append(load("mmaction_step").FlowStack(size=20, length=3)({"imgs": imgs})["imgs"])
    assert found[0].shape == (2, 6, 20, 20)
    np.testing.assert_array_equal(*found)
