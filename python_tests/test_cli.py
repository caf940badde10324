# SPDX-License-Identifier: BSD-3-Clause
"""The `twostream` command as a user meets it: what it prints, and one line for each mistake."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import twostream_ext
from twostream_ext import data
from twostream_ext.cli import main
from twostream_ext.cli.options import add_run_options


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    data.generate_videos(folder, seed=6, train_per_class=1, test_per_class=1, frames=12)
    return folder


def run_command(clips: Path, out: Path, *more: str, lists: Path | None = None) -> list[str]:
    return [
        "run",
        "--videos",
        str(clips),
        "--lists",
        str(lists or clips),
        "--out",
        str(out),
        "--recipe",
        "small",
        *more,
    ]


def error_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("twostream: error: ")
    return lines[0]


def test_info(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert f"twostream_ext        {twostream_ext.__version__}".split() == shown.splitlines()[0].split()
    for word in ("CUDA architectures", "CUDA driver", "SIMD level", "torch"):
        assert word in shown


def test_module_and_help(tmp_path):
    for command in (["--help"], ["demo", "--help"], ["run", "--help"], ["predict", "--help"], ["info", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "twostream_ext", *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("usage: twostream")


def test_cmake_dir(capsys):
    assert main(["cmake-dir"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "twostream_ext-config.cmake").is_file()


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["nonsense"],
        ["run"],
        ["run", "--videos", "a", "--lists", "b", "--out", "c", "--recipe", "huge"],
        ["demo", "--seed", "-1"],
        ["run", "--videos", "a", "--lists", "b", "--out", "c", "--split", "0"],
        ["predict"],
        ["evaluate", "--model", "a", "--videos", "b", "--lists", "c", "--out", "d", "--crops", "5"],
        ["fuse"],
    ],
)
def test_wrong_usage_exits_with_2(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    assert "usage: twostream" in capsys.readouterr().err


def test_as_many_workers_as_this_process_has_processors(monkeypatch):
    """A job may be given fewer than the machine has."""
    for allowed, workers in (({0}, 1), (set(range(3)), 3), (set(range(64)), 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: allowed)
        parser = argparse.ArgumentParser()
        add_run_options(parser)
        assert parser.parse_args([]).workers == workers


def test_missing_folder_of_videos(tmp_path, clips, capsys):
    assert main(run_command(tmp_path / "none", tmp_path / "out", lists=clips)) == 1
    assert str(tmp_path / "none") in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_missing_split(tmp_path, clips, capsys):
    assert main(run_command(clips, tmp_path / "out", "--split", "3")) == 1
    assert "trainlist03.txt" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_unknown_device(tmp_path, clips, capsys):
    assert main(run_command(clips, tmp_path / "out", "--device", "abacus")) == 2
    assert "device is 'abacus', expected auto, cpu or cuda" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_list_that_names_no_file(tmp_path, clips, capsys):
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        (lists / name).write_text((clips / name).read_text())
    with (lists / "trainlist01.txt").open("a") as file:
        file.write("DottedBobbing/v_DottedBobbing_g99_c01.mp4 1\n")
    assert main(run_command(clips, tmp_path / "out", lists=lists)) == 1
    line = error_line(capsys)
    assert "trainlist01.txt" in line
    assert "17" in line
    assert "v_DottedBobbing_g99_c01.mp4" in line


def test_too_few_frames(tmp_path, capsys):
    short = tmp_path / "short"
    data.generate_videos(short, seed=6, train_per_class=1, test_per_class=1, frames=8)
    assert main(run_command(short, tmp_path / "out")) != 0
    line = error_line(capsys)
    assert "11" in line


def test_predict_without_a_model(tmp_path, clips, capsys):
    video = next(clips.glob("*/*.mp4"))
    assert main(["predict", str(video), "--model", str(tmp_path)]) == 1
    assert "holds no run" in error_line(capsys)


def test_no_space_left(tmp_path, clips):
    # A limit on the size of files fails writes as a full disk does, without one.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, "-m", "twostream_ext", *run_command(clips, tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("twostream: error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    stored = list((tmp_path / "out" / "flow").rglob("*.safetensors"))
    assert all(path.stat().st_size < 20_000 for path in stored)
    assert not list((tmp_path / "out").rglob("*.tmp"))
