# SPDX-License-Identifier: BSD-3-Clause
"""The commands when the power is lost: at each moment, all that the disk may then hold.

python power_loss.py FOLDER [--commands extract ...] [--most N] [--out FILE]

`fault_shim.c` and `recording_shim.c` must be loaded before libc (LD_PRELOAD); test_power_loss.py sees to that. A
command is run once while each of its writes, renames, fsyncs, ... is noted. Sure on the disk are of a file the bytes,
and of a folder the names, that it had at its last fsync; of what came later any part may be there. From the notes up to
each call such disks are built. On each of them every file must be whole (a picture of another tool's tree: if its video
is marked as done), and the same command must end with the same bytes as one that was never disturbed; on those after
the last call all results must be there already. Prints a table of counts and what did not hold; exits with 1 if
anything did not.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from faults import (
    COMMANDS,
    Faults,
    contents,
    empty,
    facts,
    go_on,
    half_written,
    prepare,
    run,
    undisturbed_files,
    with_earlier,
)
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from twostream_ext import files

# `fuse` writes nothing here.
WRITING = ("extract", "denseflow", "export", "train", "evaluate", "run", "predict", "predict --out", "motion")
MARKING = ("denseflow", "export")  # what they write of a video is sure when the video is marked as done
PAGE = 4096  # bytes
_NOTE = struct.Struct("<8sIIQQ")  # struct note of recording_shim.c


class Call(NamedTuple):
    """One call that changed a file or a name, or made sure of it."""

    name: str
    path: str  # in the folder, as all paths here
    other: str  # the new name, of rename and link
    at: int  # of the bytes in the file; of resize, its size
    data: bytes


@dataclass(eq=False)
class File:
    now: bytes = b""
    sure: bytes = b""  # at the last fsync


@dataclass(eq=False)
class Folder:
    sure: dict[str, File | Folder] = field(default_factory=dict)  # names at the last fsync
    later: list[Change] = field(default_factory=list)  # what calls changed since then

    def now(self) -> dict[str, File | Folder]:
        return self.with_changes(lambda change: True)

    def with_changes(self, is_there: Callable[[Change], bool]) -> dict[str, File | Folder]:
        names: dict[str, File | Folder | None] = dict(self.sure)
        for change in self.later:
            if is_there(change):
                names.update(change.names)
        return {name: node for name, node in names.items() if node is not None}


@dataclass(eq=False)
class Change:
    """What one call changed in a folder: what has each name now, None if nothing."""

    names: dict[str, File | Folder | None]


Disk = dict[str, bytes | None]
"""What a disk holds after the power came back: bytes of files by path, None for a folder."""


class State(NamedTuple):
    """A disk that there may be, and how it came to it."""

    calls: int  # that were done
    what: str
    disk: Disk


class Lost(NamedTuple):
    """A state in which something did not hold."""

    command: str
    after: str  # which call
    disk: str
    what: str


def recorded_calls(scene: Path, command: str, faults: Faults, notes: Path) -> list[Call]:
    """Run a command in an empty folder; what it did to the files there, in order."""
    out = scene / "out"
    empty(out)
    begin = _recording()
    with notes.open("wb") as file:
        begin(os.fsencode(out), file.fileno())
        ended = run(COMMANDS[command].arguments(scene, out), scene, faults)
        begin(b"", -1)
    assert ended.status == 0, ended.said
    calls = list(_read_notes(notes.read_bytes(), out))
    root = Folder()
    for call in calls:
        apply(root, call)
    # The notes are complete if they give what is there.
    assert _built(root, lambda change: True, lambda file: file.now) == _on_disk(out), "not all calls were noted"
    return calls


def _recording() -> Callable[[bytes, int], None]:
    try:
        begin = ctypes.CDLL(None).recording_begin
    except AttributeError:
        raise SystemExit("recording_shim.c must be loaded: LD_PRELOAD=... python power_loss.py ...") from None
    begin.argtypes, begin.restype = [ctypes.c_char_p, ctypes.c_int], None
    return begin  # type: ignore[no-any-return]


def _read_notes(notes: bytes, out: Path) -> Iterator[Call]:
    position = 0

    def take(size: int) -> bytes:
        nonlocal position
        position += size
        return notes[position - size : position]

    def take_path(size: int) -> str:
        path = os.fsdecode(take(size))
        return Path(path).relative_to(out).as_posix() if path else ""  # "." is the folder itself

    while position < len(notes):
        name, path, other, at, size = _NOTE.unpack(take(_NOTE.size))
        yield Call(name.rstrip(b"\0").decode(), take_path(path), take_path(other), at, take(size))


def apply(root: Folder, call: Call) -> None:
    """Do one call to the folders and files."""
    parent, name = _parent(root, call.path), PurePosixPath(call.path).name
    node = parent.now().get(name) if name else root
    match call.name, node:
        case "create", None:
            parent.later.append(Change({name: File()}))
        case "mkdir", None:
            parent.later.append(Change({name: Folder()}))
        case "write", File():
            node.now = node.now[: call.at].ljust(call.at, b"\0") + call.data + node.now[call.at + len(call.data) :]
        case "resize", File():
            node.now = node.now[: call.at].ljust(call.at, b"\0")
        case "rename", File():
            assert _parent(root, call.other) is parent, "a rename from folder to folder is two changes"
            parent.later.append(Change({name: None, PurePosixPath(call.other).name: node}))
        case "link", File():
            _parent(root, call.other).later.append(Change({PurePosixPath(call.other).name: node}))
        case "unlink", File() | Folder():
            parent.later.append(Change({name: None}))
        case "fsync", File():
            node.sure = node.now
        case "fsync", Folder():
            node.sure, node.later = node.now(), []
        case _:
            raise AssertionError(f"{call.name} of {call.path}, which is {node}")


def _parent(root: Folder, path: str) -> Folder:
    folder: File | Folder = root
    for name in PurePosixPath(path).parts[:-1]:
        assert isinstance(folder, Folder)
        folder = folder.now()[name]
    assert isinstance(folder, Folder)
    return folder


def states(calls: Sequence[Call]) -> Iterator[State]:
    """The disks that there may be after each of the calls, each once, and all those after the last.

    What is in a temporary file makes no difference: nobody reads it.
    """
    root = Folder()
    seen: set[frozenset[tuple[str, bytes | None]]] = set()
    for number in range(len(calls) + 1):
        if number:
            apply(root, calls[number - 1])
        if number == len(calls):
            seen.clear()
        for names, is_there in _names(root):
            for bytes_, content in _CONTENTS.items():
                disk = _built(root, is_there, content)
                key = frozenset((path, None if _is_temporary(path) else data) for path, data in disk.items())
                if key not in seen:
                    seen.add(key)
                    yield State(number, f"{names}; {bytes_}", disk)


def _is_temporary(path: str) -> bool:
    return files._TEMPORARY.fullmatch(PurePosixPath(path).name) is not None


def _names(root: Folder) -> Iterator[tuple[str, Callable[[Change], bool]]]:
    """Which changes of names since the last fsync of their folders are on the disk."""
    waiting = dict(_waiting(root, "."))
    yield "all names", lambda change: True
    yield "only names that are sure", lambda change: False
    for path, changes in waiting.items():
        yield f"new names of {path} alone", partial(_is_among, changes)
        yield f"new names but for those of {path}", partial(_is_not_among, changes)
        for change in changes:
            told = ", ".join(change.names)
            yield f"of all new names {told} alone", partial(_is_among, [change])
            yield f"all new names but {told}", partial(_is_not_among, [change])


def _is_among(changes: list[Change], change: Change) -> bool:
    return change in changes


def _is_not_among(changes: list[Change], change: Change) -> bool:
    return change not in changes


def _waiting(folder: Folder, path: str) -> Iterator[tuple[str, list[Change]]]:
    if folder.later:
        yield path, list(folder.later)
    for name, node in folder.now().items():
        if isinstance(node, Folder):
            yield from _waiting(node, f"{path}/{name}")


def _zeros(file: File) -> bytes:
    """A file system may note the size before it writes the bytes."""
    return file.sure[: len(file.now)].ljust(len(file.now), b"\0") if file.now != file.sure else file.now


def _torn(file: File) -> bytes:
    """Half of what is not sure, in whole pages if there are some."""
    half = (len(file.sure) + len(file.now)) // 2
    return file.now[: half // PAGE * PAGE or half] if file.now != file.sure else file.now


_CONTENTS: Mapping[str, Callable[[File], bytes]] = {
    "all bytes": lambda file: file.now,
    "only bytes that are sure": lambda file: file.sure,
    "zeros for the others": _zeros,
    "half of the others": _torn,
}


def _built(root: Folder, is_there: Callable[[Change], bool], content: Callable[[File], bytes]) -> Disk:
    disk: Disk = {}

    def add(folder: Folder, path: PurePosixPath) -> None:
        for name, node in folder.with_changes(is_there).items():
            inside = path / name
            disk[str(inside)] = content(node) if isinstance(node, File) else None
            if isinstance(node, Folder):
                add(node, inside)

    add(root, PurePosixPath())
    return disk


def _on_disk(out: Path) -> Disk:
    return {path.relative_to(out).as_posix(): path.read_bytes() if path.is_file() else None for path in out.rglob("*")}


def put(disk: Disk, out: Path) -> None:
    """Make a folder hold this, as of some hours ago."""
    empty(out)
    then = time.time() - 3 * 3600
    for path, data in sorted(disk.items()):
        if data is None:
            (out / path).mkdir()
        else:
            (out / path).write_bytes(data)
            os.utime(out / path, (then, then))


def check(
    scene: Path, command: str, state: State, faults: Faults, whole: Mapping[str, bytes], is_over: bool
) -> Iterator[str]:
    """What does not hold in a state. is_over: the command has said that it is done."""
    out = scene / "out"
    put(state.disk, out)
    yield from (
        f"half-written: {each}" for each in half_written(out) if command not in MARKING or _is_marked(each, out)
    )
    yield from unreadable_events(out)
    if is_over:
        found = contents(out)
        if lost := sorted(name for name in whole if whole[name] != found.get(name)):
            yield f"was done, and is lost: {', '.join(lost)}"
    yield from go_on(scene, command, faults, dict(whole))


def _is_marked(told: str, out: Path) -> bool:
    """Whether a file, which is named first, is of a video that is marked, or is no video's."""
    tree, *video, _ = Path(told.partition(": ")[0]).parts
    marker = out / tree / ".done" / Path(*video)
    return not video or marker.exists() or marker.with_name(f"{marker.name}.json").exists()


