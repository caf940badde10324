# SPDX-License-Identifier: BSD-3-Clause
"""Real clips that were cut and overwritten: each is a clear error or a usable clip, and none ends or stops the run."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from twostream_ext.flow import FlowStore

Damage = Callable[[random.Random, bytearray], bytearray]


def cut(draw: random.Random, data: bytearray) -> bytearray:
    return data[: draw.randrange(len(data))]


def overwrite_bytes(draw: random.Random, data: bytearray) -> bytearray:
    for _ in range(draw.choice([1, 20, 400])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return data


def overwrite_the_head(draw: random.Random, data: bytearray) -> bytearray:
    for _ in range(draw.choice([1, 4, 20])):
        data[draw.randrange(2000)] = draw.randrange(256)
    return data


def overwrite_the_index(draw: random.Random, data: bytearray) -> bytearray:
    for _ in range(draw.choice([1, 4, 20])):
        data[-1 - draw.randrange(3000)] = draw.randrange(256)
    return data


def blank_a_block(draw: random.Random, data: bytearray) -> bytearray:
    begin, length = draw.randrange(len(data)), draw.choice([64, 4096])
    data[begin : begin + length] = bytes(len(data[begin : begin + length]))
    return data


def take_a_block_out(draw: random.Random, data: bytearray) -> bytearray:
    begin = draw.randrange(len(data))
    del data[begin : begin + draw.choice([1, 100, 4096])]
    return data


DAMAGES: tuple[Damage, ...] = (
    cut,
    overwrite_bytes,
    overwrite_the_head,
    overwrite_the_index,
    blank_a_block,
    take_a_block_out,
)


def make_damaged(folder: Path, clips: list[Path], count: int) -> list[Path]:
    draw = random.Random(8)
    made = []
    for number in range(count):
        damage, clip = DAMAGES[number % len(DAMAGES)], clips[number % len(clips)]
        path = folder / f"{number:02d}_{damage.__name__}_{clip.stem}{clip.suffix}"
        path.write_bytes(damage(draw, bytearray(clip.read_bytes())))
        made.append(path)
    return made


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_damaged_videos(count: int, real_clips: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    clips = [real_clips / "carphone_pristine.mp4", real_clips / "carphone_distorted.mp4"]
    if shared := shared_clips(request):
        clips += shared
    videos, out = tmp_path / "videos", tmp_path / "flow"
    videos.mkdir()
    damaged = make_damaged(videos, clips, count)
    (videos / "whole.mp4").write_bytes(clips[1].read_bytes())
    command = [sys.executable, "-m", "twostream_ext", "extract", str(videos), str(out), "--size", "32", "--step", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    *lines, last = done.stderr.splitlines()
    warnings = [line for line in lines if line.startswith("twostream: warning: ")]
    reasons = [line for line in lines if line not in warnings]
    assert last == f"twostream: error: {len(reasons)} videos could not be extracted, see above"
    assert reasons
    store = FlowStore.open(out)
    assert "whole" in store
    for path in damaged:
        told = [line for line in reasons if line.startswith(f"{path}: ")]
        assert (path.stem in store) == (not told), path.name
        if path.stem in store:
            clip = store[path.stem]
            assert clip.read(0, clip.length()).codes.shape == (clip.length(), *clip.size, 2)
            assert clip.frame_count == (decodable_frames(path) + 1) // 2, path.name
            warned = [line for line in warnings if line.startswith(f"twostream: warning: {path}: ")]
            assert len(warned) == (clip.metadata["damage"] is not None), path.name
    assert len(store) + len(reasons) == count + 1
    assert not list(out.glob(".*"))


def decodable_frames(path: Path) -> int:
    """Those before and those after the damage."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    return sum(capture.grab() for _ in range(1000))


def shared_clips(request: pytest.FixtureRequest) -> list[Path]:
    """Clips of other codecs, where there are any beside this checkout."""
    import _pytest.outcomes

    try:
        folder: Path = request.getfixturevalue("shared_data")
    except _pytest.outcomes.Skipped:
        return []
    return [
        *sorted((folder / "ut-interaction").glob("*/*.mp4"))[:2],
        *sorted((folder / "ucf101-originals").glob("*"))[:1],
    ]
