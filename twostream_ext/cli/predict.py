# SPDX-License-Identifier: BSD-3-Clause
"""`twostream predict`: the top classes of one video."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.options import add_device, positive_number
from twostream_ext.cli.paths import ReadsFile, ReadsFolder, WritesFile, add_path

if TYPE_CHECKING:
    from twostream_ext.engine import Prediction
    from twostream_ext.flow import FlowClip
    from twostream_ext.media import FrameClip


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help="top classes of one video from both nets",
        description="Name the most likely classes of a video with the nets of a finished run.",
    )
    add_path(parser, "video", use=ReadsFile(), help="a video file")
    add_path(
        parser,
        "--model",
        use=ReadsFolder(unread=(".mp4",)),
        required=True,
        help="directory of a finished `twostream run` or `demo`",
    )
    parser.add_argument("--top", type=positive_number, default=5, help="how many classes (5)")
    add_path(parser, "--annotated", use=WritesFile(), help="also write this .mp4: frames, flow and the answer")
    add_device(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import find_device, predict_video
    from twostream_ext.media import check_mp4

    if options.annotated:
        check_mp4(options.annotated)
    predict_video(
        options.video, options.model, device=find_device(options.device), report=partial(_show_prediction, options)
    )


def _show_prediction(options: argparse.Namespace, prediction: Prediction, flow: FlowClip, frames: FrameClip) -> None:
    from twostream_ext.engine import STREAMS

    average = prediction.scores["average"]
    best = average.argsort(descending=True)[: options.top].tolist()
    columns = ("average", *STREAMS)
    width = max(len(prediction.classes[index]) for index in best)
    print(f"{'':{width}}  {'  '.join(columns)}")
    for index in best:
        scores = "  ".join(f"{prediction.scores[name][index]:{len(name)}.3f}" for name in columns)
        print(f"{prediction.classes[index]:{width}}  {scores}")
    print(f"SVM: {prediction.classes[prediction.svm]}")
    if options.annotated:
        from twostream_ext.report import write_annotated_video

        lines = [f"{prediction.classes[index]}  {average[index]:.3f}" for index in best]
        write_annotated_video(options.annotated, flow, frames, lines)
        print(f"video: {options.annotated}")
