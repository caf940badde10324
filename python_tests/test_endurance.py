# SPDX-License-Identifier: BSD-3-Clause
"""Extraction that is killed again and again, of a thousand videos, and of a long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_extract import assert_same_files
from videos import moving_frames, write_video

from twostream_ext.extraction import extract

KILLS = 20

# Imports once; each extraction is then a forked child, so that its time goes into videos and not into imports.
KILLED_AGAIN_AND_AGAIN = """
import json, multiprocessing, os, random, signal, sys, time
from twostream_ext.extraction import extract

context = multiprocessing.get_context("fork")
videos, whole, killed, kills = *sys.argv[1:4], int(sys.argv[4])

def work(out):
    extract(videos, out, method="dis", smallest_side=64, backward=True, frames_out=out + "-frames", preview=True)

def start(out):
    child = context.Process(target=work, args=(out,))
    child.start()
    return child

begin = time.perf_counter()
child = start(whole)
child.join()
assert child.exitcode == 0
seconds = time.perf_counter() - begin
draw = random.Random(20)
hit, left = 0, 0
for _ in range(kills):
    child = start(killed)
    child.join(draw.uniform(0, 2 * seconds / kills))
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        hit += 1
    left += sum(name.endswith(".tmp") for _, _, names in os.walk(killed) for name in names)
child = start(killed)
child.join()
print(json.dumps({"exit": child.exitcode, "hit": hit, "left": left}))
"""


@pytest.mark.slow
def test_killed_at_twenty_random_moments_the_store_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    for index in range(60):
        write_video(tmp_path / "videos" / f"v{index:02d}.avi", moving_frames(30, size=(64, 96), seed=index))
    places = [str(tmp_path / name) for name in ("videos", "whole", "killed")]
    command = [sys.executable, "-W", "ignore", "-c", KILLED_AGAIN_AND_AGAIN, *places, str(KILLS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=500)
    result = json.loads(done.stdout)
    assert result["exit"] == 0
    assert result["hit"] >= KILLS // 2  # the others came after the last video
    assert_same_files(tmp_path / "whole", tmp_path / "killed")
    assert_same_files(tmp_path / "whole-frames", tmp_path / "killed-frames")


MEMORY = """
import sys
from twostream_ext.extraction import extract

def resident():  # MB, now
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

videos, out, *parts = sys.argv[1:]
for part in parts:
    names = None if part == "all" else [f"v{index:04d}.avi" for index in range(int(part))]
    extract(videos, out, method="dis", smallest_side=None, names=names, frames_out=out + "-frames", codec="raw")
    print(resident())
"""


def peaks(videos: Path, out: Path, *parts: str) -> list[float]:
    """Most memory in use, in MB, after each part of the videos."""
    command = [sys.executable, "-c", MEMORY, str(videos), str(out), *parts]
    done = subprocess.run(command, cwd=videos.parent, capture_output=True, text=True, check=True, timeout=500)
    return [float(line) for line in done.stdout.split()]


@pytest.mark.slow
def test_a_thousand_videos_take_no_more_memory_than_two_hundred(tmp_path: Path) -> None:
    first = write_video(tmp_path / "videos" / "v0000.avi", moving_frames(12, size=(48, 64)))
    for index in range(1, 1000):
        (first.parent / f"v{index:04d}.avi").write_bytes(first.read_bytes())
    some, all_of_them = peaks(first.parent, tmp_path / "flow", "200", "all")
    assert all_of_them < some + 12
    assert len(list((tmp_path / "flow").glob("*.safetensors"))) == 1000


@pytest.mark.slow
def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """Its raw flow and its frames, 250 MB, lie on the disk meanwhile."""
    frames = moving_frames(40, size=(192, 256), step=(1, 0))
    write_video(tmp_path / "short" / "v0000.avi", frames * 5)
    write_video(tmp_path / "long" / "v0000.avi", frames * 60)
    (short,) = peaks(tmp_path / "short", tmp_path / "short-flow", "all")
    (long,) = peaks(tmp_path / "long", tmp_path / "long-flow", "all")
    assert (tmp_path / "long-flow" / "v0000.safetensors").stat().st_size > 200e6
    assert long < short + 40
    assert (
        extract(tmp_path / "long", tmp_path / "long-flow", method="dis", smallest_side=None, codec="raw")[
            "v0000"
        ].length()
        == 2399
    )
