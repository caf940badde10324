# SPDX-License-Identifier: BSD-3-Clause
"""Writing .mp4 files: what is given is in them, at its rate, or there is none and an error that names it."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from videos import decode, moving_frames

from twostream_ext.errors import VideoError
from twostream_ext.files import remove_leftovers
from twostream_ext.media import video_fps, write_mp4


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Files may have so many bytes, which stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_all_pictures_are_written_in_order(tmp_path: Path) -> None:
    frames = moving_frames(6, size=(47, 63))
    write_mp4(tmp_path / "new" / "out.MP4", iter(frames), 12.5)
    found = decode(tmp_path / "new" / "out.MP4")
    assert [frame.shape for frame in found] == 6 * [(48, 64, 3)]
    for frame, expected in zip(found, frames, strict=True):
        assert np.abs(frame[:47, :63, ::-1].astype(float) - expected).mean() < 12
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.MP4"]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        *((rate, rate) for rate in (25.0, 119.88, 211.222, 105611 / 500, 30000 / 1001, 24000 / 1001, 0.01, 4000.7)),
        *((rate, rate) for rate in (65.5354, 65.536, 655.3549, 6553.51, 65535.0)),
        *((rate, 25.0) for rate in (math.nan, math.inf, -math.inf, 0.0, -25.0, 0.001, 65536.0, 1e9)),
    ],
)
def test_rates_of_phones_and_nonsense(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fps: float, expected: float
) -> None:
    write_mp4(tmp_path / "out.mp4", moving_frames(3), fps)
    assert video_fps(tmp_path / "out.mp4") == pytest.approx(expected, rel=1e-4)
    assert len(decode(tmp_path / "out.mp4")) == 3
    assert capfd.readouterr() == ("", "")


def test_a_full_disk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frames = moving_frames(20, size=(120, 160))
    write_mp4(tmp_path / "whole.mp4", frames, 25)
    whole = (tmp_path / "whole.mp4").stat().st_size
    (tmp_path / "out.mp4").write_bytes(b"as it was")
    for size in (0, 100, whole // 2, whole - 110):  # of the last, the header alone is cut
        with limited(size), pytest.raises(VideoError, match=r"out.mp4: cannot be written: ") as caught:
            write_mp4(tmp_path / "out.mp4", frames, 25)
        assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "whole.mp4"}
    assert (tmp_path / "out.mp4").read_bytes() == b"as it was"
    with limited(whole):
        write_mp4(tmp_path / "out.mp4", frames, 25)
    assert len(decode(tmp_path / "out.mp4")) == 20
    assert capfd.readouterr() == ("", "")


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"out.avi: is written as .mp4"):
        write_mp4(tmp_path / "out.avi", moving_frames(2), 25)
    with pytest.raises(VideoError, match=r"out.mp4: there are no pictures"):
        write_mp4(tmp_path / "out.mp4", [], 25)
    with pytest.raises(VideoError, match=r"out.mp4: cannot be written: it would hold 2 of 3 pictures"):
        write_mp4(tmp_path / "out.mp4", [*moving_frames(2), *moving_frames(1, size=(60, 80))], 25)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VideoError, match=r"out.mp4: cannot be written: is a file, expected a directory"):
        write_mp4(tmp_path / "file" / "out.mp4", moving_frames(2), 25)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


WRITER = """
import sys
import numpy as np
from twostream_ext.media import write_mp4

def pictures():
    yield np.zeros((48, 64, 3), np.uint8)
    print("ready", flush=True)
    input()
    yield np.zeros((48, 64, 3), np.uint8)

write_mp4(sys.argv[1], pictures(), 25)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_killed_writer_leaves_what_is_cleaned(tmp_path: Path, killed: bool) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out.mp4")]
    path = os.pathsep.join(each for each in sys.path if each)
    with subprocess.Popen(
        command,
        cwd="/",
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        if killed:
            writer.send_signal(signal.SIGKILL)
        writer.communicate(None if killed else "\n", timeout=30)
    remove_leftovers(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ([] if killed else ["out.mp4"])
    if not killed:
        assert len(decode(tmp_path / "out.mp4")) == 2
