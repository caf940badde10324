# SPDX-License-Identifier: BSD-3-Clause
"""Which data a command was given, by `--videos` and the options beside it or by `--data` files."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twostream_ext.data import DataSource

_OPTIONS = ("videos", "lists", "split", "flow", "frames")


def read_sources(options: argparse.Namespace) -> list[DataSource]:
    """All data sets that are given; SettingsError if there is none, or if it is not clear which is which."""
    from twostream_ext.data import DataSource, read_source
    from twostream_ext.errors import SettingsError

    given = {name: getattr(options, name) for name in _OPTIONS if getattr(options, name) is not None}
    if not options.data:
        if "videos" not in given:
            raise SettingsError("which videos? give --videos DIR, or --data NAME.toml")
        return [DataSource(**given)]
    sources = [read_source(file) for file in options.data]
    if len(sources) == 1:
        # The format that the file names is that of its own lists.
        form = None if {"videos", "lists"} & given.keys() else sources[0].format
        return [replace(sources[0], **given, format=form)]
    if given:
        raise SettingsError(f"--{next(iter(given))} is given beside several --data files; each says its own")
    names = [source.name for source in sources]
    for file, name in zip(options.data, names, strict=True):
        if names.count(name) > 1:
            raise SettingsError(f"{file}: another data set is called {name!r}, too; name one of the files differently")
        if "+" in name or "/" in name:
            raise SettingsError(f"{file}: {name!r} cannot be the name of a data set; name the file without '+'")
    return sources


def read_source_alone(options: argparse.Namespace) -> DataSource:
    """The one data set that is given; SettingsError if there are several."""
    from twostream_ext.errors import SettingsError

    sources = read_sources(options)
    if len(sources) > 1:
        raise SettingsError(f"--data is given {len(sources)} times; only training takes several data sets")
    return sources[0]
