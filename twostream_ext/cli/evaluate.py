# SPDX-License-Identifier: BSD-3-Clause
"""`twostream evaluate`: the scores of a trained net on the videos of a split."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.data import read_source_alone
from twostream_ext.cli.options import add_device, add_lists, add_stores, positive_number
from twostream_ext.cli.paths import ReadsFile, WritesFile, add_path

if TYPE_CHECKING:
    import torch

    from twostream_ext.data import DataSet, DataSource
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
    add_path(parser, "--model", use=ReadsFile(), required=True, metavar="FILE", help="a model.safetensors")
    add_lists(parser)
    add_stores(parser)
    parser.add_argument("--part", choices=("test", "train"), default="test", help="which videos of the split (test)")
    add_path(parser, "--out", use=WritesFile(), required=True, metavar="SCORES", help="file to write, .safetensors")
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
    from twostream_ext.data import FOLDERS, find_doubts, find_format, open_data
    from twostream_ext.engine import distributed, load_model, write_scores
    from twostream_ext.errors import SettingsError
    from twostream_ext.models import accuracy
    from twostream_ext.report import format_accuracy, format_classes

    source = read_source_alone(options)
    if (source.format or find_format(source.videos, source.lists)) == FOLDERS:
        raise SettingsError(
            f"{source.videos}: has no lists; give those that training left, --lists OUT/lists: a new draw would test "
            "videos that were trained on"
        )
    data = open_data(source, skip_missing=options.skip_missing).data
    trained = load_model(options.model, device)
    dataset = _find_dataset(options, source, trained, data)
    doubts = find_doubts(source.lists or source.videos, data)
    if distributed.rank() == 0:
        print("".join(f"note: {doubt}\n" for doubt in doubts), end="")
    classes = trained.classes[dataset]
    videos = data.test if options.part == "test" else data.train
    places = [classes.index(name) for name in data.classes]
    scores = write_scores(
        options.out,
        trained.net,
        videos._replace(videos=[video._replace(label=places[video.label]) for video in videos.videos]),
        frames=options.frames_per_video,
        crops=options.crops,
        dataset=dataset,
        classes=classes,
    )
    if distributed.rank() > 0:
        return
    print(format_classes(classes, scores.scores, scores.labels))
    print(f"\n{format_accuracy(accuracy(scores.scores, scores.labels), len(scores.names))}")
    print(f"scores: {options.out}")


def _find_dataset(options: argparse.Namespace, source: DataSource, trained: TrainedNet, data: DataSet) -> str:
    """The one of the net's heads that knows these classes, of several that which has the data set's name.

    Of a head with the classes of several data sets (`--one-head`) they may be a part.
    """
    fitting = [
        name
        for name, classes in trained.classes.items()
        if classes == data.classes or ("+" in name and set(data.classes) <= set(classes))
    ]
    named = [name for name in fitting if source.name in name.split("+")]
    if named or len(fitting) == 1:
        return (named or fitting)[0]
    from twostream_ext.errors import SettingsError

    place = source.lists or source.videos
    if fitting:
        raise SettingsError(
            f"{options.model}: {', '.join(fitting)} have the classes of {place}; name one: --data X.toml"
        )
    classes = trained.classes.get(source.name) or next(iter(trained.classes.values()))
    if len(classes) != len(data.classes):
        raise SettingsError(f"{options.model}: has {len(classes)} classes, {place} has {len(data.classes)}")
    own, listed = next(pair for pair in zip(classes, data.classes, strict=True) if pair[0] != pair[1])
    raise SettingsError(f"{options.model}: has class {own!r} where {place} has {listed!r}")
