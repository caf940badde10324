# SPDX-License-Identifier: BSD-3-Clause
"""How much moves in videos, with the camera's own motion told apart: scores, without a flow store."""

from twostream_ext.optional_packages import FLOW_PACKAGES, need_packages

need_packages("twostream_ext.motion", "flow", FLOW_PACKAGES)

from twostream_ext.motion.fields import CameraMotion, Displacement, FieldMotion
from twostream_ext.motion.many import find_videos, score_videos
from twostream_ext.motion.score import MotionScore, MotionSettings, score
from twostream_ext.motion.table import SCORE_FILES, check_scores_file, score_columns, score_row

__all__ = [
    "SCORE_FILES",
    "CameraMotion",
    "Displacement",
    "FieldMotion",
    "MotionScore",
    "MotionSettings",
    "check_scores_file",
    "find_videos",
    "score",
    "score_columns",
    "score_row",
    "score_videos",
]
