# SPDX-License-Identifier: BSD-3-Clause
"""`twostream fuse`: several nets' scores of the same videos as one answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twostream_ext.engine import Scores
    from twostream_ext.models import SVMFusion


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "fuse",
        help="fuse the scores of several nets by averaging and by an SVM",
        description="Show top-1 and mean class accuracy of each of several score files of the same videos, of their "
        "average, with --train of a linear SVM on them, and with --weights of their weighted mean.",
    )
    parser.add_argument("scores", type=Path, nargs="+", metavar="SCORES", help="a file of each net, of `evaluate`")
    parser.add_argument(
        "--train",
        type=Path,
        nargs="+",
        default=[],
        metavar="SCORES",
        help="of the same nets in the same order, on the training videos (evaluate --part train): the SVM learns from "
        "them",
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="also fuse by these, one a file in the same order"
    )
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import load_same_videos
    from twostream_ext.errors import SettingsError
    from twostream_ext.models import fused_accuracies
    from twostream_ext.report import format_accuracies, useless_fusions

    for path in options.scores:
        if options.scores.count(path) > 1:
            raise SettingsError(f"{path}: given twice")
    test = load_same_videos(options.scores)
    svm = _fitted(options, test) if options.train else None
    streams = {str(path): scores.scores for path, scores in zip(options.scores, test, strict=True)}
    print(f"{test[0].scores.shape[1]} classes, {len(test[0].names)} videos")
    rows = fused_accuracies(streams, test[0].labels, svm=svm, weights=options.weights)
    print("\n".join([format_accuracies(rows), *useless_fusions(rows, {})]))


def _fitted(options: argparse.Namespace, test: list[Scores]) -> SVMFusion:
    """The machine that has learnt from the training videos; SettingsError where they cannot be those."""
    from twostream_ext.engine import check_classes, check_same_net, load_same_videos
    from twostream_ext.errors import SettingsError
    from twostream_ext.models import SVMFusion

    if len(options.train) != len(options.scores):
        raise SettingsError(f"--train: {len(options.train)} files, expected one for each of {len(options.scores)} nets")
    train = load_same_videos(options.train)
    check_classes(options.train[0], train[0], options.scores[0], test[0])
    for path, own, other_path, other in zip(options.train, train, options.scores, test, strict=True):
        check_same_net(path, own, other_path, other)
    both = sorted(set(train[0].names) & set(test[0].names))
    if both:
        raise SettingsError(f"{options.train[0]}: {both[0]!r} is a video of {options.scores[0]} too")
    return SVMFusion().fit([scores.scores for scores in train], train[0].labels)
