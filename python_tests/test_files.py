# SPDX-License-Identifier: BSD-3-Clause
"""Files that are whole or not there, temporary ones that outlive nobody, and outputs that are no inputs."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from twostream_ext import files
from twostream_ext.errors import SettingsError
from twostream_ext.files import atomic_write, create_file, flush_files, make_folder, refuse_same_file, remove_leftovers
from twostream_ext.tensor_files import write_tensors

OLD = 2 * 3600.0  # seconds


def temporaries(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob(".*.tmp*"))


def make_old(path: Path) -> None:
    then = time.time() - OLD
    os.utime(path, (then, then))


@contextmanager
def child(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a program, which says "ready" and then waits for a line on its standard input."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd="/",  # not from a bare checkout
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# ---- atomic_write --------------------------------------------------------------------------------


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.read_bytes() == b""
        assert not path.exists()
        temporary.write_text("first")
    with pytest.raises(TypeError), atomic_write(path) as temporary:
        temporary.write_text(2)  # type: ignore[arg-type]
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    assert path.read_text() == "first"


def test_the_temporary_name_ends_as_its_writer_needs_it(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "film.MP4", ending=".mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporaries(tmp_path) == [temporary]
        remove_leftovers(tmp_path)
        assert temporary.exists()
    assert os.listdir(tmp_path) == ["film.MP4"]  # noqa: PTH208


def test_threads_write_one_file_at_once_while_another_cleans(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", [str(number) * 10_000 for number in range(4)]
    failures: list[BaseException] = []

    def write(text: str) -> None:
        try:
            for _ in range(15):
                with atomic_write(path) as temporary:
                    temporary.write_text(text)
                assert path.read_text() in texts
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        remove_leftovers(tmp_path)
    assert failures == []
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_file_of_the_same_bytes_stays_the_file_that_readers_have_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(text: str) -> int:
        with atomic_write(tmp_path / "file", keep_same=True) as temporary:
            temporary.write_text(text)
        assert (tmp_path / "file").read_text() == text
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        return (tmp_path / "file").stat().st_ino

    first = write("one")
    assert write("one") == first
    other = write("two")
    assert other != first
    monkeypatch.setattr(os, "link", _no_links)
    assert write("two") != other


def _no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_others_may_read_a_file_of_tensors_as_any_other(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "model.safetensors", "kind", {"a": torch.zeros(3)}, {})
        (tmp_path / "other").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


# ---- remove_leftovers ----------------------------------------------------------------------------

# In another container, process numbers are others: the writer's own, as it sees it, may be that of a process which has
# ended here.
WRITER = """
import os, sys
os.getpid = lambda: int(sys.argv[2])
from twostream_ext.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("whole")
    print("ready", flush=True)
    input()
"""

# Its child outlives it, as a data reader may for a moment.
FORKING_WRITER = """
import os, sys
from twostream_ext.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    if os.fork() == 0:
        os.setsid()
        os.execlp("sleep", "sleep", "60") if sys.argv[2] == "exec" else __import__("time").sleep(60)
    open(sys.argv[1] + ".started", "w").close()
    print("ready", flush=True)
    input()
"""

# A child that leaves the block, by an exception, before its parent does.
LEAVING_CHILD = """
import os, sys
from twostream_ext.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("whole")
    if os.fork() == 0:
        sys.exit()
    os.wait()
    print("ready", flush=True)
    input()
"""


def dead_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    return ended.pid


@pytest.mark.parametrize("program", [WRITER, LEAVING_CHILD], ids=["another container", "a child that has left"])
def test_files_in_work_stay_however_dead_their_writer_looks(tmp_path: Path, program: str) -> None:
    with child(program, tmp_path / "file", dead_process()) as writer:
        (temporary,) = temporaries(tmp_path)
        remove_leftovers(tmp_path)
        make_old(temporary)
        remove_leftovers(tmp_path)
        assert temporaries(tmp_path) == [temporary]
        writer.communicate("\n", timeout=30)
        assert writer.returncode == 0
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("way", ["alone", "fork", "exec"])
def test_what_a_killed_process_left_goes_at_once_even_if_a_child_lives_on(tmp_path: Path, way: str) -> None:
    program = WRITER if way == "alone" else FORKING_WRITER
    with child(program, tmp_path / "file", os.getpid() if way == "alone" else way) as writer:
        remove_leftovers(tmp_path)
        assert len(temporaries(tmp_path)) == 1
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=30)
        time.sleep(0.2 if way == "exec" else 0)  # until it is another program, which holds nothing
        remove_leftovers(tmp_path)
    assert temporaries(tmp_path) == []


def test_a_file_that_is_cleaned_before_it_is_locked_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its first moment and its lock, a file looks like a leftover."""
    lock = fcntl.flock
    moments: Iterator[Callable[[], object]] = iter(
        [lambda: remove_leftovers(tmp_path), lambda: held.append(locked_by_another(temporaries(tmp_path)[0]))]
    )
    held: list[int] = []

    def locked_by_another(path: Path) -> int:
        file = os.open(path, os.O_RDWR)
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def late(file: int, operation: int) -> None:
        moment = next(moments, None)
        if moment is not None:
            with monkeypatch.context() as undone:
                undone.setattr(fcntl, "flock", lock)
                moment()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "file") as temporary:
        assert next(moments, None) is None
        os.close(held[0])
        temporary.write_text("whole")
        assert temporaries(tmp_path) == [temporary]
        remove_leftovers(tmp_path)
    assert (tmp_path / "file").read_text() == "whole"


