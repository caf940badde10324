# SPDX-License-Identifier: BSD-3-Clause
"""`twostream features`: vectors of windows of videos, in the layouts that localisation code reads."""

from __future__ import annotations

import argparse
from typing import Any

from twostream_ext.cli.failures import listed_failures
from twostream_ext.cli.options import above_zero, add_device, positive_number
from twostream_ext.cli.paths import ReadsFile, ReadsFolder, WritesFolder, add_path
from twostream_ext.devices import processors

_DESCRIPTION = """\
Write a vector for each window of each video: VIDEOS/A/b.avi becomes OUT/A/b.npy, float32. Videos that are there already
are left out, so a run that was broken off goes on when the same command is given again. A video that fails is reported
at the end, and the others are done; the exit code is then 1."""

_EPILOG = """\
layouts, of T windows and vectors of D numbers:
  actionformer  [T, D]
  ms-tcn        [D, T]; with --pad --stride 1 a vector a frame
  ten-crop      [T, 10, D]
  h5            one file OUT/features.h5 with a data set A/b for each video (pip install 'twostream_ext[h5]')

examples:
  twostream features VIDEOS OUT --model RUN                    both nets of a finished run, full7 of each
  twostream features VIDEOS OUT --model RUN --stream temporal --layer scores
  twostream features VIDEOS OUT --net i3d-rgb i3d-flow --weights rgb_imagenet.pt flow_imagenet.pt
  twostream features VIDEOS OUT --net i3d-flow --weights model_flow.pth --window 21 --stride 1 --pad --layout ms-tcn
  twostream features VIDEOS OUT --net timm:resnet50 --window 16 --stride 16 --crops 10 --layout ten-crop"""

AFTER_INTERRUPT = "; the same command goes on from here"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "features",
        help="vectors of windows of videos, for localisation and segmentation",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_path(parser, "videos", use=ReadsFolder(), metavar="VIDEOS", help="directory of videos, or one video")
    add_path(parser, "out", use=WritesFolder(), metavar="OUT", help="directory of the features")
    nets = parser.add_argument_group("nets")
    which = nets.add_mutually_exclusive_group(required=True)
    add_path(
        which,
        "--model",
        use=ReadsFolder(),
        metavar="RUN",
        help="directory of a finished run, or the file of one net (model.safetensors)",
    )
    which.add_argument(
        "--net",
        nargs="+",
        metavar="NAME",
        help="i3d-rgb, i3d-flow, timm:NAME (an image net of timm); the vectors of several are put one after the other",
    )
    add_path(
        nets,
        "--weights",
        use=ReadsFile(),
        nargs="+",
        metavar="FILE",
        help="of each --net; those of timm can be fetched",
    )
    nets.add_argument("--stream", metavar="NAME", help="of a run, only this one: spatial, temporal (both)")
    nets.add_argument(
        "--layer",
        choices=("fc6", "fc7", "scores"),
        default="fc7",
        help="fc7 is the last hidden layer of any net, the 1024 features of I3D say; scores are a softmax (fc7)",
    )
    nets.add_argument("--method", metavar="NAME", help="of flow, as of `extract` (that of the run; else tvl1)")
    nets.add_argument(
        "--size",
        type=positive_number,
        metavar="N",
        help="shorter side of the frames in pixels (that of the run; else 256)",
    )
    windows = parser.add_argument_group("windows")
    windows.add_argument("--window", type=positive_number, default=16, metavar="N", help="frames of one (16)")
    windows.add_argument("--stride", type=positive_number, default=4, metavar="N", help="frames to the next one (4)")
    windows.add_argument(
        "--pad",
        action="store_true",
        help="one around every frame that --stride counts, from the first to the last, which are repeated; without "
        "it windows lie in the video, and one that is shorter has none, which is a failure",
    )
    windows.add_argument("--fps", type=above_zero, metavar="F", help="take F frames a second, by their times")
    windows.add_argument(
        "--crops",
        type=int,
        choices=(1, 10),
        default=1,
        help="the centre, or also corners and flips: their mean, where the layout does not keep them (1)",
    )
    work = parser.add_argument_group("files and work")
    work.add_argument(
        "--layout",
        choices=("actionformer", "ms-tcn", "ten-crop", "h5"),
        default="actionformer",
        help="of the files, see below (actionformer)",
    )
    add_device(work)
    work.add_argument(
        "--workers", type=positive_number, default=processors(), metavar="N", help="videos at a time (the processors)"
    )
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import features, find_device, load_feature_nets

    nets = load_feature_nets(
        options.model,
        net=options.net or (),
        weights=options.weights or (),
        stream=options.stream,
        layer=options.layer,
        method=options.method,
        smallest_side=options.size,
        device=find_device(options.device),
    )
    with listed_failures("have no features"):
        names = features(
            options.videos,
            options.out,
            nets,
            window=options.window,
            stride=options.stride,
            pad=options.pad,
            crops=options.crops,
            fps=options.fps,
            layout=options.layout,
            workers=options.workers,
        )
    print(f"{len(names)} videos in {options.out}")
