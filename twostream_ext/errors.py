# SPDX-License-Identifier: BSD-3-Clause
"""What can go wrong with a user's files and settings: each error is one line that names its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Line ends, a terminal's commands and halves of characters, which names in files may hold."""

_SHOWN_FAILURES = 10


class TwoStreamError(Exception):
    """Base of every error that a user can cause; its text is one line, whatever is in the names that it quotes."""

    def __init__(self, text: str = "") -> None:
        super().__init__(_UNPRINTED.sub(lambda found: found[0].encode("unicode_escape").decode(), text))


class VideoError(TwoStreamError):
    """A video is missing, unreadable or too short."""


class VideoWarning(UserWarning):
    """Base of what is said of videos that are no error."""


class DamagedVideoWarning(VideoWarning):
    """A video was read as far as it goes, but has lost frames; names it and counts them."""


class ReplacedVideoWarning(VideoWarning):
    """What was kept of a video was of another one of its name, and is made again."""


class LeftOutWarning(VideoWarning):
    """Flow that another tool's layout has no names for was left out."""


class ListError(TwoStreamError):
    """A split list or class list is missing or wrong; names the file and the line."""


class FlowStoreError(TwoStreamError):
    """A file of a flow or frame store is missing or damaged; names the file and the fault."""


class ExtractionError(TwoStreamError):
    """Some videos could not be extracted or exported; names them with their reasons, and all of them in `failures`."""

    def __init__(self, text: str, failures: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.failures = failures
        """One line for each such video."""


class CheckpointError(TwoStreamError):
    """A checkpoint or score file is missing, damaged or of another model."""


class SettingsError(TwoStreamError):
    """An option has a value that cannot be used, or contradicts what is already on disk."""


class MissingPackageError(SettingsError, ImportError):
    """What is asked for stands on a package that is not there, or not whole; says what brings it."""


class ReaderError(TwoStreamError):
    """A process that reads training batches died, or has no memory to hand them over."""


class ReportError(TwoStreamError):
    """The report of a run could not be drawn or written; its result is kept all the same."""


class StoppedError(TwoStreamError):
    """SIGTERM came while a net trained; its state is saved."""


def describe(error: BaseException) -> str:
    """Another library's exception in one line, with its kind."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def first_line(error: BaseException) -> str:
    """What another library says, without the lines that it adds for its own developers."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def closest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the nearest one that is, if any is near."""
    from difflib import get_close_matches  # which whoever wants the kernels alone need not wait for

    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def failure_text(failures: Collection[str], count: int, done: str) -> str:
    """One line about the videos, of `count` in all, that could not be `done`: how many, and the first reasons."""
    shown = "; ".join(sorted(failures)[:_SHOWN_FAILURES])
    more = len(failures) - _SHOWN_FAILURES
    rest = f"; and {more} more" if more > 0 else ""
    return f"{len(failures)} of {count} videos could not be {done}: {shown}{rest}"
