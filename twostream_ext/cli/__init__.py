# SPDX-License-Identifier: BSD-3-Clause
"""The `twostream` command: one file a subcommand, each with `add_parser` and `execute`."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import twostream_ext
from twostream_ext.cli import cmake_dir, demo, evaluate, extract, fuse, info, predict, run, train
from twostream_ext.errors import DamagedVideoWarning, SettingsError, StoppedError, TwoStreamError

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
    with warnings.catch_warnings():
        warnings.simplefilter("always", DamagedVideoWarning)
        _show_in_one_line()
        return _execute(options)


def _show_in_one_line() -> None:
    """Show our warnings without the place in our code, which tells a user nothing."""
    show_others = warnings.showwarning

    def show(message: Warning | str, kind: type[Warning], *place: Any) -> None:
        if issubclass(kind, DamagedVideoWarning):
            print(f"twostream: warning: {message}", file=sys.stderr)
        else:
            show_others(message, kind, *place)

    warnings.showwarning = show  # type: ignore[assignment]


def _execute(options: argparse.Namespace) -> int:
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
    except KeyboardInterrupt:
        print("twostream: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
