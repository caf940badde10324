# SPDX-License-Identifier: BSD-3-Clause
"""Two hundred damaged store files: each gives an error that names it, or the right fields; none a crash or a hang.

They are read in a process of their own, which a signal would end, with little memory to claim and an alarm.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
import zlib
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import in_a_process
from stores import write_store

from twostream_ext.errors import FlowStoreError
from twostream_ext.flow import FlowStore, read_flow_batch
from twostream_ext.ops import FlowBatch

COUNT = 200
Damage = Callable[[random.Random, bytearray, Path], None]


def outlived(work: Callable[[Path], Any], root: Path) -> Any:
    """What `work` gives in a process of its own, which must not end by a signal."""

    def run() -> Any:
        signal.alarm(100)
        return work(root)

    result, status = in_a_process(run)
    assert status == 0
    return result


def read_all(root: Path) -> dict[str, str]:
    """How reading each damaged file ended, by the way it was read."""
    store, whole = FlowStore.open(root / "damaged"), FlowStore.open(root / "whole")
    # What runs already takes some memory; a claim of gigabytes would fail.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
    links = {path.stem for path in (root / "damaged").iterdir() if path.is_symlink()}  # out of the store: not listed
    names = sorted({*store} | links)
    return {f"{name} {how}": outcome(store, whole, name, how) for name in names for how in ("peek", "store", "pool")}


def outcome(store: FlowStore, whole: FlowStore, name: str, how: str) -> str:
    right = whole["jpeg" if "jpeg" in name else "raw"]
    try:
        if how == "peek":  # not compared with its checksum: any pixels will do
            clip = store.peek(name)
            assert clip.frame_count == right.frame_count, "a number was believed"
            clip.read(0, 3)
            return "read"
        clips = [right, store[name], right]
        for direction in ("forward", "backward", "bidirectional"):
            batch = read_flow_batch(clips, [2, 2, 3], 4, direction=direction, threads=1 if how == "store" else 3)
            expected = read_flow_batch([right] * 3, [2, 2, 3], 4, direction=direction, threads=1)
            pairs = zip(parts(batch), parts(expected), strict=True)
            if not all(torch.equal(a, b) for a, b in pairs):
                return "wrong"
    except FlowStoreError as error:
        named = f"{name}.safetensors: " in str(error) or f"holds no video {name!r}" in str(error)
        return "named" if named and "\n" not in str(error) else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "right"


def parts(batch: FlowBatch) -> list[torch.Tensor]:
    return [*batch.fields, batch.lo, batch.step, batch.mean]


def header_length(data: bytearray) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def flip(first: float, last: float) -> Damage:
    """A bit somewhere in a part of the file: up to 1 the header, up to 2 the numbers and pictures."""

    def damage(draw: random.Random, data: bytearray, path: Path) -> None:
        border = header_length(data)
        begin, end = (
            int(at * border) if at <= 1 else int(border + (at - 1) * (len(data) - border)) for at in (first, last)
        )
        data[draw.randrange(begin, end)] ^= 1 << draw.randrange(8)

    return damage


def cut(draw: random.Random, data: bytearray, path: Path) -> None:
    del data[draw.randrange(len(data)) :]


def cut_in_header(draw: random.Random, data: bytearray, path: Path) -> None:
    del data[draw.randrange(header_length(data)) :]


def swap(draw: random.Random, data: bytearray, path: Path) -> None:
    size = len(data) // 5
    a, b = draw.randrange(size), draw.randrange(2 * size, 3 * size)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def garbage(draw: random.Random, data: bytearray, path: Path) -> None:
    begin = draw.randrange(len(data) - 64)
    data[begin : begin + 64] = draw.randbytes(64)


def grow(draw: random.Random, data: bytearray, path: Path) -> None:
    data += draw.randbytes(draw.randrange(1, 1000))


def empty(draw: random.Random, data: bytearray, path: Path) -> None:
    data.clear()


def claim_a_huge_header(draw: random.Random, data: bytearray, path: Path) -> None:
    data[:8] = draw.choice([1 << 40, (1 << 64) - 1, len(data), len(data) - 8]).to_bytes(8, "little")


def rewrite_number(draw: random.Random, data: bytearray, path: Path) -> None:
    """One number of the header becomes huge, and the checksum is made to fit: only the numbers themselves tell."""
    border = header_length(data)
    header = bytes(data[8:border])
    field = draw.choice(
        [b'\\"frame_count\\": 8', b'\\"size\\": [24, 40]', b'"shape":[15', b'"shape":[7', b"data_offsets"]
    )
    at = header.index(field) + len(field) - 1
    huge = b"%d" % draw.choice([1, 1 << 31, 1 << 40, 1 << 62, 10**30])
    if field == b"data_offsets":
        at = header.index(b"[", at)
        header = header[: at + 1] + huge + header[header.index(b",", at) :]
    elif field.endswith(b"]"):
        header = (
            header[:at] + b", " + huge + header[at:] if draw.random() < 0.3 else header[: at - 2] + huge + header[at:]
        )
    else:
        begin = max(header.rfind(b"[", 0, at + 1), header.rfind(b" ", 0, at + 1)) + 1
        header = header[:begin] + huge + header[at + 1 :]
    with_checksum(data, header, data[border:])


def with_checksum(data: bytearray, header: bytes, rest: bytes) -> None:
    mark = b'"checksum":"'
    at = header.index(mark) + len(mark)
    header = header.rstrip()
    blank = header[:at] + b"0" * 8 + header[at + 8 :]
    blank += b" " * (-len(blank) % 8)
    length = len(blank).to_bytes(8, "little")
    value = b"%08x" % zlib.crc32(length + blank + bytes(rest))
    data[:] = length + blank[:at] + value + blank[at + 8 :] + bytes(rest)


def claim_a_huge_picture(draw: random.Random, data: bytearray, path: Path) -> None:
    """The JPEG of a plane says that it is of 65,535 by 65,535 pixels, and the checksum fits."""
    if "raw" in path.name:
        cut(draw, data, path)
        return
    places = [at for at in range(len(data)) if data[at : at + 5] == b"\xff\xc0\x00\x0b\x08"]
    at = draw.choice(places)
    data[at + 5 : at + 9] = b"\xff" * 4
    border = header_length(data)
    with_checksum(data, bytes(data[8:border]), data[border:])


def become_a_folder(draw: random.Random, data: bytearray, path: Path) -> None:
    path.mkdir()


def become_a_pipe(draw: random.Random, data: bytearray, path: Path) -> None:
    os.mkfifo(path)


def become_a_device(draw: random.Random, data: bytearray, path: Path) -> None:
    path.symlink_to(draw.choice(["/dev/zero", "/dev/null"]))


def become_a_link_to_itself(draw: random.Random, data: bytearray, path: Path) -> None:
    path.symlink_to(path.name)


def become_sparse(draw: random.Random, data: bytearray, path: Path) -> None:
    """A terabyte of which a few bytes are on the disk, with a header that claims most of it."""
    with path.open("wb") as file:
        file.write((1 << draw.choice([30, 39])).to_bytes(8, "little"))
        file.truncate(1 << 40)


DAMAGES: list[Damage] = [
    *(flip(0, 1), flip(1, 1.1), flip(1, 2), flip(0, 0.02), flip(0.5, 1)),
    *(cut, cut, cut_in_header, swap, garbage, grow, empty),
    *(claim_a_huge_header, rewrite_number, rewrite_number, rewrite_number, claim_a_huge_picture),
    *(become_a_folder, become_a_pipe, become_a_device, become_a_link_to_itself, become_sparse),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file of each codec, and COUNT damaged copies."""
    root = tmp_path_factory.mktemp("stores")
    for codec in ("jpeg", "raw"):
        write_store(root / "whole", [codec], codec=codec, count=7)
    draw = random.Random(4)
    for number, damage in enumerate(islice(cycle(DAMAGES), COUNT)):
        codec = draw.choice(["jpeg", "raw"])
        name = damage.__name__.replace("damage", "flip")
        path = root / "damaged" / f"{number:03d} {name} {codec}.safetensors"
        path.parent.mkdir(exist_ok=True)
        data = bytearray((root / "whole" / f"{codec}.safetensors").read_bytes())
        before = bytes(data)
        damage(draw, data, path)
        if not os.path.lexists(path):
            assert bytes(data) != before
            path.write_bytes(data)
    return root


