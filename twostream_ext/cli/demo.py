# SPDX-License-Identifier: BSD-3-Clause
"""`twostream demo`: the whole pipeline on generated videos."""

from __future__ import annotations

import argparse
from typing import Any

from twostream_ext.cli.options import add_out, add_run_options
from twostream_ext.cli.run import run_and_report

AFTER_INTERRUPT = "; the same command goes on from here"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="make a small set of video files and run the whole pipeline on it",
        description="Make a small set of video files (16 classes: 4 appearances x 4 motions, so that neither stream "
        "alone can tell them apart), run the whole pipeline on it, and show the table.",
    )
    add_out(parser, "twostream-demo")
    add_run_options(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.data import DataSource, generate_videos
    from twostream_ext.engine import RECIPES, RUN_FILE, read_run
    from twostream_ext.errors import SettingsError

    videos = options.out / "videos"
    if (options.out / RUN_FILE).exists() and read_run(options.out)["videos"] != str(videos.resolve()):
        raise SettingsError(f"{options.out}: holds a run on other videos; use another directory")
    print(f"generated clips in {videos} ...", flush=True)
    generate_videos(videos, seed=options.seed)
    run_and_report(options, DataSource(videos, videos), RECIPES["demo"])
