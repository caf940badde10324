# SPDX-License-Identifier: BSD-3-Clause
"""The `twostream` command: one file a subcommand, each with `add_parser` and `execute`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import twostream_ext
from twostream_ext.cli import cmake_dir, demo, evaluate, extract, fuse, info, predict, run, train
from twostream_ext.errors import SettingsError, StoppedError, TwoStreamError, describe

_COMMANDS = (demo, run, extract, train, evaluate, fuse, predict, info, cmake_dir)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return 0, 1 for failure, 2 for wrong usage, 130 if interrupted, 143 if SIGTERM stopped it."""
    parser = argparse.ArgumentParser(
        prog="twostream",
        description="Two-stream action recognition in videos: optical flow, two ConvNets, fusion.",
    )
    parser.add_argument("--version", action="version", version=twostream_ext.__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        command = module.add_parser(commands)
        command.set_defaults(execute=module.execute)
    options = parser.parse_args(arguments)
    try:
        options.execute(options)
    except StoppedError as stopped:
        print(f"twostream: {stopped}", file=sys.stderr)
        return 128 + signal.SIGTERM
    except (TwoStreamError, OSError) as error:
        if options.debug:
            raise
        print(f"twostream: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except Exception as error:
        if options.debug or not _is_of_memory(error):
            raise
        print(f"twostream: error: there is not enough memory: {describe(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("twostream: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _is_of_memory(error: Exception) -> bool:
    """Tell whether memory was short, of which torch and the libraries under it tell by words alone."""
    words = ("out of memory", "allocate memory", "could not create a primitive", "bad_alloc")
    return isinstance(error, MemoryError) or any(each in str(error) for each in words)
