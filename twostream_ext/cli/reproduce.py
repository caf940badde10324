# SPDX-License-Identifier: BSD-3-Clause
"""`twostream reproduce`: the tables of the paper, on generated videos or your own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.options import add_out, add_run_options, positive_number
from twostream_ext.cli.paths import ReadsFile, ReadsFolder, add_path

if TYPE_CHECKING:
    from twostream_ext.engine import Recipe, Sources

AFTER_INTERRUPT = "; the same command goes on from here"

_TABLES = ("table1a", "table1b", "table2", "table3", "table4")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        help="a table of the paper, beside the paper's numbers",
        description="Train and test every row of a table of the paper, with several seeds, and show it beside the "
        "paper's numbers. Run again, with this table or another, it trains only what is not in OUT yet. Without "
        "--videos, on generated videos made for the table.",
    )
    parser.add_argument("table", choices=_TABLES)
    add_path(
        parser,
        "--videos",
        use=ReadsFolder(),
        action="append",
        default=[],
        help="directory of <class>/<video> files; given twice, the second data set helps the first (table 2, 3 and 4)",
    )
    add_path(
        parser,
        "--lists",
        use=ReadsFolder(),
        action="append",
        default=[],
        help="for each --videos, the directory of its classInd.txt, trainlist0N.txt and testlist0N.txt",
    )
    add_path(
        parser,
        "--init",
        use=ReadsFile(),
        metavar="FILE",
        help="the net that spatial nets are fine-tuned from, trained on ImageNet: as for train",
    )
    add_out(parser)
    parser.add_argument("--seeds", type=positive_number, default=3, metavar="N", help="runs of each row (3)")
    parser.add_argument(
        "--recipe",
        choices=("auto", "paper", "small"),
        default="auto",
        help="numbers of the trainings on --videos: paper on a GPU, small without (auto)",
    )
    parser.add_argument(
        "--budget",
        type=_budget,
        default=1.0,
        metavar="B",
        help="train B times as many iterations, of nets with the square root of B times the width, at most the "
        "paper's (1)",
    )
    add_run_options(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import find_device, reproduce
    from twostream_ext.report import format_experiment

    device = find_device(options.device)
    sources, recipe = _on_own_videos(options) if options.videos or options.lists else _on_generated_videos(options)
    summary = reproduce(
        options.table,
        options.out,
        sources,
        recipe=recipe.scaled(options.budget),
        seeds=range(options.seed, options.seed + options.seeds),
        device=device,
        workers=options.workers,
        say=_say,
    )
    print(f"\n{format_experiment(summary)}")


def _on_own_videos(options: argparse.Namespace) -> tuple[Sources, Recipe]:
    from twostream_ext.engine import Source, Sources, default_recipe, find_device, find_recipe
    from twostream_ext.errors import SettingsError

    if len(options.videos) != len(options.lists) or len(options.videos) > 2:
        raise SettingsError(
            f"--videos is given {len(options.videos)} times and --lists {len(options.lists)} times, expected both once "
            "or both twice"
        )
    first, *others = zip(options.videos, options.lists, strict=True)
    second = Source("second", *others[0]) if others else None
    recipe = default_recipe(find_device(options.device)) if options.recipe == "auto" else options.recipe
    return Sources(Source("first", *first), second, options.init), find_recipe(recipe)


def _on_generated_videos(options: argparse.Namespace) -> tuple[Sources, Recipe]:
    from twostream_ext.engine import GENERATED_RECIPE, generate_sources

    return generate_sources(
        options.table, options.out, seed=options.seed, images=options.init, say=_say
    ), GENERATED_RECIPE


def _budget(text: str) -> float:
    """An argparse type: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def _say(line: str) -> None:
    print(line, flush=True)
