# SPDX-License-Identifier: BSD-3-Clause
"""`twostream train`: one net, in one process or under torchrun in many."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import torch

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
        "code 143.",
    )
    parser.add_argument("stream", metavar="STREAM", help="spatial, temporal, or the name of a registered one")
    add_lists(parser)
    add_stores(parser)
    add_out(parser)
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
    from twostream_ext.data import UCFLists
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
    from twostream_ext.files import refuse_same_file
    from twostream_ext.models import freeze_backbone

    first = distributed.rank() == 0
    checkpoint = options.out / CHECKPOINT_FILE
    if checkpoint.exists() and not options.resume:
        raise SettingsError(f"{options.out}: holds a training run; give --resume to go on with it, or another --out")
    check_init(options)
    if options.init is not None:
        refuse_same_file(options.out / MODEL_FILE, options.init)
    recipe = _recipe(options, device)
    settings = recipe.numbers(options.stream).settings(
        amp=options.amp,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
        **({"schedule": options.schedule} if options.schedule else {}),
    )
    data = UCFLists(options.videos, options.lists, split=options.split, flow=options.flow, frames=options.frames)
    net = new_net(recipe, options.stream, len(data.classes), seed=options.seed)
    # What goes on from a checkpoint needs no file to start from; only the first process must see the checkpoint.
    goes_on = distributed.in_any(first and checkpoint.exists())
    if options.init is not None and not goes_on:
        start_from(net, options.init)
    if options.last_layer:
        freeze_backbone(net)
    if first:
        print(f"{options.stream} net, {len(data.classes)} classes, {len(data.train.videos)} videos, {settings}")
    # Every process has seen the same loss: one line says it.
    with contextlib.nullcontext() if first else contextlib.suppress(DivergenceError):
        train(
            net,
            data.train,
            settings=settings,
            out_dir=options.out,
            device=device,
            workers=options.workers,
            accumulate=options.accumulate,
            compile_net=options.compile,
        )
    if first:
        made_from = videos_origin(options.stream, data.train)
        save_model(options.out / MODEL_FILE, net, data.classes, made_from=made_from)
        print(f"model: {options.out / MODEL_FILE}")


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
