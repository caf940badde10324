# SPDX-License-Identifier: BSD-3-Clause
"""`twostream extract`: videos to a flow store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from twostream_ext.cli.failures import listed_failures
from twostream_ext.cli.options import positive_number
from twostream_ext.cli.paths import ReadsFile, ReadsFolder, WritesStore, add_path
from twostream_ext.errors import MissingPackageError

_DESCRIPTION = """\
Compute the optical flow of all videos of a directory tree and store it: VIDEOS/A/b.avi becomes OUT/A/b.safetensors.
Videos that are there already are left out, so a run that was broken off goes on when the same command is given again.
A video that fails is reported at the end, and the others are done; the exit code is then 1."""

_EPILOG = """\
examples:
  twostream extract videos/ flow/
  twostream extract videos/ flow/ --method tvl1-fast --backward --frames frames/ --preview
  twostream extract videos/ flow/ --bound 20 --size 256                as TSN's flow images
  twostream extract videos/ flow/ --shard $SLURM_ARRAY_TASK_ID/100     in an array of jobs 1-100
  twostream extract videos/ flow/ --scheduler tcp://head:8786          on a Dask cluster
  twostream extract videos/ flow/ --estimator my_flow:estimate         with a flow of your own:
      def estimate(frames):  # uint8 RGB [T, H, W, 3]
          return ...         # float32 [T - 1, H, W, 2]: (x, y) in pixels from each frame to the next
  twostream extract videos/ flow/ --estimator torchvision:raft_small --estimator-weights raft_small.pth
  twostream extract videos/ flow/ --estimator ptlflow:rapidflow --estimator-weights rapidflow.ckpt
  twostream extract videos/ flow/ --estimator nvidia-of:slow           slow, medium or fast, by a GPU's own engine"""

AFTER_INTERRUPT = "; the same command goes on from here"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "extract",
        help="optical flow of all videos of a folder, to a store",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help message and exit")
    add_path(parser, "videos", use=ReadsFolder(), metavar="VIDEOS", help="directory of videos, in folders or not")
    add_path(parser, "out", use=WritesStore(), metavar="OUT", help="directory of the flow store")
    flow = parser.add_argument_group("flow")
    whose = flow.add_mutually_exclusive_group()
    whose.add_argument("--method", default="tvl1", metavar="NAME", help="how it is estimated, see below (tvl1)")
    whose.add_argument(
        "--estimator", metavar="MODULE:FUNCTION", help="a flow of your own, or a net of another package, see below"
    )
    add_path(
        flow, "--estimator-weights", use=ReadsFile(), metavar="FILE", help="the weights of such a net, which you have"
    )
    flow.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N; the CPU is all that some methods know"
    )
    flow.add_argument("--backward", action="store_true", help="also flow from each frame to the one before")
    rate = flow.add_mutually_exclusive_group()
    rate.add_argument("--step", type=positive_number, default=1, metavar="N", help="keep every N-th frame alone (1)")
    rate.add_argument("--fps", type=float, metavar="F", help="take F frames a second, by their times in the file")
    flow.add_argument(
        "--deinterlace",
        action="store_true",
        help="make interlaced frames of one field (they are read whole)",
    )
    flow.add_argument(
        "--square-pixels",
        action="store_true",
        help="give frames the width that they are shown with",
    )
    flow.add_argument(
        "--size", type=_size, default=256, metavar="N", help="shorter side of the frames in pixels, or 'own' (256)"
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--bound",
        type=float,
        metavar="B",
        help="clip displacements at +- B pixels (by default each field keeps its own range)",
    )
    files.add_argument("--codec", choices=("jpeg", "raw"), default="jpeg", help="of the flow planes (jpeg)")
    files.add_argument("--quality", type=positive_number, default=90, metavar="Q", help="of the JPEGs, 1 to 100 (90)")
    add_path(files, "--frames", use=WritesStore(), metavar="DIR", help="also store the frames, in this directory")
    files.add_argument("--preview", action="store_true", help="also draw a picture of each video's flow, OUT/A/b.png")
    work = parser.add_argument_group("work")
    work.add_argument("--workers", type=positive_number, metavar="N", help="threads (the processors there are)")
    work.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="the I-th of N parts of the videos, in the order of their names; all may run at once",
    )
    work.add_argument(
        "--scheduler", metavar="ADDRESS", help="have a Dask cluster do it (pip install 'twostream_ext[dask]')"
    )
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.errors import SettingsError
    from twostream_ext.extraction import dask_executor, extract

    if options.scheduler and options.workers:
        raise SettingsError("--workers is of this machine's threads, a Dask cluster (--scheduler) has its own workers")
    workers = dask_executor(options.scheduler) if options.scheduler else nullcontext()
    modules = _modules_of_this_folder() if options.estimator else nullcontext()
    with modules, workers as executor, listed_failures("could not be extracted"):
        store = extract(
            options.videos,
            options.out,
            method=options.method,
            estimator=options.estimator,
            estimator_weights=options.estimator_weights,
            device=options.device,
            backward=options.backward,
            frame_step=options.step,
            fps=options.fps,
            deinterlace=options.deinterlace,
            square_pixels=options.square_pixels,
            smallest_side=options.size,
            bound=options.bound,
            codec=options.codec,
            quality=options.quality,
            shard=options.shard,
            frames_out=options.frames,
            preview=options.preview,
            workers=options.workers,
            executor=executor,
        )
    print(f"{len(store)} videos in {options.out}")


class _Help(argparse.Action):
    """Shows the help with the methods that there are. To ask for them takes imports that no other command shall pay."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.epilog = f"{_list_methods()}\n\n{_EPILOG}"
        parser.print_help()
        parser.exit()


def _list_methods() -> str:
    try:
        from twostream_ext.flow import METHODS
    except MissingPackageError as error:
        return f"methods: not known here, {error}"
    width = max(map(len, METHODS))
    lines = [
        f"  {name:{width}}  {method.summary}; on {'the CPU or a GPU' if method.runs_on_cuda else 'the CPU'}"
        for name, method in METHODS.items()
    ]
    return "\n".join(["methods:", *lines])


@contextmanager
def _modules_of_this_folder() -> Iterator[None]:
    """Where a user looks for his estimator; `python -m` does the same."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _size(text: str) -> int | None:
    return None if text == "own" else positive_number(text)


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not slash:
        raise argparse.ArgumentTypeError(f"expected I/N, got {text!r}")
    return positive_number(number), positive_number(count)
