# SPDX-License-Identifier: BSD-3-Clause
"""What reading any file may do: give a value, or one of our errors in one line that names it; nothing else."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fuzz_targets import OPERATORS, Target

from twostream_ext.errors import TwoStreamError

# A file that was read must not have started, loaded or changed anything.
_FORBIDDEN = {
    *("exec", "compile", "pickle.find_class", "marshal.loads", "ctypes.dlopen", "code.__new__"),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

MEMORY = 1 << 30  # bytes that a process may take, beyond what it has, to read any of the inputs

_watching = [False]
_seen: list[str] = []


class FoundError(AssertionError):
    """An input that does what none may do; the text says what."""


def confine() -> None:
    """Let this process read inputs from now on: with little memory, one thread, and none of timm's many nets."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.modules["timm"] = None  # type: ignore[assignment]  a name that is not ours is then refused at once
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))


def judge(target: Target, data: bytes, folder: Path) -> str:
    """Let the target's reader have an input; "read" or "refused". FoundError, or what the reader let out, otherwise."""
    if target.name == OPERATORS:
        return _judge_call(target, data)
    named = target.lay(folder, data)
    with _watched(target):
        try:
            target.read(named)
        except TwoStreamError as error:
            text = str(error)
            if str(named) not in text or len(text.splitlines()) != 1:
                raise FoundError(f"not one line that names {named.name}: {type(error).__name__}: {text!r}") from error
            return "refused"
    return "read"


def kind_of(error: BaseException) -> str:
    """What findings of one fault have in common: the error, and the deepest function of ours that it came through."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "twostream_ext" in path.parts:
            place = f"{path.name}:{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    what = str(error)[:60] if isinstance(error, FoundError) else type(error).__name__
    return f"{what} in {place}" if place else what


def _judge_call(target: Target, data: bytes) -> str:
    """An operator gives a result, or an error of its own that names it."""
    try:
        target.read(data)
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        operator = getattr(error, "operator", None)
        if operator is None or operator not in str(error):
            raise FoundError(f"does not name the operator {operator}: {type(error).__name__}: {error}") from error
        return "refused"
    return "read"


@contextlib.contextmanager
def _watched(target: Target) -> Iterator[None]:
    _seen.clear()
    _watching.append(not target.writes)
    try:
        yield
    finally:
        _watching.pop()
    if _seen:
        raise FoundError(f"did more than read: {_seen[0]}")


def _is_importing() -> bool:
    """Whether a module of an installed package is loaded, which some are at their first use."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching[-1]:
        return
    if event in _FORBIDDEN and not _is_importing():
        _seen.append(f"{event} {arguments!r:.200}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        _seen.append(f"open to write {arguments[0]!r}")


sys.addaudithook(_note)
