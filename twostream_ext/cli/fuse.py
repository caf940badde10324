# SPDX-License-Identifier: BSD-3-Clause
"""`twostream fuse`: several nets' scores of the same videos as one answer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
        "average, with --train of a linear SVM on them, and with --weights or --held-out of their weighted mean.",
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
    weighted = parser.add_mutually_exclusive_group()
    weighted.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="also fuse by these, one a file in the same order"
    )
    weighted.add_argument(
        "--held-out",
        type=Path,
        nargs="+",
        default=[],
        metavar="SCORES",
        help="of the same nets in the same order, on videos that none of them trained on: weights are chosen on them, "
        "and with --train the SVM's C",
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
    train = _load("--train", options.train, options.scores, test)
    held_out = _load("--held-out", options.held_out, options.scores, test)
    if train and held_out:
        _check_apart(options.held_out[0], held_out[0], options.train[0], train[0])
    weights, machines = _fusions(options.weights, train, held_out)
    streams = {str(path): scores.scores for path, scores in zip(options.scores, test, strict=True)}
    rows = fused_accuracies(streams, test[0].labels, weights=weights, **machines)
    print(f"{test[0].scores.shape[1]} classes, {len(test[0].names)} videos")
    print("\n".join([format_accuracies(rows), *useless_fusions(rows, {})]))
    if held_out and weights:
        cost = f" and C {machines['svm_chosen'].C:g}" if machines else ""
        chosen = f"weights {' '.join(f'{weight:g}' for weight in weights)}{cost}"
        print(f"Chosen on {len(held_out[0].names)} held-out videos: {chosen}")


def _load(option: str, paths: list[Path], test_paths: list[Path], test: list[Scores]) -> list[Scores]:
    """The same nets' scores of other videos; SettingsError where they cannot be that. None are given: none."""
    from twostream_ext.engine import check_classes, check_same_net, load_same_videos
    from twostream_ext.errors import SettingsError

    if not paths:
        return []
    if len(paths) != len(test_paths):
        raise SettingsError(f"{option}: {len(paths)} files, expected one for each of {len(test_paths)} nets")
    loaded = load_same_videos(paths)
    check_classes(paths[0], loaded[0], test_paths[0], test[0])
    for path, own, other_path, other in zip(paths, loaded, test_paths, test, strict=True):
        check_same_net(path, own, other_path, other)
    _check_apart(paths[0], loaded[0], test_paths[0], test[0])
    return loaded


def _check_apart(path: Path, scores: Scores, other_path: Path, other: Scores) -> None:
    from twostream_ext.errors import SettingsError

    both = sorted(set(scores.names) & set(other.names))
    if both:
        raise SettingsError(f"{path}: {both[0]!r} is a video of {other_path} too")


def _fusions(
    weights: list[float] | None, train: list[Scores], held_out: list[Scores]
) -> tuple[Sequence[float] | None, dict[str, SVMFusion]]:
    """The weights, given or chosen, and the machines that have learnt from the training videos."""
    from twostream_ext.models import SVMFusion, choose_cost, choose_weights

    learnt, unseen = [each.scores for each in train], [each.scores for each in held_out]
    machines = {"svm": SVMFusion().fit(learnt, train[0].labels)} if train else {}
    if not held_out:
        return weights, machines
    if train:
        cost = choose_cost(learnt, train[0].labels, unseen, held_out[0].labels)
        machines["svm_chosen"] = SVMFusion(cost).fit(learnt, train[0].labels)
    return choose_weights(unseen, held_out[0].labels), machines
