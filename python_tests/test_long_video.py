# SPDX-License-Identifier: BSD-3-Clause
"""A minute of video through the sliding window and through a pipe; benchmarks/long_video.py does an hour."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from long_videos import FPS, make_model, make_video, predict_file, predict_pipe
from made_runs import RECIPE


@pytest.mark.slow
@pytest.mark.unsanitized
def test_a_minute_through_the_window_and_through_a_pipe(tmp_path: Path) -> None:
    model, video = tmp_path / "run", tmp_path / "video.mp4"
    make_model(model, replace(RECIPE, flow_method="dis"))
    make_video(video, 60 * FPS)
    options = ["--window", "2", "--stride", "1"]
    answers = [tmp_path / name for name in ("file.csv", "pipe.csv")]
    runs = (
        predict_file(video, model, answers[0], options, every=0.1),
        predict_pipe(video, model, answers[1], options, every=0.1),
    )
    assert answers[0].read_bytes() == answers[1].read_bytes()
    with answers[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["start"]) for row in rows] == list(range(59))
    for column, least in (("class", 2), ("spatial", 30), ("temporal", 30)):
        assert len({row[column] for row in rows}) >= least  # the answers do change
    for run in runs:
        assert run.frames == 1500
        half = len(run.megabytes) // 2
        assert half > 5
        # What came in the second half would be 300 MB as it was decoded, and 15 MB as it is kept.
        assert max(run.megabytes) < max(run.megabytes[:half]) + 8
