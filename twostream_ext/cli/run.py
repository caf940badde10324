# SPDX-License-Identifier: BSD-3-Clause
"""`twostream run`: from a folder of videos to a two-stream result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.data import read_source_alone
from twostream_ext.cli.options import (
    ALL_SPLITS,
    add_backbone,
    add_flow_input,
    add_init,
    add_lists,
    add_out,
    add_run_options,
    add_stores,
    check_init,
    with_flow_input,
)
from twostream_ext.cli.paths import WritesFolder

if TYPE_CHECKING:
    from twostream_ext.data import DataSource
    from twostream_ext.engine import Recipe

AFTER_INTERRUPT = "; the same command goes on from here"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="flow, both nets, evaluation, fusion and a report on your own videos",
        description="Compute flow, train both nets, score the test videos, fuse and report. Run again, it goes on "
        "where it stopped.",
    )
    add_lists(parser, several_splits=True)
    add_stores(parser)
    add_out(parser, use=WritesFolder(_files))
    parser.add_argument(
        "--recipe",
        choices=("auto", "paper", "small"),
        default="auto",
        help="paper: full CNN-M-2048, 80,000 iterations; small: a quarter of the width and of the pixels; "
        "auto: paper on a GPU, small without (auto)",
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="how flow is estimated: tvl1, tvl1-fast (a tenth of the time), or another that `twostream extract` lists "
        "(the recipe's, tvl1)",
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
    source = read_source_alone(options)
    splits = _splits(options.splits, source)
    name = options.recipe
    if name == "auto":
        name = default_recipe(find_device(options.device))
        print(f"recipe: {name}")
    recipe = find_recipe(name)
    recipe = with_flow_input(replace(recipe, backbone=options.backbone or recipe.backbone), options)
    if options.method is not None:
        recipe = replace(recipe, flow_method=_checked_method(options.method, source))
    if options.hold_out is not None:
        recipe = replace(recipe, hold_out=options.hold_out)
    if options.init is not None:
        numbers = recipe.numbers("spatial").fine_tuned(options.init, last_layer=options.last_layer)
        recipe = recipe.with_numbers("spatial", numbers)
    source = replace(source, split=splits[0])
    run_and_report(options, source, recipe, splits=splits, skip_missing=options.skip_missing)


def _checked_method(name: str, source: DataSource) -> str:
    """SettingsError if there is no such method, or nothing for it to do."""
    from twostream_ext.errors import SettingsError
    from twostream_ext.flow import find_method

    find_method(name)
    if source.flow is not None:
        raise SettingsError(f"method is {name!r}, but the flow is given: {source.flow}")
    return name


def _files() -> tuple[str, ...]:
    """What `--init` may not be."""
    from twostream_ext.engine import CHECKPOINT_FILE, MODEL_FILE, STREAMS

    return tuple(f"{stream}/{name}" for stream in STREAMS for name in (CHECKPOINT_FILE, MODEL_FILE))


def run_and_report(
    options: argparse.Namespace,
    source: DataSource,
    recipe: Recipe,
    *,
    splits: Sequence[int] = (),
    skip_missing: bool = False,
) -> None:
    """Run the pipeline and show its table and where the report is; splits: several, in place of the source's."""
    from twostream_ext.engine import find_device, run_pipeline, run_splits, split_folder
    from twostream_ext.errors import SettingsError
    from twostream_ext.report import REPORT_FILE, format_splits, format_table, is_report_current, write_report

    if source.whole:
        raise SettingsError("whole: a run needs test videos, and a data set that is trained on as a whole has none")
    given: dict[str, Any] = {
        "recipe": recipe,
        "form": source.format,
        "flow": source.flow,
        "frames": source.frames,
        "leave_out": source.leave_out,
        "skip_missing": skip_missing,
        "seed": options.seed,
        "device": find_device(options.device),
        "workers": options.workers,
        "say": _say,
    }
    places = (source.videos, source.lists, options.out)
    folders = [split_folder(options.out, number) for number in splits] if len(splits) > 1 else []
    if folders:
        table = format_splits(run_splits(*places, splits=splits, **given))
    else:
        table = format_table(run_pipeline(*places, split=source.split, **given))
    print(f"\n{table}\n", flush=True)  # first: a report that cannot be written shall not cost it
    for out in (options.out, *folders):
        if not is_report_current(out):
            write_report(out)
    print(f"report: {options.out / REPORT_FILE}")


def _splits(given: list[int | str] | None, source: DataSource) -> list[int]:
    """The splits to run, each once."""
    from twostream_ext.data import listed_splits
    from twostream_ext.errors import SettingsError

    if given is None:
        return [source.split]
    if ALL_SPLITS not in given:
        return list(dict.fromkeys(map(int, given)))
    if len(given) > 1:
        raise SettingsError(f"--split {ALL_SPLITS} is given beside numbers; give one or the other")
    return listed_splits(source)


def _say(line: str) -> None:
    print(line, flush=True)
