# SPDX-License-Identifier: BSD-3-Clause
"""`twostream motion`: how much moves in videos."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.failures import listed_failures
from twostream_ext.cli.options import above_zero, positive_number
from twostream_ext.cli.paths import ReadsFolder, WritesFile, add_path

if TYPE_CHECKING:
    from twostream_ext.motion import MotionSettings

AFTER_INTERRUPT = "; with --out, the same command goes on from here"

_UNREAD = (".csv", ".jsonl", ".parquet")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "motion",
        help="scores of how much moves in videos, the camera's motion told apart",
        description="Score the motion of videos, without a flow store: displacements as they are and with the camera's "
        "motion removed, that motion itself (pan, zoom, turn), the share of moving pixels, still pictures and cuts. A "
        "video that fails is reported at the end, and the others are done; the exit code is then 1.",
    )
    add_path(parser, "videos", use=ReadsFolder(unread=_UNREAD), metavar="VIDEOS", help="a folder of videos, or a video")
    add_path(
        parser,
        "--out",
        use=WritesFile(),
        metavar="SCORES",
        help="write the scores to this .csv, .jsonl or .parquet (pip install 'twostream_ext[parquet]'); broken off, "
        "the same command goes on; without it some columns are shown",
    )
    parser.add_argument("--fps", type=_rate, default=2.0, metavar="F", help="frames taken a second, or 'own': all (2)")
    parser.add_argument(
        "--size", type=_size, default=128, metavar="N", help="shorter side of the frames in pixels, or 'own' (128)"
    )
    parser.add_argument("--method", default="dis", metavar="NAME", help="of optical flow, see extract (dis)")
    parser.add_argument("--workers", type=positive_number, metavar="N", help="threads (the processors there are)")
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.motion import MotionSettings, score_videos

    settings = MotionSettings(options.fps, options.size, options.method)
    if options.out is None:
        _show(options, settings)
        return
    with listed_failures("could not be scored"):
        rows = score_videos(options.videos, options.out, settings, workers=options.workers)
    print(f"{len(rows)} videos in {options.out}")


def _show(options: argparse.Namespace, settings: MotionSettings) -> None:
    """Some columns of each video, as they come."""
    from twostream_ext.motion import find_videos, score

    videos = find_videos(options.videos)
    width = max(map(len, (*videos, "video")))
    print(f"{'video':{width}}  {'motion':>8}  {'objects':>8}  {'pan':>8}  {'zoom':>6}  {'turn':>6}  moving  cuts")
    print(f"{'':{width}}  {'px/s':>8}  {'px/s':>8}  {'px/s':>8}  {'%/s':>6}  {'deg/s':>6}  {'%':>6}")
    for name, path in videos.items():
        found = score(path, settings)
        camera = found.camera
        lengths = f"{found.displacement.mean:8.1f}  {found.objects.mean:8.1f}  {camera.pan:8.1f}"
        others = f"{100 * camera.zoom:6.1f}  {camera.turn:6.1f}  {100 * found.moving:6.1f}  {found.cuts:4}"
        print(f"{name:{width}}  {lengths}  {others}{'  still' if found.still else ''}", flush=True)


def _rate(text: str) -> float | None:
    return None if text == "own" else above_zero(text)


def _size(text: str) -> int | None:
    return None if text == "own" else positive_number(text)
