# SPDX-License-Identifier: BSD-3-Clause
"""`twostream report`: the page of a finished run or table, written again."""

from __future__ import annotations

import argparse
from typing import Any

from twostream_ext.cli.paths import WritesFolder, add_path


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "report",
        help="the HTML report of a finished run",
        description="Show the table of a finished run and write its report again: report.html, one file with all its "
        "pictures, and figures/, the same as PNG and SVG files. `run`, `demo` and `reproduce` end with it.",
    )
    add_path(parser, "out", use=WritesFolder(), metavar="OUT", help="directory of the run")
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import read_any_summary
    from twostream_ext.report import format_summary, write_report

    print(f"{format_summary(read_any_summary(options.out))}\n", flush=True)
    print(f"report: {write_report(options.out)}")