def test_without_locks_files_in_work_stay_and_leftovers_go_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("whole")
        remove_leftovers(tmp_path)
        # A server that had no lock for the writer may have one for the cleaner.
        monkeypatch.setattr(fcntl, "flock", lock)
        remove_leftovers(tmp_path)
        assert temporaries(tmp_path) == [temporary]
        left = temporary.with_name(temporary.name.replace(".file.", ".other."))
        left.write_text("begun")
    for works in (True, False):
        monkeypatch.setattr(fcntl, "flock", lock if works else refuse)
        left.write_text("begun")
        remove_leftovers(tmp_path)
        assert temporaries(tmp_path) == [left]
        make_old(left)
        remove_leftovers(tmp_path)
        assert temporaries(tmp_path) == []
    assert (tmp_path / "file").read_text() == "whole"


def test_leftovers_of_other_machines_and_of_the_first_version_go_after_an_hour(tmp_path: Path) -> None:
    names = (".v.safetensors.0123abcd-89abcdef.tmp", f".v.safetensors.89abcdef-{dead_process()}-7.tmp")
    for name in names:
        (tmp_path / name).write_bytes(b"begun")
    remove_leftovers(tmp_path)
    assert [path.name for path in temporaries(tmp_path)] == list(names)
    for path in temporaries(tmp_path):
        make_old(path)
    remove_leftovers(tmp_path)
    assert temporaries(tmp_path) == []


def test_files_of_the_user_are_nobodys_leftovers(tmp_path: Path) -> None:
    names = (".v.tmp", "v.safetensors.0123abcd-89abcdef.tmp", ".v.0123abcd-89abcdef.tmp.keep.it", ".v.012-89abcdef.tmp")
    for name in names:
        (tmp_path / name).write_bytes(b"his")
        make_old(tmp_path / name)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_another_start_of_the_machine_or_another_mount_keeps_other_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with child(WRITER, tmp_path / "file", os.getpid()) as writer:
        writer.kill()
        writer.wait(timeout=30)
        with monkeypatch.context() as patch:
            patch.setattr(files, "_boot", lambda: "of another start")
            remove_leftovers(tmp_path)
        assert len(temporaries(tmp_path)) == 1
        remove_leftovers(tmp_path)
    assert temporaries(tmp_path) == []


# ---- create_file ---------------------------------------------------------------------------------


def test_the_first_alone_creates_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    assert create_file(path, "first")
    assert not create_file(path, "second")
    assert path.read_text() == "first"
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self, **more: self != path and exists(self, **more))
    assert not create_file(path, "another that saw none")
    assert path.read_text() == "first"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_file_is_created_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert create_file(tmp_path / "file", "first")
    assert not create_file(tmp_path / "file", "second")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "first"}


# ---- what outlives a loss of power ---------------------------------------------------------------


def write_new(path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("text")


WRITERS = [write_new, lambda path: create_file(path, "text"), lambda path: make_folder(path.parent)]


def note_flushes(monkeypatch: pytest.MonkeyPatch, refusal: int | None = None) -> list[Path]:
    """The files and folders that are flushed; the system may refuse to do so with folders."""
    flushed: list[Path] = []

    def flush(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if refusal and path.is_dir():
            raise OSError(refusal, os.strerror(refusal))
        flushed.append(path)

    monkeypatch.setattr(os, "fsync", flush)
    return flushed


@pytest.mark.parametrize("write", WRITERS)
def test_new_names_are_flushed_in_all_folders_that_got_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    (tmp_path / "old").mkdir()
    path = tmp_path / "old" / "new" / "newer" / "file"
    flushed = note_flushes(monkeypatch)
    write(path)
    folders = [each for each in flushed if each.is_dir()]
    assert folders[:2] == [tmp_path / "old", tmp_path / "old" / "new"]
    assert folders[2:] == ([path.parent] if path.exists() else [])
    flushed.clear()
    write(path.with_name("second"))
    assert {each for each in flushed if each.is_dir()} <= {path.parent}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EIO])
def test_a_file_system_may_be_unable_to_flush_names_and_must_not_fail_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], refusal: int
) -> None:
    note_flushes(monkeypatch, refusal)
    with pytest.raises(OSError, match=str(tmp_path)) if refusal == errno.EIO else nullcontext():
        write(tmp_path / "new" / "file")


def test_files_are_written_into_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse_folders(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse_folders)
    write_new(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "text"


def test_many_files_are_flushed_together_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / folder / name for folder in ("A", "B") for name in ("one", "two")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
    flushed = note_flushes(monkeypatch)
    for file in files:
        with atomic_write(file, flush=False) as temporary:
            temporary.write_text("text")
    assert flushed == []
    flush_files(files)
    assert flushed == [*files, tmp_path / "A", tmp_path / "B"]  # names last: what they lead to is there by then


# ---- refuse_same_file ----------------------------------------------------------------------------


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_output_that_is_an_input_under_any_name_is_refused(tmp_path: Path, link) -> None:  # type: ignore[no-untyped-def]
    video, other, linked = (tmp_path / name for name in ("a.mp4", "other.mp4", "linked.mp4"))
    video.write_bytes(b"of the user")
    other.write_bytes(b"of the user")
    link(video, linked)
    for out in (video, linked, tmp_path / "." / "a.mp4", os.path.relpath(video)):
        with pytest.raises(SettingsError) as caught:
            refuse_same_file(out, other, video)
        assert str(caught.value).startswith(f"{out}: is the input {video} itself")
        assert "\n" not in str(caught.value)
    refuse_same_file(video, other)
    refuse_same_file(video)


def test_files_that_are_not_there_are_nobodys_input(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    for missing in ("none", "there/below", "dangling", "n" * 300):
        refuse_same_file(tmp_path / missing, there)
        refuse_same_file(there, tmp_path / missing)
