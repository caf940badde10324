# SPDX-License-Identifier: BSD-3-Clause
"""What a command that works on many videos says of those that failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from twostream_ext.errors import ExtractionError


@contextmanager
def listed_failures(what: str) -> Iterator[None]:
    """The body, at whose end each video that failed has a line, and the error says how many: "N videos `what`"."""
    try:
        yield
    except ExtractionError as error:
        if not error.failures:  # it is not a video that is at fault
            raise
        print("\n".join(error.failures), file=sys.stderr)
        raise ExtractionError(f"{len(error.failures)} videos {what}, see above") from error
