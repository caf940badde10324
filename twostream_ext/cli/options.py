# SPDX-License-Identifier: BSD-3-Clause
"""Options that several subcommands share, and their types."""

from __future__ import annotations

import argparse
from pathlib import Path

from twostream_ext.devices import processors


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
    """Which videos, and what says which class they are of; `cli/data.py` reads these options."""
    parser.add_argument("--videos", type=Path, help="directory of <class>/<video> files, or folders of numbered images")
    parser.add_argument(
        "--lists",
        type=Path,
        help="directory of lists as UCF-101's, HMDB-51's, TSN's or MMAction2's, told apart by their names (those "
        "beside the videos; if there are none, class folders are divided at random, and OUT/lists gets the lists)",
    )
    parser.add_argument("--split", type=positive_number, help="which of the splits that the lists have (1)")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        metavar="NAME.toml",
        help="a file that says all this: videos, lists, format, split, flow, frames, leave_out, whole; options given "
        "beside it go before",
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="go on without listed videos that are not there, or not in a store"
    )


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