def unreadable_events(out: Path) -> Iterator[str]:
    """Files in which TensorBoard finds more than a lost end."""
    for path in out.rglob("*tfevents*"):
        try:
            list(EventFileLoader(str(path)).Load())
        except Exception as error:
            yield f"{path.relative_to(out)}: {type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commands", nargs="*", choices=WRITING, default=list(WRITING))
    parser.add_argument("--most", type=int, default=1 << 30, help="disks of a command, evenly spread (all)")
    parser.add_argument("--out", type=Path, help="write the counts to this .json, beside those of other commands there")
    options = parser.parse_args(arguments)
    faults = Faults()
    scene = prepare(options.folder, faults)
    files._boot = lambda: "another start of the machine"  # type: ignore[assignment]
    counts: dict[str, dict[str, int]] = {}
    wrong: list[Lost] = []
    for command in options.commands:
        whole = undisturbed_files(scene, command, faults)
        calls = recorded_calls(scene, command, faults, options.folder / "notes")
        possible = list(states(calls))
        tried = [state for number, state in enumerate(possible) if _is_taken(number, len(possible), options.most)]
        lost = [
            Lost(command, _told(calls, state.calls), state.what, each)
            for state in tried
            for each in check(scene, command, state, faults, whole, state.calls == len(calls))
        ]
        counts[command] = {
            "points": len(calls) + 1,
            "fsyncs": sum(call.name == "fsync" for call in calls),
            "disks": len(possible),
            "tried": len(tried),
            "wrong": len(lost),
        }
        print(command, json.dumps(counts[command]), flush=True)
        wrong += lost
        if options.out:
            _write_record(options.out, counts, wrong)
    for each in wrong:
        print(f"\n{each.command}, {each.after}, {each.disk}: {each.what}")
    print(", ".join(f"{number} {name}" for name, number in _totals(counts).items()))
    return 1 if wrong else 0


def _write_record(out: Path, counts: dict[str, Any], wrong: Sequence[Lost]) -> None:
    counts, told = with_earlier(out, counts, [each._asdict() for each in wrong])
    record = {**facts(), "commands": counts, "total": _totals(counts), "wrong": told}
    out.write_text(json.dumps(record, indent=1) + "\n")


def _totals(counts: dict[str, Any]) -> dict[str, int]:
    return {name: sum(each[name] for each in counts.values()) for name in ("points", "tried", "wrong")}


def _is_taken(number: int, count: int, most: int) -> bool:
    """Whether it is one of so many, evenly spread, the last among them."""
    return most >= count or (number + 1) * most // count > number * most // count


def _told(calls: Sequence[Call], done: int) -> str:
    if not done:
        return "before the first call"
    call = calls[done - 1]
    return f"after call {done} of {len(calls)}, {call.name} {call.path}" + (f" -> {call.other}" if call.other else "")


if __name__ == "__main__":
    sys.exit(main())
