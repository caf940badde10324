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
import torch
from test_extract import assert_same_files
from videos import moving_frames, write_video

from twostream_ext.cli import main
from twostream_ext.extraction import extract
from twostream_ext.flow import METHODS, ClipFlow, FlowSettings, FlowStore, Method, register_method
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
        frame_step=2,
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
        (["--method", "brox"], "method is 'brox', expected one of tvl1, tvl1-fast, dis, farneback"),
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


def test_a_method_that_is_registered_is_one_like_ours(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help has a line for it, it extracts, and the store notes it."""

    def still(frames: torch.Tensor, device: torch.device, backward: bool) -> ClipFlow:
        flow = torch.zeros(len(frames) - 1, *frames.shape[1:], 2, dtype=torch.float32, device=device)
        return ClipFlow(flow, flow if backward else None)

    monkeypatch.setitem(METHODS, "still", METHODS["dis"])  # so that the table is as it was afterwards
    register_method("still", Method(still, "nothing moves", {"by": 0}))
    with pytest.raises(SystemExit) as stopped:
        main(["extract", "--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    listed = lines[lines.index("methods:") + 1 :][: len(METHODS) + 1]
    assert [line.split()[:1] for line in listed] == [*([name] for name in METHODS), []]
    assert listed[-2] == "  still      nothing moves; on the CPU"
    assert listed[0].endswith("; on the CPU or a GPU")
    assert main(["extract", str(videos), str(tmp_path / "flow"), "--method", "still"]) == 0
    store = FlowStore.open(tmp_path / "flow")
    assert store.settings.method == "still"
    assert store["A/one"].metadata["parameters"] == {"by": 0}
    assert not store["A/one"].read(0, 1).lo.any()
    capsys.readouterr()
    assert main(["extract", str(videos), str(tmp_path / "other"), "--method", "moving"]) == 2
    assert f"expected one of {', '.join(METHODS)}\n" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["extract", "--step", "0"]])
def test_what_lists_no_methods_imports_no_opencv(tmp_path: Path, arguments: list[str]) -> None:
    script = f"""
import sys
from twostream_ext.cli import main
try:
    main({arguments})
except SystemExit:
    assert not {{"cv2", "torch"}} & sys.modules.keys()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, stdout=-3, stderr=-3, timeout=60
    )


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
