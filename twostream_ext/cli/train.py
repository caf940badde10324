# SPDX-License-Identifier: BSD-3-Clause
"""`twostream train`: one net, in one process or under torchrun in many."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.options import add_out, add_run_options, positive_number

if TYPE_CHECKING:
    import torch

    from twostream_ext.data import UCFLists
    from twostream_ext.engine import Recipe
    from twostream_ext.engine.recipes import StreamRecipe
    from twostream_ext.models import StreamNet

_RECIPES = ("auto", "paper", "small", "demo")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train the spatial or the temporal net, on one GPU, several, or none",
        description="Train one net from scratch and write OUT/model.safetensors. The same under `torchrun "
        "--nproc-per-node N -m twostream_ext train ...`, for N processes on this machine (or, with torchrun's options, "
        "on several): they share each batch, and see the same videos and crops as one process does.",
        epilog="Numbers not given come from the recipe. SIGTERM saves the state and ends with exit code 143.",
    )
    parser.add_argument("stream", choices=("spatial", "temporal"))
    parser.add_argument("--videos", type=Path, required=True, help="directory of <class>/<video> files")
    parser.add_argument("--lists", type=Path, required=True, help="directory of lists as UCF-101's")
    parser.add_argument("--split", type=positive_number, default=1, help="N of the lists (1)")
    parser.add_argument("--flow", type=Path, help="flow store of the videos, for the temporal net")
    parser.add_argument("--frames", type=Path, help="frame store of the videos, for the spatial net")
    add_out(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT, if there is one")
    parser.add_argument("--recipe", choices=_RECIPES, default="auto", help="auto: paper on a GPU, small without (auto)")
    parser.add_argument("--iterations", type=positive_number)
    parser.add_argument("--batch-size", type=positive_number, metavar="N", help="of all processes together")
    parser.add_argument("--lr", type=float, metavar="RATE", help="learning rate at the start")
    parser.add_argument(
        "--schedule",
        type=_schedule,
        default="scratch",
        help="scratch or fine_tune, the paper's scaled to the iterations, or ITERATION:RATE,... (scratch)",
    )
    parser.add_argument("--dropout", type=float, metavar="RATIO")
    parser.add_argument("--length", type=positive_number, metavar="L", help="flow fields in a stack")
    parser.add_argument("--bidirectional", action="store_true", help="half of the fields forward, half backward")
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
        DivergenceError,
        TrainSettings,
        default_recipe,
        distributed,
        find_recipe,
        save_model,
        train,
    )
    from twostream_ext.engine.pipeline import MODEL_FILE
    from twostream_ext.errors import SettingsError

    first = distributed.rank() == 0
    if (options.out / CHECKPOINT_FILE).exists() and not options.resume:
        raise SettingsError(f"{options.out}: holds a training run; give --resume to go on with it, or another --out")
    recipe = find_recipe(default_recipe(device) if options.recipe == "auto" else options.recipe)
    numbers: StreamRecipe = getattr(recipe, options.stream)
    given = {"iterations": options.iterations, "batch_size": options.batch_size, "learning_rate": options.lr}
    settings = TrainSettings(
        iterations=numbers.iterations,
        batch_size=numbers.batch_size,
        learning_rate=numbers.learning_rate,
        schedule=options.schedule,
        amp=options.amp,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
    )
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    data = UCFLists(options.videos, options.lists, split=options.split, flow=options.flow, frames=options.frames)
    net = _new_net(options, data, recipe, numbers)
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
        save_model(options.out / MODEL_FILE, net, data.classes)
        print(f"model: {options.out / MODEL_FILE}")


def _new_net(options: argparse.Namespace, data: UCFLists, recipe: Recipe, numbers: StreamRecipe) -> StreamNet:
    import torch

    from twostream_ext.models import SpatialNet, TemporalNet

    common: dict[str, Any] = {
        "dropout": numbers.dropout if options.dropout is None else options.dropout,
        "width": recipe.width,
        "input_size": recipe.input_size,
    }
    torch.manual_seed(options.seed)
    if options.stream == "spatial":
        return SpatialNet(len(data.classes), **common)
    length = options.length or recipe.length
    return TemporalNet(len(data.classes), length=length, bidirectional=options.bidirectional, **common)


def _schedule(text: str) -> str | tuple[tuple[int, float], ...]:
    """An argparse type: a name, or "0:0.01,50000:0.001"."""
    if ":" not in text:
        return text
    pairs = [pair.split(":") for pair in text.split(",")]
    return tuple((int(iteration), float(rate)) for iteration, rate in pairs)
