# SPDX-License-Identifier: BSD-3-Clause
"""A Data-Juicer filter that keeps videos by how much moves in them beside the camera, in diagonals a second.

dj-process --config recipe.yaml --custom-operator-paths data_juicer_motion.py, with `video_object_motion_filter` in
the recipe's `process`.
"""

from __future__ import annotations

from typing import Any

from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields

import twostream_ext as ts


@OPERATORS.register_module("video_object_motion_filter")
class VideoObjectMotionFilter(Filter):
    def __init__(self, min_score: float = 0.01, max_score: float = float("inf"), **others: Any) -> None:
        super().__init__(**others)
        self.min_score, self.max_score = min_score, max_score

    def compute_stats_single(self, sample: dict[str, Any], context: bool = False) -> dict[str, Any]:
        motions = [ts.motion.score(video) for video in sample[self.video_key]]
        sample[Fields.stats]["video_object_motion"] = [each.objects.mean / each.diagonal for each in motions]
        return sample

    def process_single(self, sample: dict[str, Any]) -> bool:
        return any(self.min_score <= each <= self.max_score for each in sample[Fields.stats]["video_object_motion"])
