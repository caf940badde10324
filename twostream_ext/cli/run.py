# SPDX-License-Identifier: BSD-3-Clause
"""`twostream run`: from a folder of videos to a two-stream result."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.options import (
    add_backbone,
    add_flow_input,
    add_init,
    add_lists,
    add_out,
    add_run_options,
    check_init,
    with_flow_input,
)

if TYPE_CHECKING:
    from twostream_ext.engine import Recipe

AFTER_INTERRUPT = "; the same command goes on from here"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="flow, both nets, evaluation, fusion and a report on your own videos",
        description="Compute flow, train both nets, score the test videos, fuse and report. Run again, it goes on "
        "where it stopped.",
    )
    add_lists(parser)
    add_out(parser)
    parser.add_argument(
        "--recipe",
        choices=("auto", "paper", "small"),
        default="auto",
        help="paper: full CNN-M-2048, 80,000 iterations; small: a quarter of the width and of the pixels; "
        "auto: paper on a GPU, small without (auto)",
    )
    add_backbone(parser)
    add_init(parser, "the spatial net ")
    add_flow_input(parser)
    parser.add_argument(
        "--hold-out",
        type=float,
        metavar="SHARE",
        help="keep this share of the training videos (0.2, say) from the nets, and choose weights and the SVM's C on "
        "them (none)",
    )
    add_run_options(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import default_recipe, find_device, find_recipe

    check_init(options)
    name = options.recipe
    if name == "auto":
        name = default_recipe(find_device(options.device))
        print(f"recipe: {name}")
    recipe = find_recipe(name)
    recipe = with_flow_input(replace(recipe, backbone=options.backbone or recipe.backbone), options)
    if options.hold_out is not None:
        recipe = replace(recipe, hold_out=options.hold_out)
    if options.init is not None:
        numbers = recipe.numbers("spatial").fine_tuned(options.init, last_layer=options.last_layer)
        recipe = recipe.with_numbers("spatial", numbers)
    run_and_report(options, options.videos, options.lists, recipe, options.split)


def run_and_report(options: argparse.Namespace, videos: Path, lists: Path, recipe: Recipe, split: int) -> None:
    """Run the pipeline and show its table and where the report is."""
    from twostream_ext.engine import find_device, run_pipeline
    from twostream_ext.report import REPORT_FILE, format_table, is_report_current, write_report

    summary = run_pipeline(
        videos,
        lists,
        options.out,
        recipe=recipe,
        split=split,
        seed=options.seed,
        device=find_device(options.device),
        workers=options.workers,
        say=_say,
    )
    page = options.out / REPORT_FILE
    if not is_report_current(options.out):
        write_report(options.out)
    print(f"\n{format_table(summary)}\n\nreport: {page}")


def _say(line: str) -> None:
    print(line, flush=True)
