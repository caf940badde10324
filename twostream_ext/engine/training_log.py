# SPDX-License-Identifier: BSD-3-Clause
"""What is noted while a net trains: a line of CSV for each iteration, TensorBoard, a progress bar."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from twostream_ext.engine.event_file import open_event_file
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.errors import CheckpointError
from twostream_ext.files import atomic_write, name_errors

LOG_FILE = "log.csv"
_DIGITS = 19  # of the largest iteration that there can be
COLUMNS = ("iteration", "loss", "learning_rate", "seconds", "seconds_waiting")


class TrainingCurves(NamedTuple):
    """What was noted of each iteration, float64 [iterations]."""

    iteration: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]
    learning_rate: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    seconds_waiting: npt.NDArray[np.float64]  # of them, for data


def read_training_log(path: str | os.PathLike[str]) -> TrainingCurves:
    """What `TrainingLog` has noted; CheckpointError if the file cannot be read.

    Lines that a full disk or a kill cut short are left out, as they are when the training goes on.
    """
    with name_errors(path, CheckpointError):
        text = Path(path).read_bytes().decode("ascii", errors="replace")
    rows = [row for line in text.splitlines()[1:] if (row := _numbers(line)) is not None]
    return TrainingCurves(*np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS)).T)


def _numbers(line: str) -> list[float] | None:
    try:
        row = [float(field) for field in line.split(",")]
    except ValueError:
        return None
    return row if len(row) == len(COLUMNS) else None


class TrainingLog:
    """Notes each iteration once, also when a run is killed and goes on from an earlier one."""

    def __init__(self, out_dir: str | os.PathLike[str], settings: TrainSettings, start: int, progress: bool) -> None:
        self._settings = settings
        self._next = start  # iteration to be written
        self._path = Path(out_dir) / LOG_FILE
        with name_errors(self._path, CheckpointError):
            _keep_rows(self._path, start)
            self._file = self._path.open("a", newline="", encoding="utf-8")
            self._board = open_event_file(Path(out_dir) / "tensorboard", start)
        self._bar = tqdm(
            total=settings.iterations,
            initial=start,
            unit="it",
            desc="train",
            disable=None if progress else True,  # None: quiet where stderr is not a terminal
        )
        self._times: list[tuple[float, float]] = []
        self._last = (time.perf_counter(), 0.0)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()
        with name_errors(self._path, CheckpointError):  # what a full disk did not take is tried once more
            self._file.close()

    def tick(self, seconds_waited: float) -> None:
        """One more iteration is done; `seconds_waited` for data since the log was made."""
        now = (time.perf_counter(), seconds_waited)
        self._times.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now
        self._bar.update()

    def write(self, losses: Sequence[float]) -> None:
        """Note the iterations since the last call: the loss of each. CheckpointError if they cannot be written."""
        rates = [self._settings.learning_rate_at(self._next + index) for index in range(len(losses))]
        rows = zip(losses, rates, self._times, strict=True)
        lines = [
            (iteration, f"{loss:.6g}", f"{rate:.6g}", f"{seconds:.4f}", f"{waiting:.4f}")
            for iteration, (loss, rate, (seconds, waiting)) in enumerate(rows, self._next)
        ]
        seconds = sum(each for each, _ in self._times)
        last = self._next + len(losses) - 1
        mean = {
            "loss": sum(losses) / len(losses),
            "learning_rate": rates[-1],
            "samples_per_second": len(losses) * self._settings.batch_size / seconds,
            "waiting": sum(each for _, each in self._times) / seconds,
        }
        with name_errors(self._path, CheckpointError):
            csv.writer(self._file).writerows(lines)
            self._file.flush()
            if self._board is not None:
                self._board.write(last, mean)
        self._bar.set_postfix_str(
            "{samples_per_second:.0f} samples/s, loss {loss:.3f}, learning rate {learning_rate:g}, "
            "waiting for data {waiting:.0%}".format(**mean)
        )
        self._next = last + 1
        self._times.clear()

    def flush(self) -> None:
        """Bring the lines to the disk: a checkpoint shall not outlive those of its iterations.

        CheckpointError if they cannot be written.
        """
        with name_errors(self._path, CheckpointError):
            os.fsync(self._file.fileno())


def _keep_rows(path: Path, start: int) -> None:
    """Keep the lines of the iterations before `start`: those after it are done, and written, again."""
    lines = [",".join(COLUMNS)]
    if path.exists():
        # A line that a full disk or a kill cut short has an iteration after the last checkpoint. After a loss of power
        # there may be anything: what is no line of ours is left out.
        written = path.read_bytes().decode("ascii", errors="replace").splitlines()
        lines += [line for line in written if _is_before(start, line.partition(",")[0])]
    with atomic_write(path) as temporary:
        temporary.write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def _is_before(start: int, iteration: str) -> bool:
    return len(iteration) <= _DIGITS and iteration.isascii() and iteration.isdecimal() and int(iteration) < start
