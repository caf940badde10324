# SPDX-License-Identifier: BSD-3-Clause
"""`twostream predict`: the top classes of one video."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from twostream_ext.cli.options import add_device, positive_number


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help="top classes of one video from both nets",
        description="Name the most likely classes of a video with the nets of a finished run.",
    )
    parser.add_argument("video", type=Path, help="a video file")
    parser.add_argument("--model", type=Path, required=True, help="directory of a finished `twostream run` or `demo`")
    parser.add_argument("--top", type=positive_number, default=5, help="how many classes (5)")
    parser.add_argument("--annotated", type=Path, help="also write this .mp4: frames, flow and the answer")
    add_device(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import find_device, predict_video, read_run

    prediction = predict_video(options.video, options.model, device=find_device(options.device))
    best = prediction.average.argsort(descending=True)[: options.top].tolist()
    width = max(len(prediction.classes[index]) for index in best)
    lines = [f"{'':{width}}  average  spatial  temporal"]
    for index in best:
        average, spatial, temporal = (
            scores[index].item() for scores in (prediction.average, prediction.spatial, prediction.temporal)
        )
        name = prediction.classes[index]
        lines.append(f"{name:{width}}  {average:7.3f}  {spatial:7.3f}  {temporal:8.3f}")
    lines.append(f"SVM: {prediction.classes[prediction.svm]}")
    print("\n".join(lines))
    if options.annotated:
        from twostream_ext.report import write_annotated_video

        run = read_run(options.model)
        write_annotated_video(
            options.video,
            options.annotated,
            [f"{prediction.classes[i]}  {prediction.average[i]:.3f}" for i in best],
            method=run["flow_method"],
        )
        print(f"video: {options.annotated}")
