# SPDX-License-Identifier: BSD-3-Clause
"""Many videos, in a short form that counts steps and not seconds; scale.py takes thousands, and a million names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import scale

from twostream_ext.data import FlowStacks, Video, read_batches, read_ucf_lists
from twostream_ext.extraction import extract
from twostream_ext.files import remove_leftovers
from twostream_ext.flow import FlowClip, FlowStore, read_flow_clip

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent / "benchmarks"


class Work(NamedTuple):
    """What is done with the files of `scale.make_names`, and how many function calls that may take for each name."""

    do: Callable[[Path, int], object]
    most_calls: int


def open_store(folder: Path, count: int) -> None:
    assert len(FlowStore.open(folder / "store")) == count


def read_lists(folder: Path, count: int) -> None:
    assert len(read_ucf_lists(folder / "videos", folder).train) == count


def extract_one(folder: Path, count: int) -> None:
    out = folder / "flow"
    extract(folder / "videos", out, method="dis", smallest_side=None, shard=(1, count), workers=1, progress=False)


WORKS = {
    "lists": Work(read_lists, 35),
    "store": Work(open_store, 12),
    "videos": Work(extract_one, 20),
    "leftovers": Work(lambda folder, _: remove_leftovers(folder / "store"), 10),
}


def count_calls(work: Callable[[], object]) -> int:
    """Calls of functions in this thread, of Python's and of C's."""
    calls = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("name", WORKS)
def test_each_further_name_takes_a_few_calls(name: str, tmp_path: Path) -> None:
    counts, calls = (500, 1000, 2000), []
    for count in counts:
        folder = tmp_path / str(count)
        scale.make_names(folder, count)
        WORKS[name].do(folder, count)  # what is done once in a process
        calls.append(count_calls(lambda folder=folder, count=count: WORKS[name].do(folder, count)))
    first, second = ((calls[n + 1] - calls[n]) / (counts[n + 1] - counts[n]) for n in (0, 1))
    assert first <= WORKS[name].most_calls
    assert second <= 1.1 * first


class CountedVideos(Sequence[Video]):
    """Videos that count how often one of them is looked at."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.looks = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < self._count:
            raise IndexError
        self.looks += 1
        return Video(f"{number}.avi", str(number), number % 3)


class OneClip:
    """A store in which all videos have the same flow."""

    def __init__(self, clip: FlowClip) -> None:
        self._clip = clip

    def __getitem__(self, name: str) -> FlowClip:
        return self._clip

    peek = __getitem__


def test_a_batch_looks_at_its_own_videos_alone(tmp_path: Path) -> None:
    scale.make_videos(tmp_path, 1)
    extract(tmp_path / "videos", tmp_path / "flow", method="dis", smallest_side=None, progress=False)
    store = OneClip(read_flow_clip(next((tmp_path / "flow").rglob("*.safetensors"))))
    videos = CountedVideos(1000)
    batches: Iterator[Any] = read_batches(store, videos, FlowStacks(1), batch_size=4, iterations=10, seed=0, workers=0)
    next(batches)
    before = videos.looks
    assert len(list(batches)) == 9
    assert videos.looks - before == 9 * 4


def run_scale(folder: Path, code: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and record of scale.py; `code` is run before it."""
    out = folder / "scale.json"
    script = f"import sys, scale\n{code}\nsys.exit(scale.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder), "--out", str(out), *options]
    paths = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stdout + done.stderr
    assert list(folder.iterdir()) == [out]
    record: dict[str, Any] = json.loads(out.read_text())
    return done.returncode, record


@pytest.mark.unsanitized
def test_commands_with_some_videos_keep_none_of_their_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, record = run_scale(tmp_path, "", "--videos", "20", "60", "--names", "1000")
    assert set(record["growth"]) == set(record["commands"]) == {"extract", "train", "evaluate"}
    for command, grown in record["growth"].items():
        assert grown["bytes_per_video"] < 60_000, command  # caches are not full yet
    if BENCHMARKS.is_dir():
        monkeypatch.syspath_prepend(BENCHMARKS)
        import scale_chart

        scale_chart.main([str(tmp_path / "scale.json")])
        assert (tmp_path / "scale.svg").read_text().count("<path") > 20


@pytest.mark.slow
@pytest.mark.unsanitized
def test_memory_is_flat_and_time_linear_with_thousands_of_videos_and_a_million_names(tmp_path: Path) -> None:
    status, record = run_scale(tmp_path, "", "--videos", "1000", "4000")
    assert status == 0, record


KEEP_INPUTS = """
import twostream_ext.engine.evaluate as module
kept, read = [], module._read_inputs
module._read_inputs = lambda *arguments: kept.append(read(*arguments)) or kept[-1]
"""


@pytest.mark.slow
@pytest.mark.unsanitized
def test_inputs_that_are_kept_are_found(tmp_path: Path) -> None:
    status, record = run_scale(tmp_path, KEEP_INPUTS, "--videos", "700", "1400", "--names", "1000")
    assert status == 1
    assert record["growth"]["evaluate"]["bytes_per_video"] > 2 * 58 * 72 * 2