def test_two_hundred_damaged_files(root: Path) -> None:
    results = outlived(read_all, root)
    folders = sum("become_a_folder" in name for name in map(str, (root / "damaged").iterdir()))
    assert len(results) == 3 * (COUNT - folders)
    wrong = {
        name: result
        for name, result in results.items()
        if not (result == "named" or result == "right" or (result == "read" and name.endswith("peek")))
    }
    assert not wrong
    # Damage that misses every field is rare: nearly all must have been found.
    assert sum(result == "named" for name, result in results.items() if not name.endswith("peek")) >= 370


def test_a_folder_in_the_place_of_a_file_is_named(root: Path) -> None:
    store = FlowStore.open(root / "whole")
    path = root / "whole" / "raw.safetensors"
    clip, aside = store["raw"], root / "raw aside"
    path.rename(aside)
    path.mkdir()
    try:
        for read in (lambda: store["raw"], lambda: clip.read(0, 1)):
            with pytest.raises(FlowStoreError, match=r"raw.safetensors: is not a regular file"):
                read()
    finally:
        path.rmdir()
        aside.rename(path)


def read_while_it_is_cut(root: Path) -> list[str]:
    """What reading said whenever it failed."""
    path = root / "raw.safetensors"
    whole, times = path.read_bytes(), path.stat()
    clip = FlowStore.open(root)["raw"]
    stop = threading.Event()

    def cut_and_mend() -> None:
        while not stop.is_set():
            os.truncate(path, 4096)
            with path.open("r+b") as file:
                file.write(whole)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that it looks the same in between

    thread = threading.Thread(target=cut_and_mend)
    thread.start()
    said, end = [], time.monotonic() + 2
    try:
        while time.monotonic() < end and len(said) < 50:
            try:
                read_flow_batch([clip] * 8, [0] * 8, 7, threads=2)
            except FlowStoreError as error:
                said.append(str(error))
    finally:
        stop.set()
        thread.join()
    return said


def test_a_file_that_is_cut_short_while_it_is_read_ends_no_process(tmp_path: Path) -> None:
    """A mapping of it would end with a bus error."""
    write_store(tmp_path, ["raw"], count=7, sizes=((128, 170),))
    said = outlived(read_while_it_is_cut, tmp_path)
    assert said
    assert all(f"{tmp_path}/raw.safetensors: " in each for each in said)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_a_file_cut_short_after_it_was_opened_is_named(tmp_path: Path, codec: str, threads: int) -> None:
    write_store(tmp_path, ["a", "b"], codec=codec)
    store = FlowStore.open(tmp_path)
    clips = [store["a"], store["b"]] * 4
    right = read_flow_batch(clips[:1], [1], 4).fields[0].numpy()
    times = (tmp_path / "b.safetensors").stat()
    os.truncate(tmp_path / "b.safetensors", times.st_size // 2)
    os.utime(tmp_path / "b.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FlowStoreError, match=r"b.safetensors: was changed while it was in use"):
        read_flow_batch(clips, [1] * 8, 4, threads=threads)
    np.testing.assert_array_equal(read_flow_batch(clips[:1], [1], 4).fields[0], right)
