# SPDX-License-Identifier: BSD-3-Clause
"""`twostream denseflow`: denseflow's own options, and the tree that it writes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from twostream_ext.cli.failures import listed_failures
from twostream_ext.cli.options import positive_number, whole_number
from twostream_ext.cli.paths import ReadsFile, WritesFolder, add_path

_DESCRIPTION = """\
Write the frames or the flow of videos as denseflow does (open-mmlab/denseflow): the same options, the same names and
numbers of files, the same sizes and codes, so that a script changes one word. Names of options may be short or long,
with one dash or two; values follow after '='."""

_EPILOG = """\
files of the video a/b.avi, in OUT/b; of one in a list, with -cf, in OUT/a/b:
  -s=0   img_00000.jpg ...                                  the frames
  -s=1   flow_x_00000.jpg, flow_y_00000.jpg ...             flow from frame t to t + 1, numbered by t
  -s=2   flow_x_p2_00000.jpg, flow_y_p2_00000.jpg ...       to t + 2
  -s=-1  flow_x_m1_00001.jpg, flow_y_m1_00001.jpg ...       to t - 1
  with -st=png flow_00000.png ..., with -st=h5 OUT/b.h5, OUT/b_p2.h5, OUT/b_m1.h5

Videos of a list are marked in OUT/.done when they are done, and left out when the command is given again. Videos that
fail are reported at the end, and the others are done; the exit code is then 1.

examples:
  twostream denseflow test.avi -b=20 -a=tvl1 -s=1 -v
  twostream denseflow videolist.txt -b=20 -a=tvl1 -s=1 -cf -ns=256 -o=rawframes -v
  twostream denseflow frames/v_Biking_g01_c01 -if -b=20 -s=-1 -o=rawframes"""

AFTER_INTERRUPT = "; the same command goes on from here"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "denseflow",
        help="frames or flow of videos as denseflow writes them, by its own options",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_path(
        parser,
        "input",
        use=ReadsFile(),
        metavar="INPUT",
        help="a video, a folder of frames (-if), or a list.txt of those",
    )
    names = ("-o", "--outputDir"), ("--o", "-outputDir")
    add_path(
        parser, *names[0], use=WritesFolder(), metavar="OUT", default=Path(), help="where the folders of videos go (.)"
    )
    add_path(parser, *names[1], use=WritesFolder(), dest="outputDir", default=Path(), help=argparse.SUPPRESS)
    _add(
        parser,
        "a",
        "algorithm",
        choices=("nv", "tvl1", "farn", "brox"),
        default="tvl1",
        help="tvl1 or farn (tvl1); nv and brox are refused",
    )
    _add(
        parser,
        "s",
        "step",
        type=int,
        metavar="N",
        default=0,
        help="flow from frame t to t + N, N may be negative; 0: the frames (0)",
    )
    _add(
        parser,
        "b",
        "bound",
        type=positive_number,
        metavar="B",
        default=32,
        help="displacements from -B to B pixels become codes 0 to 255 (32)",
    )
    _add(
        parser,
        "nw",
        "newWidth",
        type=whole_number,
        metavar="W",
        default=0,
        help="rescale frames to this width (0: as they are)",
    )
    _add(
        parser,
        "nh",
        "newHeight",
        type=whole_number,
        metavar="H",
        default=0,
        help="to this height (0); one of both keeps the aspect",
    )
    _add(
        parser,
        "ns",
        "newShort",
        type=whole_number,
        metavar="N",
        default=0,
        help="to this shorter side, where theirs is longer (0)",
    )
    _add(parser, "d", "deviceId", type=whole_number, metavar="N", help="the GPU for tvl1, if there is one")
    _add(parser, "cf", "classFolder", action="store_true", help="videos of a list: also the folder that they lie in")
    _add(
        parser,
        "if",
        "inputFrames",
        action="store_true",
        help="read folders of frames, *.jpg in the order of their names",
    )
    _add(parser, "st", "saveType", choices=("jpg", "png", "h5"), default="jpg", help="files of flow (jpg)")
    _add(parser, "f", "force", action="store_true", help="also do what is marked as done")
    _add(parser, "v", "verbose", action="store_true", help="print a line for each video")
    return parser


def _add(parser: argparse.ArgumentParser, short: str, long: str, **options: Any) -> None:
    """An option as OpenCV's parser takes it: either name with one dash or with two."""
    parser.add_argument(f"-{short}", f"--{long}", **options)
    parser.add_argument(f"--{short}", f"-{long}", **{**options, "dest": long, "help": argparse.SUPPRESS})


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.extraction import denseflow

    with listed_failures("could not be done"):
        done = denseflow(
            options.input,
            options.outputDir,
            algorithm=options.algorithm,
            step=options.step,
            bound=options.bound,
            new_width=options.newWidth,
            new_height=options.newHeight,
            new_short=options.newShort,
            class_folder=options.classFolder,
            input_frames=options.inputFrames,
            save_type=options.saveType,
            force=options.force,
            device=_device(options.deviceId),
            verbose=options.verbose,
        )
    what = f"{options.algorithm} flows" if options.step else "frames"
    before = f", {done.skipped} of them before" if done.skipped else ""
    print(f"{done.videos} videos{before} ({done.flows} {what}) in {options.outputDir}")


def _device(number: int | None) -> str:
    """The GPU of that number; scripts that name one shall also run where there is none."""
    from twostream_ext.devices import find_device

    has_gpu = find_device("auto").type == "cuda"
    return f"cuda:{number}" if has_gpu and number is not None else "auto"
