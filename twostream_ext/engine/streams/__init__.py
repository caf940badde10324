# SPDX-License-Identifier: BSD-3-Clause
"""The streams by name: the paper's two, and those registered besides."""

from __future__ import annotations

from typing import Any

from twostream_ext.engine.streams.spatial import SpatialStream
from twostream_ext.engine.streams.stream import Stream
from twostream_ext.engine.streams.temporal import TemporalStream
from twostream_ext.errors import SettingsError

__all__ = ["STREAMS", "SpatialStream", "Stream", "TemporalStream", "find_stream", "register_stream"]

_streams: dict[str, Stream[Any, Any]] = {each.name: each for each in (SpatialStream(), TemporalStream())}

STREAMS = tuple(_streams)
"""Names of the paper's two, in the order in which they are fused."""


def register_stream(stream: Stream[Any, Any]) -> None:
    """Make a stream known by its name, to training, evaluation and the command line of this process.

    SettingsError if another has that name.
    """
    if stream.name in _streams:
        raise SettingsError(f"stream {stream.name!r} is registered already")
    _streams[stream.name] = stream


def find_stream(name: str) -> Stream[Any, Any]:
    """The stream of that name; SettingsError if there is none."""
    if name not in _streams:
        raise SettingsError(f"stream is {name!r}, expected one of {', '.join(_streams)}")
    return _streams[name]
