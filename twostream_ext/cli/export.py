# SPDX-License-Identifier: BSD-3-Clause
"""`twostream export`: a flow store to another tool's tree."""

from __future__ import annotations

import argparse
from typing import Any

from twostream_ext.cli.failures import listed_failures
from twostream_ext.cli.options import above_zero, positive_number
from twostream_ext.cli.paths import ReadsFolder, WritesStore, add_path

_DESCRIPTION = """\
Write the flow of a store as another tool has it, in all directions that the store has. Videos that are there already
are left out, so a run that was broken off goes on when the same command is given again. A video that is damaged is
reported at the end, and the others are done; the exit code is then 1."""

_EPILOG = """\
layouts, and the files of the clip A/b below OUT:
  denseflow      A/b/flow_x_00000.jpg, flow_y_...; backward flow_x_m1_00001.jpg ... (denseflow, MMAction2)
  tsn            the same names, numbered one higher (dense_flow of TSN)
  feichtenhofer  u/A/b/frame000001.jpg, v/A/b/..., u/A/b.bin (gpu_flow); has no names for backward flow
  flo            A/b/flow_00000.flo ..., backward flow_m1_00001.flo ... (Middlebury)
  npy            A/b/forward.npy, A/b/backward.npy: float32 [fields, H, W, 2]
  h5             A/b.h5, backward A/b_m1.h5, as denseflow -st=h5 (pip install 'twostream_ext[h5]')

The first three code displacements with 8 bits, 128 being 0; the others keep them to the bit.

examples:
  twostream export flow/ rawframes/ --layout denseflow --bound 20
  twostream export flow/ arrays/ --layout npy"""

AFTER_INTERRUPT = "; the same command goes on from here"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="a flow store to another tool's tree: denseflow, TSN, gpu_flow, .flo, .npy, HDF5",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_path(parser, "store", use=ReadsFolder(is_store=True), metavar="STORE", help="directory of the flow store")
    add_path(parser, "out", use=WritesStore(), metavar="OUT", help="directory of the tree")
    parser.add_argument(
        "--layout",
        required=True,
        choices=("denseflow", "tsn", "feichtenhofer", "flo", "npy", "h5"),
        help="of the tree, see below",
    )
    parser.add_argument(
        "--bound", type=above_zero, metavar="B", help="displacements of +- B pixels get the last codes (20)"
    )
    parser.add_argument("--workers", type=positive_number, metavar="N", help="threads (the processors there are)")
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.flow import export

    with listed_failures("could not be exported"):
        count = export(options.store, options.out, layout=options.layout, bound=options.bound, workers=options.workers)
    print(f"{count} videos in {options.out}")
