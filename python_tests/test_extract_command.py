# SPDX-License-Identifier: BSD-3-Clause
"""`twostream extract` as a user meets it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from test_extract import assert_same_files
from videos import moving_frames, write_video

from twostream_ext.cli import main
from twostream_ext.extraction import extract
from twostream_ext.flow import METHODS, FlowSettings, FlowStore
from twostream_ext.media import FrameStore


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for index, name in enumerate(("A/one.avi", "A/two.avi", "B/three.avi")):
        write_video(tmp_path / "videos" / name, moving_frames(6, seed=index))
    return tmp_path / "videos"


def test_options_reach_the_store(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, frames = tmp_path / "flow", tmp_path / "frames"
    options = ["--method", "farneback", "--backward", "--step", "2", "--size", "40", "--bound", "8", "--quality", "70"]
    options += ["--frames", str(frames), "--preview", "--workers", "1"]
    assert main(["extract", str(videos), str(out), *options]) == 0
    assert capsys.readouterr() == (f"3 videos in {out}\n", "")
    expected = FlowSettings("farneback", 40, "jpeg", 70, ("forward", "backward"), bound=8.0, frame_step=2)
    assert FlowStore.open(out).settings == expected
    assert len(FrameStore.open(frames)["A/one"]) == 3
    assert len(list(out.rglob("*.png"))) == 3
    extract(
        videos,
        tmp_path / "python",
        method="farneback",
        backward=True,
        step=2,
        smallest_side=40,
        bound=8,
        quality=70,
        preview=True,
    )
    assert_same_files(out, tmp_path / "python")


def test_own_size_and_raw_codec(videos: Path, tmp_path: Path) -> None:
    assert main(["extract", str(videos), str(tmp_path / "flow"), "--size", "own", "--codec", "raw"]) == 0
    settings = FlowStore.open(tmp_path / "flow").settings
    assert (settings.smallest_side, settings.codec, settings.quality) == (None, "raw", None)


def test_failures_are_listed_at_the_end(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(12):
        (videos / f"broken{index:02d}.avi").write_text("no video")
    assert main(["extract", str(videos), str(tmp_path / "flow"), "--size", "32"]) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert [line.split(": ")[0] for line in lines[:-1]] == [str(videos / f"broken{n:02d}.avi") for n in range(12)]
    assert lines[-1] == "twostream: error: 12 videos could not be extracted, see above"
    assert len(FlowStore.open(tmp_path / "flow")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "brox"], "method is 'brox', expected one of tvl1, dis, farneback"),
        (["--method", "dis", "--device", "cuda:3"], "device is 'cuda:3', but dis runs on the CPU only"),
        (["--bound", "0"], "bound is 0.0, expected a positive number"),
        (["--quality", "101"], "quality is 101"),
        (["--shard", "4/3"], "shard is 4/3"),
        (["--estimator", "nonsense"], "estimator is 'nonsense', expected module:function"),
        (["--scheduler", "tcp://x", "--workers", "2"], "a Dask cluster (--scheduler) has its own workers"),
    ],
)
def test_options_that_cannot_be(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["extract", str(videos), str(tmp_path / "flow"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("twostream: error: ")
    assert message in lines[0]
    assert not (tmp_path / "flow").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--shard", "2"],
        ["--shard", "0/2"],
        ["--shard", "a/b"],
        ["--size", "0"],
        ["--step", "0"],
        ["--codec", "png"],
        ["--estimator", "a:b", "--method", "farneback"],
    ],
)
def test_wrong_usage(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["extract", str(videos), str(tmp_path / "flow"), *options])
    assert stopped.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["extract", "--help"])
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if line.strip().startswith("--method") and "how" in line)
    assert all(method in line for method in METHODS)


ESTIMATOR = """
import numpy as np

def estimate(frames):
    return np.ones((len(frames) - 1, *frames.shape[1:3], 2), np.float32)
"""


def test_a_terminal_sees_the_rate_and_the_module_of_an_estimator_is_found_where_one_is(
    videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_flow.py").write_text(ESTIMATOR)
    command = "import sys; sys.path.remove(''); from twostream_ext.cli import main; sys.exit(main())"  # as the script
    arguments = ["extract", "videos", "flow", "--estimator", "my_flow:estimate"]
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows and columns
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=terminal,
        check=True,
        timeout=120,
    )
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    os.close(terminal)
    assert done.stdout == b"3 videos in flow\n"
    assert "3/3" in shown
    assert " pairs/s" in shown
    assert FlowStore.open(tmp_path / "flow").settings.method == "my_flow:estimate"
