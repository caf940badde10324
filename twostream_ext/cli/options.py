# SPDX-License-Identifier: BSD-3-Clause
"""Options that several subcommands share, and their types."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from twostream_ext.cli.paths import Named, ReadsFile, ReadsFolder, ReadsPaths, WritesFolder, add_path
from twostream_ext.devices import processors
from twostream_ext.errors import SettingsError

if TYPE_CHECKING:
    from twostream_ext.engine import Recipe

ALL_SPLITS = "all"
_STORE = ReadsFolder(is_store=True)
_VIDEOS = ReadsFolder(unread=(".safetensors",))  # scores may lie beside videos and lists, of which none ends like them


def whole_number(text: str) -> int:
    """An argparse type: 0, 1, 2, ..."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return number


def positive_number(text: str) -> int:
    """An argparse type: 1, 2, ..."""
    if whole_number(text) == 0:
        raise argparse.ArgumentTypeError("expected a whole number from 1, got '0'")
    return int(text)


def add_videos(parser: argparse.ArgumentParser) -> None:
    """Which videos, and what says which class they are of; `cli/data.py` reads these options."""
    add_path(
        parser,
        "--videos",
        use=_VIDEOS,
        help="directory of <class>/<video> files, or folders of numbered images",
    )
    add_path(
        parser,
        "--lists",
        use=_VIDEOS,
        help="directory of lists as UCF-101's, HMDB-51's, TSN's or MMAction2's, told apart by their names (those "
        "beside the videos; if there are none, class folders are divided at random, and OUT/lists gets the lists)",
    )
    add_path(
        parser,
        "--data",
        use=ReadsPaths(_paths_in),
        action="append",
        metavar="NAME.toml",
        help="a file that says all this: videos, lists, format, split, flow, frames, leave_out, whole; options given "
        "beside it go before",
    )


def split_number(text: str) -> int | str:
    """An argparse type: 1, 2, ... or `ALL_SPLITS`."""
    return text if text == ALL_SPLITS else positive_number(text)


def add_lists(parser: argparse.ArgumentParser, *, several_splits: bool = False) -> None:
    """`add_videos`, and which split of them; several_splits: or which splits, as `splits`, with no `split`."""
    add_videos(parser)
    if several_splits:
        parser.set_defaults(split=None)
        parser.add_argument(
            "--split",
            dest="splits",
            nargs="+",
            type=split_number,
            metavar="N",
            help="which of the splits that the lists have; several (1 2 3, or all): each in OUT/splitN, flow and "
            "frames once for all, and their mean (1)",
        )
    else:
        parser.add_argument("--split", type=positive_number, help="which of the splits that the lists have (1)")
    parser.add_argument(
        "--skip-missing", action="store_true", help="go on without listed videos that are not there, or not in a store"
    )


def _paths_in(file: Path) -> list[Named]:
    """The paths in a `--data` file, and what they are read as."""
    from twostream_ext.data import read_source

    source = read_source(file)
    uses = {source.videos: _VIDEOS, source.lists: _VIDEOS, source.flow: _STORE, source.frames: _STORE}
    return [Named(path, use) for path, use in uses.items() if path is not None]


def add_stores(parser: argparse.ArgumentParser) -> None:
    """What `twostream extract` made of the videos."""
    add_path(parser, "--flow", use=_STORE, help="flow store of the videos, for the temporal net")
    add_path(parser, "--frames", use=_STORE, help="frame store of the videos, for the spatial net")


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """The net below the classifiers."""
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="cnn_m_2048, the paper's; any net of timm (resnet50, say; pip install 'twostream_ext[timm]'), or one of "
        "your own (register_backbone). A recipe's width is that of cnn_m_2048 and changes no other (cnn_m_2048)",
    )


def add_flow_input(parser: argparse.ArgumentParser) -> None:
    """How the temporal net's input is made of flow; what is not given is the recipe's."""
    group = parser.add_argument_group("input of the temporal net (kept in its file)")
    group.add_argument(
        "--input",
        choices=("stack", "trajectory"),
        help="fields one on the other, or sampled along trajectories (stack)",
    )
    group.add_argument("--length", type=positive_number, metavar="L", help="flow fields in an input (10)")
    group.add_argument(
        "--bidirectional",
        action="store_true",
        help="half of the fields forward, half backward; needs backward flow (extract --backward)",
    )
    group.add_argument(
        "--subtract",
        choices=("none", "mean", "affine"),
        help="from each field: nothing, its mean, or the affine motion that most of it follows, the camera's (mean)",
    )


def with_flow_input(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with what `add_flow_input` was given in place of its own."""
    given = {name: getattr(options, name) for name in ("input", "length", "bidirectional", "subtract")}
    return replace(recipe, **{name: value for name, value in given.items() if value})


def add_init(parser: argparse.ArgumentParser, what: str, remark: str = "") -> None:
    """What a net starts from; checked by `check_init`. what: of which net; remark: on the released files."""
    add_path(
        parser,
        "--init",
        use=ReadsFile(),
        metavar="FILE",
        help=f"start {what}from all layers but the last of this net: a model.safetensors of ours, "
        f"imagenet-vgg-m-2048.mat or VGG_CNN_M_2048.caffemodel (these two need --recipe paper{remark})",
    )
    parser.add_argument("--last-layer", action="store_true", help="train the last layer alone; needs --init")


def check_init(options: argparse.Namespace) -> None:
    """SettingsError for `--last-layer` without `--init`."""
    if options.last_layer and options.init is None:
        raise SettingsError("--last-layer needs --init FILE: the layers below it must come from a trained net")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of whatever trains."""
    parser.add_argument("--seed", type=whole_number, default=0, help="of all random draws (0)")
    add_device(parser)
    parser.add_argument(
        "--workers",
        type=whole_number,
        default=min(8, processors()),
        help="processes that read training batches ahead (the processors there are, at most 8)",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Where to compute."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")


def add_out(parser: argparse.ArgumentParser, default: str | None = None, *, use: WritesFolder | None = None) -> None:
    """The directory of the run; use: where it has files that could be given as an input, too."""
    words = "directory of the run" + (f" ({default})" if default else "")
    add_path(parser, "--out", use=use or WritesFolder(), required=default is None, default=default, help=words)


def above_zero(text: str) -> float:
    """An argparse type: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number
