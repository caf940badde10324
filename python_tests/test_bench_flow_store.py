# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark of the flow store: what it records is measured, and wrong pixels are not timed."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from modules import forget_scripts

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch, real_clips: Path) -> ModuleType:
    if not FOLDER.is_dir():
        pytest.skip("the benchmarks are not beside the tests")
    monkeypatch.syspath_prepend(FOLDER)
    import bench_flow_store as module

    torch_threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    monkeypatch.setattr(
        module, "find_sources", lambda: [module.Source("one", [real_clips / "carphone_pristine.mp4"], None)]
    )
    yield module
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(opencv_threads)
    forget_scripts(FOLDER)


def test_cost_and_speed_are_recorded(
    benchmark_module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_module.main(["--quick", "--out", str(tmp_path), "--method", "farneback"]) == 0
    record = json.loads((tmp_path / "flow_store.json").read_text())
    assert {"date", "commit", "machine", "versions", "method", "cost", "speed"} <= set(record)
    cost = {(each["range"], each["quality"]): each for each in record["cost"][0]["codings"]}
    assert len(cost) == 8
    for bound in ("own", "bound 20"):
        codings = [cost[bound, quality] for quality in (None, 95, 90, 75)]
        sizes = [each["bytes_a_field"] for each in codings]
        errors = [each["end_point_error"] for each in codings]
        assert sizes == sorted(sizes, reverse=True)
        assert errors == sorted(errors)
    # Raw: a byte for each component of 144x176 pixels, and what is noted beside.
    raw = cost["own", None]
    assert raw["bytes_a_field"] == 2 * 144 * 176 + 40
    assert raw["ucf101_gigabytes"] == pytest.approx(13_320 * 179 * 2 * 320 * 240 / 1e9, rel=1e-3)
    assert raw["end_point_error"] < 0.05
    for run in record["speed"]["runs"]:
        assert all(way["fields_a_second"] > 0 for way in run["ways"])
    assert "| store |" in capsys.readouterr().out


def test_wrong_pixels_are_not_timed(benchmark_module: ModuleType, tmp_path: Path) -> None:
    options = benchmark_module._parse(["--pairs", "2", "--videos", "10"])
    files = benchmark_module.write_files(tmp_path, benchmark_module.find_sources(), options)
    picks = [[(f"v{video:03d}", 3) for video in range(10)]]
    benchmark_module.check(files, picks)
    cv2.imwrite(files.planes["v002"][5][1], np.zeros((256, 340), np.uint8))
    with pytest.raises(SystemExit, match=r"gives other pixels than .*v002/flow_y_00005.jpg"):
        benchmark_module.check(files, picks)
