# SPDX-License-Identifier: BSD-3-Clause
"""`twostream train`: one net, in one process or under torchrun in many."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twostream_ext.cli.data import read_sources
from twostream_ext.cli.options import (
    add_backbone,
    add_flow_input,
    add_init,
    add_lists,
    add_out,
    add_run_options,
    add_stores,
    check_init,
    positive_number,
    with_flow_input,
)
from twostream_ext.cli.paths import WritesFolder

if TYPE_CHECKING:
    import torch

    from twostream_ext.data import DataSet, OpenedData, VideoSet
    from twostream_ext.engine import Recipe

_RECIPES = ("auto", "paper", "small", "demo")

AFTER_INTERRUPT = "; the same command goes on from the last checkpoint, with --resume"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train the net of one stream, on one GPU, several, or none",
        description="Train one net and write OUT/model.safetensors. The same under `torchrun "
        "--nproc-per-node N -m twostream_ext train ...`, for N processes on this machine (or, with torchrun's options, "
        "on several): they share each batch, and see the same videos and crops as one process does.",
        epilog="Numbers not given come from the recipe; with --init, a quarter of its iterations and the schedule "
        "fine_tune, as in the paper, and with --last-layer dropout 0.5. SIGTERM saves the state and ends with exit "
        "code 143. With several --data files, each data set has a classifier of its own on one backbone (multi-task, "
        "section 4 of the paper), called by the name of its file.",
    )
    parser.add_argument("stream", metavar="STREAM", help="spatial, temporal, or the name of a registered one")
    add_lists(parser)
    add_stores(parser)
    parser.add_argument(
        "--one-head",
        action="store_true",
        help="with several --data: all classes in one classifier, those of the first data set first (leave_out in a "
        "file names classes that another has)",
    )
    add_out(parser, use=WritesFolder(_files))
    add_init(parser, "", "; a temporal net takes them averaged over RGB, which is not of the paper")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT, if there is one")
    parser.add_argument("--recipe", choices=_RECIPES, default="auto", help="auto: paper on a GPU, small without (auto)")
    add_backbone(parser)
    add_flow_input(parser)
    parser.add_argument("--iterations", type=positive_number)
    parser.add_argument("--batch-size", type=positive_number, metavar="N", help="of all processes together")
    parser.add_argument("--lr", type=float, dest="learning_rate", metavar="RATE", help="learning rate at the start")
    parser.add_argument(
        "--schedule",
        type=_schedule,
        help="scratch or fine_tune, the paper's scaled to the iterations, or ITERATION:RATE,... (scratch, with --init "
        "fine_tune)",
    )
    parser.add_argument("--dropout", type=float, metavar="RATIO")
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16 where that loses little")
    parser.add_argument("--compile", action="store_true", help="let torch.compile fuse what it can")
    parser.add_argument(
        "--accumulate",
        type=positive_number,
        default=1,
        metavar="N",
        help="split each process's share of a batch into N passes, to fit its memory (1)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=positive_number,
        default=500,
        metavar="N",
        help="iterations between checkpoints (500)",
    )
    add_run_options(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import distributed, find_device

    device = distributed.local_device(find_device(options.device))
    with distributed.process_group(device):
        _train(options, device)


def _train(options: argparse.Namespace, device: torch.device) -> None:
    from twostream_ext.engine import (
        CHECKPOINT_FILE,
        MODEL_FILE,
        DivergenceError,
        distributed,
        new_net,
        save_model,
        start_from,
        train,
        videos_origin,
    )
    from twostream_ext.errors import SettingsError
    from twostream_ext.models import freeze_backbone

    first = distributed.rank() == 0
    checkpoint = options.out / CHECKPOINT_FILE
    if checkpoint.exists() and not options.resume:
        raise SettingsError(f"{options.out}: holds a training run; give --resume to go on with it, or another --out")
    check_init(options)
    recipe = _recipe(options, device)
    settings = recipe.numbers(options.stream).settings(
        amp=options.amp,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
        **({"schedule": options.schedule} if options.schedule else {}),
    )
    opened = _open_data(options)
    data = _join(options, {name: each.data for name, each in opened.items()})
    net = new_net(recipe, options.stream, data.counts(), seed=options.seed)
    # What goes on from a checkpoint needs no file to start from; only the first process must see the checkpoint.
    goes_on = distributed.in_any(first and checkpoint.exists())
    if options.init is not None and not goes_on:
        start_from(net, options.init)
    if options.last_layer:
        freeze_backbone(net)
    if first:
        _keep_drawn_lists(options, opened)
        shown = " and ".join(f"{count} classes" for count in net.settings.classes.values())
        print(f"{options.stream} net, {shown}, {len(data.videos.videos)} videos, {settings}")
    # Every process has seen the same loss: one line says it.
    with contextlib.nullcontext() if first else contextlib.suppress(DivergenceError):
        train(
            net,
            data.videos,
            settings=settings,
            out_dir=options.out,
            device=device,
            workers=options.workers,
            accumulate=options.accumulate,
            compile_net=options.compile,
        )
    if first:
        made_from = videos_origin(options.stream, data.videos)
        missing = [path for each in opened.values() for path in each.data.missing]
        if missing:
            made_from["missing"] = missing
        save_model(options.out / MODEL_FILE, net, data.classes, made_from=made_from)
        print(f"model: {options.out / MODEL_FILE}")


def _files() -> tuple[str, ...]:
    """What `--init` may not be."""
    from twostream_ext.engine import CHECKPOINT_FILE, MODEL_FILE

    return CHECKPOINT_FILE, MODEL_FILE


class _TrainingData(NamedTuple):
    videos: VideoSet
    classes: list[str] | dict[str, list[str]]
    """Their names; of a net with several data sets, those of each head by its name."""

    def counts(self) -> int | dict[str, int]:
        """How many there are."""
        if isinstance(self.classes, dict):
            return {name: len(names) for name, names in self.classes.items()}
        return len(self.classes)


def _open_data(options: argparse.Namespace) -> dict[str, OpenedData]:
    """The data sets by name, and all that is doubtful about them said by the first process."""
    from twostream_ext.data import describe_data, find_doubts, open_data
    from twostream_ext.engine import distributed

    opened = {}
    for source in read_sources(options):
        drawn = _drawn_lists(options, source.name)
        each = open_data(source, seed=options.seed, drawn_lists=drawn, skip_missing=options.skip_missing)
        place = source.lists or source.videos
        doubts = find_doubts(place, each.data, shares_head=options.one_head)
        if distributed.rank() == 0:
            print("\n".join([describe_data(place, each), *(f"note: {doubt}" for doubt in doubts)]))
        opened[source.name] = each
    return opened


def _join(options: argparse.Namespace, sets: dict[str, DataSet]) -> _TrainingData:
    """What the net is to learn: one data set, or several with a head for each, or one for all."""
    from twostream_ext.data import join_video_sets
    from twostream_ext.errors import SettingsError
    from twostream_ext.models import add_classes

    if len(sets) == 1:
        (data,) = sets.values()
        if options.one_head:
            raise SettingsError("--one-head needs several --data files")
        return _TrainingData(data.train, data.classes)
    classes = {name: data.classes for name, data in sets.items()}
    joined = join_video_sets(
        {name: data.train for name, data in sets.items()}, {name: len(names) for name, names in classes.items()}
    )
    if not options.one_head:
        return _TrainingData(joined, classes)
    all_names: list[str] = []
    for names in classes.values():
        all_names = add_classes(all_names, names).names
    return _TrainingData(joined, {"+".join(classes): all_names})


def _drawn_lists(options: argparse.Namespace, name: str) -> Path:
    """Where the lists are kept that a draw makes of a data set without any."""
    several = options.data is not None and len(options.data) > 1
    folder: Path = options.out / "lists"
    return folder / name if several else folder


def _keep_drawn_lists(options: argparse.Namespace, opened: dict[str, OpenedData]) -> None:
    from twostream_ext.data import write_ucf_lists

    for name, each in opened.items():
        if each.drawn is not None:
            write_ucf_lists(_drawn_lists(options, name), each.drawn)
            print(f"lists: {_drawn_lists(options, name)}")


def _recipe(options: argparse.Namespace, device: torch.device) -> Recipe:
    """The recipe with the numbers that were given in place of its own."""
    from twostream_ext.engine import default_recipe, find_recipe

    recipe = find_recipe(default_recipe(device) if options.recipe == "auto" else options.recipe)
    numbers = recipe.numbers(options.stream)
    if options.init is not None:
        numbers = numbers.fine_tuned(options.init, last_layer=options.last_layer)
    given = {name: getattr(options, name) for name in ("iterations", "batch_size", "learning_rate", "dropout")}
    numbers = replace(numbers, **{name: value for name, value in given.items() if value is not None})
    recipe = recipe.with_numbers(options.stream, numbers)
    return with_flow_input(replace(recipe, backbone=options.backbone or recipe.backbone), options)


def _schedule(text: str) -> str | tuple[tuple[int, float], ...]:
    """An argparse type: a name, or "0:0.01,50000:0.001"."""
    if ":" not in text:
        return text
    pairs = [pair.split(":") for pair in text.split(",")]
    return tuple((int(iteration), float(rate)) for iteration, rate in pairs)
