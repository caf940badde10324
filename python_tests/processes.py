# SPDX-License-Identifier: BSD-3-Clause
"""Work in a process of its own, which it may bring to its end."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


def in_a_process(work: Callable[[], Any]) -> tuple[Any, int | None]:
    """What work gives in a forked process, None if that ends before, and the process's exit status."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sending.send(work()))
    process.start()
    sending.close()
    try:
        result = receiving.recv()
    except EOFError:
        result = None
    process.join()
    return result, process.exitcode
