# SPDX-License-Identifier: BSD-3-Clause
"""`twostream evaluate`: the scores of a trained net on the videos of a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.options import add_device, add_lists, add_stores, positive_number

if TYPE_CHECKING:
    import torch

    from twostream_ext.data import UCFLists
    from twostream_ext.engine import TrainedNet


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="score the videos of a split with a trained net",
        description="Score videos as the paper does, by the mean softmax over 25 frames x 10 crops of each, write the "
        "scores to a file for `twostream fuse`, and show the accuracy of each class, of all videos and over the "
        "classes. Broken off, the same command goes on from SCORES.part. Under `torchrun --nproc-per-node N -m "
        "twostream_ext evaluate ...`, N processes share the videos.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="a model.safetensors")
    add_lists(parser)
    add_stores(parser)
    parser.add_argument("--part", choices=("test", "train"), default="test", help="which videos of the split (test)")
    parser.add_argument("--out", type=Path, required=True, metavar="SCORES", help="file to write, .safetensors")
    parser.add_argument("--frames-per-video", type=positive_number, default=25, metavar="N", help="(25)")
    parser.add_argument("--crops", type=int, choices=(1, 10), default=10, help="of each frame; 1: the centre (10)")
    add_device(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import distributed, find_device

    device = distributed.local_device(find_device(options.device))
    with distributed.process_group(device):
        _evaluate(options, device)


def _evaluate(options: argparse.Namespace, device: torch.device) -> None:
    from twostream_ext.data import UCFLists
    from twostream_ext.engine import distributed, load_model, write_scores
    from twostream_ext.files import refuse_same_file
    from twostream_ext.models import accuracy
    from twostream_ext.report import format_accuracy, format_classes

    stores = [path for path in (options.flow, options.frames) if path is not None]
    # Scores may lie beside videos and lists, of which none ends like them.
    sources = [] if options.out.suffix == ".safetensors" else [options.videos, options.lists]
    refuse_same_file(options.out, options.model, *stores, *sources)
    data = UCFLists(options.videos, options.lists, split=options.split, flow=options.flow, frames=options.frames)
    trained = load_model(options.model, device)
    scores = write_scores(
        options.out,
        trained.net,
        data.test if options.part == "test" else data.train,
        frames=options.frames_per_video,
        crops=options.crops,
        dataset=_find_dataset(options, trained, data),
        classes=data.classes,
    )
    if distributed.rank() > 0:
        return
    print(format_classes(data.classes, scores.scores, scores.labels))
    print(f"\n{format_accuracy(accuracy(scores.scores, scores.labels), len(scores.names))}")
    print(f"scores: {options.out}")


def _find_dataset(options: argparse.Namespace, trained: TrainedNet, data: UCFLists) -> str:
    """The one of the net's data sets whose classes are those of the lists."""
    for dataset, classes in trained.classes.items():
        if classes == data.classes:
            return dataset
    from twostream_ext.errors import SettingsError

    classes = next(iter(trained.classes.values()))
    if len(classes) != len(data.classes):
        raise SettingsError(f"{options.model}: has {len(classes)} classes, {options.lists} has {len(data.classes)}")
    own, listed = next(pair for pair in zip(classes, data.classes, strict=True) if pair[0] != pair[1])
    raise SettingsError(f"{options.model}: has class {own!r} where {options.lists} has {listed!r}")
