# SPDX-License-Identifier: BSD-3-Clause
"""The motion of many videos, to a table."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tqdm import tqdm

from twostream_ext.devices import processors
from twostream_ext.errors import ExtractionError, SettingsError, VideoError, failure_text
from twostream_ext.files import check_file
from twostream_ext.media import is_numbered_images, list_videos, video_fingerprint
from twostream_ext.motion.score import MotionSettings, score_until
from twostream_ext.motion.table import Row, check_scores_file, score_columns, score_row, write_scores
from twostream_ext.threads import single_threads

_AHEAD = 4  # videos a thread that are waiting or in work


def score_videos(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: MotionSettings | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> list[Row]:
    """Score all videos of a directory tree, or one video, and write a table: a row each, in the order of their names.

    Args:
        videos: the tree, or a video.
        out: a .csv, .jsonl or .parquet. Until all videos are scored, rows are kept in a file beside it, `out` with
            ".rows": a call that was broken off goes on when it is given again. A video that was replaced meanwhile is
            scored again.
        settings: see `MotionSettings`.
        workers: threads, each with a video of its own; by default the processors there are.
        progress: a progress bar on standard error, where that is a terminal.

    Returns the rows, see `score_row`.

    Raises:
        SettingsError: an ending that is none of these, pyarrow is missing, `out` was begun with other settings or is
            being written by another process.
        VideoError: there are no videos, or a folder cannot be read.
        ExtractionError: after all others are done, naming the videos that could not be scored. Their rows have nothing
            but "error". The rows of the others stay beside `out`, so that the same call tries those alone.
    """
    chosen = MotionSettings() if settings is None else settings
    check_scores_file(out)
    if workers is not None and workers < 1:
        raise SettingsError(f"workers is {workers}, expected at least 1")
    found = find_videos(videos)
    target = Path(out)
    with _kept_rows(target.with_name(f"{target.name}.rows"), chosen) as kept:
        rows, failures = _score_all(found, chosen, kept, workers or processors(), progress)
        ordered = [rows[name] for name in found]
        write_scores(target, ordered)
        if not failures:
            kept.path.unlink()
    if failures:
        raise ExtractionError(failure_text(failures.values(), len(found), "scored"), tuple(failures.values()))
    return ordered


def find_videos(videos: str | os.PathLike[str]) -> dict[str, Path]:
    """The videos of a directory tree, or a single one, by the names that they have in the table, in order.

    VideoError if there are none, or a folder cannot be read.
    """
    root = Path(videos)
    if not root.is_dir():
        check_file(root, VideoError)
    if root.is_file() or is_numbered_images(each.name for each in _entries(root)):
        return {root.resolve().name: root}  # "." has no name of its own
    found = {name: root / name for name, _ in sorted(list_videos(root))}
    if not found:
        raise VideoError(f"{videos}: holds no videos")
    return found


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read: {error.strerror}") from error


def _score_all(
    found: Mapping[str, Path], settings: MotionSettings, kept: _KeptRows, workers: int, progress: bool
) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows of all videos by name, and in words why those have no scores that have none."""
    rows: dict[str, Row] = {}
    failures: dict[str, str] = {}
    stop = threading.Event()

    def work(name: str) -> tuple[Row, str]:
        content = video_fingerprint(found[name])
        there = kept.row(name, content)
        return (score_row(name, score_until(stop, found[name], settings)) if there is None else there), content

    with (
        single_threads(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        tqdm(total=len(found), desc="motion", unit="video", disable=None if progress else True) as bar,
    ):
        waiting, under_way = iter(found), deque[tuple[str, Future[tuple[Row, str]]]]()
        try:
            under_way.extend((name, pool.submit(work, name)) for name in islice(waiting, _AHEAD * workers))
            while under_way:
                name, future = under_way.popleft()
                try:
                    rows[name], content = future.result()
                    kept.keep(rows[name], content)
                except VideoError as error:
                    failures[name] = str(error)
                    rows[name] = {"video": name, "error": failures[name]}
                under_way.extend((name, pool.submit(work, name)) for name in islice(waiting, 1))
                bar.update()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return rows, failures


class _KeptRows:
    """Rows that are done, in a file of JSON lines: the settings first, then a row each as they come."""

    def __init__(self, path: Path, file: BinaryIO, rows: dict[str, tuple[str, Row]]) -> None:
        self.path = path
        self._file = file
        self._rows = rows

    def row(self, name: str, content: str) -> Row | None:
        """That of a video with this content, if it is there."""
        noted, row = self._rows.get(name, ("", None))
        return row if noted == content else None

    def keep(self, row: Row, content: str) -> None:
        name = str(row["video"])
        if self.row(name, content) is None:
            self._rows[name] = content, row
            self._file.write(_line({"content": content, "row": row}))
            self._file.flush()


@contextmanager
def _kept_rows(path: Path, settings: MotionSettings) -> Iterator[_KeptRows]:
    """What is left of a call that was broken off, locked; what a killed process or a lost disk cut off is cut away."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(f"{path}: another process is writing these scores") from None
        file.seek(0)
        lines, end = [], 0
        for line in file:
            parsed = _parse(line)
            if parsed is None:
                break
            lines.append(parsed)
            end += len(line)
        file.truncate(end)
        wanted = asdict(settings)
        if not lines:
            file.write(_line(wanted))
            file.flush()
        elif lines[0] != wanted:
            name = next((each for each in wanted if lines[0].get(each) != wanted[each]), "other settings")
            raise SettingsError(
                f"{path}: was begun with {name} {lines[0].get(name)}, not {wanted.get(name)}; give the same, or remove "
                "that file to begin anew"
            )
        rows = [each for each in lines[1:] if _is_row(each)]
        yield _KeptRows(path, file, {each["row"]["video"]: (each["content"], each["row"]) for each in rows})


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    """An object in a line; None for anything else, such as a line without its end."""
    try:
        parsed = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _is_row(noted: Mapping[str, Any]) -> bool:
    row = noted.get("row")
    return isinstance(row, dict) and [*row, "error"] == score_columns() and isinstance(noted.get("content"), str)
