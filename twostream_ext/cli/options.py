# SPDX-License-Identifier: BSD-3-Clause
"""Options that several subcommands share, and their types."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from twostream_ext.devices import processors
from twostream_ext.errors import SettingsError

if TYPE_CHECKING:
    from twostream_ext.engine import Recipe


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


def add_lists(parser: argparse.ArgumentParser) -> None:
    """Which videos, and the lists that say what is in them."""
    parser.add_argument("--videos", type=Path, required=True, help="directory of <class>/<video> files")
    parser.add_argument(
        "--lists",
        type=Path,
        required=True,
        help="directory of classInd.txt, trainlist0N.txt and testlist0N.txt, as UCF-101's",
    )
    parser.add_argument("--split", type=positive_number, default=1, help="N of the lists (1)")


def add_stores(parser: argparse.ArgumentParser) -> None:
    """What `twostream extract` made of the videos."""
    parser.add_argument("--flow", type=Path, help="flow store of the videos, for the temporal net")
    parser.add_argument("--frames", type=Path, help="frame store of the videos, for the spatial net")


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
    group.add_argument("--subtract", choices=("none", "mean"), help="what is subtracted from each field (mean)")


def with_flow_input(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with what `add_flow_input` was given in place of its own."""
    given = {name: getattr(options, name) for name in ("input", "length", "bidirectional", "subtract")}
    return replace(recipe, **{name: value for name, value in given.items() if value})


def add_init(parser: argparse.ArgumentParser, what: str, remark: str = "") -> None:
    """What a net starts from; checked by `check_init`. what: of which net; remark: on the released files."""
    parser.add_argument(
        "--init",
        type=Path,
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


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where to compute."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")


def add_out(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The directory of the run."""
    words = "directory of the run" + (f" ({default})" if default else "")
    parser.add_argument("--out", type=Path, required=default is None, default=default, help=words)
