# SPDX-License-Identifier: BSD-3-Clause
"""The `twostream` command: one file a subcommand, each with `add_parser` and `execute`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import twostream_ext
from twostream_ext.cli import (
    cmake_dir,
    demo,
    denseflow,
    evaluate,
    export,
    extract,
    features,
    fuse,
    info,
    motion,
    predict,
    report,
    reproduce,
    run,
    train,
)
from twostream_ext.cli.paths import check_paths
from twostream_ext.errors import SettingsError, StoppedError, TwoStreamError, VideoWarning, describe

_COMMANDS = (
    demo,
    run,
    reproduce,
    extract,
    denseflow,
    export,
    train,
    evaluate,
    fuse,
    predict,
    motion,
    features,
    report,
    info,
    cmake_dir,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return 0, 1 for failure, 2 for wrong usage, 130 if interrupted, 143 if SIGTERM stopped it.

    141 if whoever read the output no longer does. arguments: by default those of this process, which is started anew
    in Python's UTF-8 mode where it would take names of files for ASCII.
    """
    if arguments is None:
        _read_names_as_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal has no letters for is shown as \\xe9
            stream.reconfigure(errors="backslashreplace")
    try:
        with _interrupted_twice():
            code = _run(arguments)
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # `twostream ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python would complain when it ends
        return 128 + signal.SIGPIPE


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line with those of all commands."""
    parser = argparse.ArgumentParser(
        prog="twostream",
        description="Two-stream action recognition in videos: optical flow, two ConvNets, fusion.",
    )
    parser.add_argument("--version", action="version", version=twostream_ext.__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        command = module.add_parser(commands)
        after_interrupt = getattr(module, "AFTER_INTERRUPT", "")
        command.set_defaults(command=command, execute=module.execute, after_interrupt=after_interrupt)
    return parser


def _run(arguments: Sequence[str] | None) -> int:
    options = make_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", VideoWarning)
        _show_in_one_line()
        return _execute(options)


def _show_in_one_line() -> None:
    """Show our warnings without the place in our code, which tells a user nothing."""
    show_others = warnings.showwarning

    def show(message: Warning | str, kind: type[Warning], *place: Any) -> None:
        if issubclass(kind, VideoWarning):
            print(f"twostream: warning: {message}", file=sys.stderr)
        else:
            show_others(message, kind, *place)

    warnings.showwarning = show  # type: ignore[assignment]


def _execute(options: argparse.Namespace) -> int:
    try:
        check_paths(options.command, options)
        options.execute(options)
    except StoppedError as stopped:
        print(f"twostream: {stopped}", file=sys.stderr)
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        raise
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
        print(f"twostream: interrupted{options.after_interrupt}", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _interrupted_twice() -> Iterator[None]:
    """Let the first Ctrl-C end what is in work, and the second one the process."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, say, by nohup
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _read_names_as_utf8() -> None:
    """Start this process anew where Python takes the names of files for ASCII, as with LC_ALL=C and no UTF-8 mode."""
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_of_memory(error: Exception) -> bool:
    """Tell whether memory was short, of which torch and the libraries under it tell by words alone."""
    words = ("out of memory", "allocate memory", "could not create a primitive", "bad_alloc")
    return isinstance(error, MemoryError) or any(each in str(error) for each in words)
