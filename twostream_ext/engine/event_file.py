# SPDX-License-Identifier: BSD-3-Clause
"""Numbers for TensorBoard, written when they are given.

TensorBoard's own writer has a thread that writes some time later, and that prints a traceback where the disk is full.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twostream_ext.files import make_folder


def open_event_file(folder: str | os.PathLike[str], start: int) -> EventFile | None:
    """A new `EventFile`; None where TensorBoard is not installed."""
    return EventFile(folder, start) if importlib.util.find_spec("tensorboard") else None


class EventFile:
    """A new file of events in a folder, which TensorBoard takes together with the older ones there."""

    def __init__(self, folder: str | os.PathLike[str], start: int) -> None:
        """Open the file. What older files say of the step `start` and of those after it is no longer shown."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # slow to import
        from tensorboard.summary.writer.record_writer import RecordWriter

        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        folder = Path(folder)
        make_folder(folder)
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._event = Event
        self._write(file_version="brain.Event:2")
        self._write(step=start, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Note some numbers of a step by their names. OSError if they cannot be written."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()

    def close(self) -> None:
        """Close the file; all is written."""
        self._file.close()
