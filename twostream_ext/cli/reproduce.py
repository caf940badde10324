# SPDX-License-Identifier: BSD-3-Clause
"""`twostream reproduce`: the tables of the paper, on generated videos or your own."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.data import read_sources
from twostream_ext.cli.options import above_zero, add_out, add_run_options, add_videos, positive_number
from twostream_ext.cli.paths import ReadsFile, add_path

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
        "--videos and --data, on generated videos made for the table. With several --data, the second data set helps "
        "the first (table 2, 3 and 4).",
    )
    parser.set_defaults(split=None, flow=None, frames=None)  # tables say the splits, and need both directions of flow
    parser.add_argument("table", choices=_TABLES)
    add_videos(parser)
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
        type=above_zero,
        default=1.0,
        metavar="B",
        help="train B times as many iterations, of nets with the square root of B times the width, at most the "
        "paper's (1)",
    )
    add_run_options(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import find_device, reproduce
    from twostream_ext.report import format_experiment, write_report

    device = find_device(options.device)
    is_own = options.videos or options.lists or options.data
    sources, recipe = _on_own_videos(options) if is_own else _on_generated_videos(options)
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
    print(f"\n{format_experiment(summary)}\n", flush=True)  # first: a report that cannot be written shall not cost it
    print(f"report: {write_report(options.out)}")


def _on_own_videos(options: argparse.Namespace) -> tuple[Sources, Recipe]:
    from twostream_ext.engine import Sources, default_recipe, find_device, find_recipe
    from twostream_ext.errors import SettingsError

    first, *others = read_sources(options)
    if len(others) > 1:
        raise SettingsError(f"--data is given {len(options.data)} times, expected once or twice")
    for source in (first, *others):
        if source.flow or source.frames or source.whole:
            raise SettingsError(f"data set {source.name!r}: flow, frames and whole are of no use here; leave them out")
    recipe = default_recipe(find_device(options.device)) if options.recipe == "auto" else options.recipe
    named = replace(first, name=first.name or "first")
    return Sources(named, others[0] if others else None, options.init), find_recipe(recipe)


def _on_generated_videos(options: argparse.Namespace) -> tuple[Sources, Recipe]:
    from twostream_ext.engine import GENERATED_RECIPE, generate_sources

    return generate_sources(
        options.table, options.out, seed=options.seed, images=options.init, say=_say
    ), GENERATED_RECIPE


def _say(line: str) -> None:
    print(line, flush=True)
