# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of many clips in one packed batch: the right fields at the right places, whatever the threads and codecs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from stores import Field, smooth_fields, write_store

from twostream_ext import ops
from twostream_ext.errors import FlowStoreError, SettingsError
from twostream_ext.flow import (
    FlowSettings,
    FlowStore,
    code_flow,
    read_flow_batch,
    read_flow_clip,
    write_coded_clip,
)
from twostream_ext.flow.clip import FieldSlots
from twostream_ext.media import jpeg
from twostream_ext.ops import FlowBatch, QuantizedFlow

NAMES = ["a/0", "a/1", "b/2"]
SIZES = ((24, 40), (17, 31), (40, 16))
FIRST = {"forward": 0, "backward": 1}  # number of the first field


def numbers(start: int, length: int, direction: str) -> list[tuple[str, int]]:
    """Directions and numbers of the fields of a stack, from the definition."""
    if direction != "bidirectional":
        return [(direction, start + k) for k in range(length)]
    half = length // 2
    return [("forward", start + k) for k in range(half)] + [("backward", start - k) for k in range(half)]


def planes_of(path: Path, direction: str, number: int) -> np.ndarray:
    """Codes [H, W, 2] of a JPEG store, read with safetensors and OpenCV."""
    with safe_open(path, framework="numpy") as file:
        data, offsets = (file.get_tensor(f"{direction}.{part}") for part in ("bytes", "offsets"))
    at = 2 * (number - FIRST[direction])
    planes = [cv2.imdecode(data[offsets[k] : offsets[k + 1]], cv2.IMREAD_GRAYSCALE) for k in (at, at + 1)]
    return np.stack(planes, 2)


def check(
    batch: FlowBatch,
    written: dict[str, dict[str, list[Field]]],
    root: Path | None,
    picks: list[tuple[str, int]],
    length: int,
    direction: str,
) -> None:
    assert batch.dtype == torch.uint8
    assert len(batch) == len(picks)
    for index, (name, start) in enumerate(picks):
        assert batch.fields[index].untyped_storage().data_ptr() == batch.buffer.untyped_storage().data_ptr()
        assert batch.fields[index].permute(0, 3, 1, 2).is_contiguous()
        for k, (way, number) in enumerate(numbers(start, length, direction)):
            field = written[name][way][number - FIRST[way]]
            codes = field.codes if root is None else planes_of(root / f"{name}.safetensors", way, number)
            np.testing.assert_array_equal(batch.fields[index][k], codes)
            for table, part in ((batch.lo, field.lo), (batch.step, field.step), (batch.mean, field.mean)):
                np.testing.assert_array_equal(table[index, k], part)


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("direction", ["forward", "backward", "bidirectional"])
def test_every_field_comes_to_its_place(tmp_path: Path, codec: str, threads: int, direction: str) -> None:
    written = write_store(tmp_path, NAMES, codec=codec, sizes=SIZES, count=7)
    store = FlowStore.open(tmp_path)
    picks = [(name, start) for name in [*NAMES, "a/1", "a/0"] for start in (2, 3)]
    clips, starts = [store[name] for name, _ in picks], [start for _, start in picks]
    batch = read_flow_batch(clips, starts, 4, direction=direction, threads=threads)
    check(batch, written, tmp_path if codec == "jpeg" else None, picks, 4, direction)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 6)), min_size=1, max_size=6),
    st.integers(1, 6),
    st.sampled_from(["forward", "backward", "bidirectional"]),
    st.integers(1, 3),
)
def test_any_stack_that_is_there_is_read_and_no_other(
    raw_store: tuple[FlowStore, dict[str, dict[str, list[Field]]]],
    picks: list[tuple[str, int]],
    length: int,
    direction: str,
    threads: int,
) -> None:
    store, written = raw_store
    fields = [each for _, start in picks for each in numbers(start, length, direction)]
    there = all(FIRST[way] <= number < FIRST[way] + 6 for way, number in fields)
    there &= length % 2 == 0 or direction != "bidirectional"
    opened = {name: store[name] for name in NAMES}  # stacks of one clip may share fields
    clips, starts = [opened[name] for name, _ in picks], [start for _, start in picks]
    if there:
        batch = read_flow_batch(clips, starts, length, direction=direction, threads=threads)
        check(batch, written, None, picks, length, direction)
    else:
        with pytest.raises(SettingsError):
            read_flow_batch(clips, starts, length, direction=direction, threads=threads)


@pytest.fixture(scope="module")
def raw_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[FlowStore, dict[str, dict[str, list[Field]]]]:
    root = tmp_path_factory.mktemp("raw")
    written = write_store(root, NAMES, sizes=SIZES)
    return FlowStore.open(root), written


@pytest.mark.parametrize(
    ("direction", "starts", "decoded"),
    [
        ("forward", [0, 1, 1, 3], 5),  # 0 1, 2, -, 3 4
        ("forward", [2, 1, 0], 4),
        ("backward", [1, 4, 5], 5),  # 1 2, 4 5, 6
        ("bidirectional", [2, 3, 3], 4),  # 2 and 2, 3 and 3
    ],
)
def test_what_stacks_of_a_clip_share_with_the_one_before_is_decoded_once(
    raw_store: tuple[FlowStore, dict[str, dict[str, list[Field]]]], direction: str, starts: list[int], decoded: int
) -> None:
    store, written = raw_store
    clip, counts = store["a/0"], []
    load = clip.load

    def counting(direction: str, first: int, slots: FieldSlots) -> None:
        counts.append(len(slots.planes))
        load(direction, first, slots)

    clip.load = counting
    batch = read_flow_batch([clip] * len(starts), starts, 2, direction=direction, threads=1)
    check(batch, written, None, [("a/0", start) for start in starts], 2, direction)
    assert sum(counts) == decoded


def test_a_kernel_takes_the_batch_as_it_is(raw_store: tuple[FlowStore, dict[str, dict[str, list[Field]]]]) -> None:
    store, written = raw_store
    batch = read_flow_batch([store[name] for name in NAMES], [1, 2, 3], 2, threads=2)
    windows = torch.tensor([[1, 2, 0], [0, 3, 0], [4, 0, 0]], dtype=torch.int32)
    stacks = ops.flow_stack(batch, windows, 12, subtract_mean=True)
    for index, (name, start) in enumerate(zip(NAMES, [1, 2, 3], strict=True)):
        top, left, _ = windows[index].tolist()
        for k in range(2):
            field = written[name]["forward"][start + k]
            pixels = field.lo + field.step * field.codes.astype(np.float64) - field.mean
            expected = pixels[top : top + 12, left : left + 12].transpose(2, 0, 1)
            np.testing.assert_allclose(stacks[index, 2 * k : 2 * k + 2], expected, atol=1e-3)


def test_a_batch_is_read_into_memory_that_is_given(
    raw_store: tuple[FlowStore, dict[str, dict[str, list[Field]]]],
) -> None:
    store, written = raw_store
    clips = [store[name] for name in NAMES]
    out = FlowBatch.empty([clip.size for clip in clips], 3)
    assert read_flow_batch(clips, [0, 1, 2], 3, out=out) is out
    check(out, written, None, list(zip(NAMES, [0, 1, 2], strict=True)), 3, "forward")
    others = [
        FlowBatch.empty([clip.size for clip in clips], 2),
        FlowBatch.empty([clip.size for clip in clips[::-1]], 3),
        FlowBatch.empty([clip.size for clip in clips], 3, means=False),
        FlowBatch.empty([clip.size for clip in clips], 3, camera=True),
        FlowBatch.empty([clip.size for clip in clips], 3, dtype=torch.float32),
        FlowBatch.empty([clip.size for clip in clips], 3, device="meta"),
    ]
    for other in others:
        with pytest.raises(ValueError, match="out must be a batch of codes with means, 3 of each of"):
            read_flow_batch(clips, [0, 1, 2], 3, out=other)


def test_what_cannot_be_asked_for(raw_store: tuple[FlowStore, dict[str, dict[str, list[Field]]]]) -> None:
    store, _ = raw_store
    clip = store["a/0"]
    with pytest.raises(SettingsError, match="threads is 0"):
        read_flow_batch([clip], [0], 2, threads=0)
    with pytest.raises(SettingsError, match="length is 3, expected an even number"):
        read_flow_batch([clip], [2], 3, direction="bidirectional")
    with pytest.raises(SettingsError, match=r"a/0.safetensors: has no sideways flow"):
        read_flow_batch([clip], [2], 3, direction="sideways")
    with pytest.raises(SettingsError, match=r"a/0.safetensors: has backward fields 1 to 6, asked for 2 from 0"):
        read_flow_batch([clip], [1], 4, direction="bidirectional")
    with pytest.raises(ValueError, match="shorter"):
        read_flow_batch([clip, clip], [0], 2)
    with pytest.raises(ValueError, match="sizes and length must be at least 1"):
        read_flow_batch([], [], 2)


def write_with_camera(path: Path, sides: tuple[int, int], count: int, seed: int) -> dict[str, np.ndarray]:
    """A clip with both directions and maps [count, 2, 3] that its fields do not follow; returns the maps."""
    random = np.random.default_rng(seed)
    coded, maps = {}, {}
    for direction in ("forward", "backward"):
        fields = QuantizedFlow(*map(np.stack, zip(*smooth_fields(count, size=sides, seed=seed), strict=True)))
        maps[direction] = random.normal(size=(count, 2, 3)).astype(np.float32)
        coded[direction] = code_flow(fields, codec="raw", camera=maps[direction])
    settings = FlowSettings("dis", None, "raw", None, ("forward", "backward"))
    write_coded_clip(path, coded, settings=settings, parameters={}, fps=25.0, source_size=None)
    return maps


every_direction = pytest.mark.parametrize("direction", ["forward", "backward", "bidirectional"])


@pytest.mark.parametrize("threads", [1, 3])
@every_direction
def test_the_stored_camera_motion_comes_with_each_field(tmp_path: Path, threads: int, direction: str) -> None:
    maps = {
        name: write_with_camera(tmp_path / f"{name}.safetensors", size, 7, seed)
        for seed, (name, size) in enumerate(zip(NAMES, SIZES, strict=True))
    }
    store = FlowStore.open(tmp_path)
    opened = {name: store[name] for name in NAMES}
    picks = [(name, start) for name in [*NAMES, "a/1", "a/1"] for start in (2, 3)]
    clips, starts = [opened[name] for name, _ in picks], [start for _, start in picks]
    batch = read_flow_batch(clips, starts, 4, direction=direction, threads=threads, camera=True)
    for index, (name, start) in enumerate(picks):
        expected = [maps[name][way][number - FIRST[way]] for way, number in numbers(start, 4, direction)]
        np.testing.assert_array_equal(batch.camera[index], expected)
        np.testing.assert_array_equal(opened[name].camera_motion(start, 4, direction), expected)
    assert read_flow_batch(clips, starts, 4, direction=direction).camera is None


@pytest.mark.parametrize("threads", [1, 3])
@every_direction
def test_where_no_camera_motion_is_stored_it_is_fitted_to_what_is_read(
    tmp_path: Path, threads: int, direction: str
) -> None:
    """As in stores that were written before it was kept, and in the trees of other tools."""
    write_store(tmp_path, NAMES, codec="jpeg", sizes=SIZES, count=7)
    store = FlowStore.open(tmp_path)
    opened = {name: store[name] for name in NAMES}
    picks = [(name, start) for name in [*NAMES, "a/1", "a/1"] for start in (2, 3)]
    clips, starts = [opened[name] for name, _ in picks], [start for _, start in picks]
    batch = read_flow_batch(clips, starts, 4, direction=direction, threads=threads, camera=True)
    assert torch.equal(batch.camera, ops.camera_motion(batch))
    for with_camera, without in zip(
        batch.fields, read_flow_batch(clips, starts, 4, direction=direction).fields, strict=True
    ):
        assert torch.equal(with_camera, without)


def test_a_clip_whose_camera_motion_is_not_of_its_fields_is_damaged(tmp_path: Path) -> None:
    fields = QuantizedFlow(*map(np.stack, zip(*smooth_fields(3), strict=True)))
    settings = FlowSettings("dis", None, "raw", None, ("forward",))
    path = tmp_path / "a.safetensors"
    for wrong in ((3, 2, 2), (2, 2, 3), (3, 6)):
        coded = code_flow(fields, codec="raw", camera=np.zeros(wrong, np.float32))
        write_coded_clip(path, {"forward": coded}, settings=settings, parameters={}, fps=25.0, source_size=None)
        with pytest.raises(FlowStoreError, match=r"a.safetensors: expected 3 forward fields"):
            read_flow_clip(path)


def read_in_child(root: Path, results: multiprocessing.Queue[list[int]]) -> None:
    store = FlowStore.open(root)
    batch = read_flow_batch([store[name] for name in NAMES], [0, 1, 2], 4, threads=3)
    results.put([int(field.numpy().sum()) for field in batch.fields])  # torch would wait for threads it lost


def test_a_forked_process_reads_by_threads_after_its_parent_did(tmp_path: Path) -> None:
    write_store(tmp_path, NAMES, codec="jpeg", sizes=((128, 176), (96, 200)))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    read_in_child(tmp_path, results)
    expected = results.get(timeout=30)
    children = [context.Process(target=read_in_child, args=(tmp_path, results)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [expected] * 2
    for child in children:
        child.join(30)
        assert child.exitcode == 0


def test_an_error_in_one_thread_is_the_error_of_the_call(tmp_path: Path) -> None:
    write_store(tmp_path, NAMES, codec="jpeg")
    store = FlowStore.open(tmp_path)
    clips = [store[name] for name in NAMES]
    path = tmp_path / "a" / "1.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    for threads in (1, 2, 7):
        with pytest.raises(FlowStoreError, match=r"a/1.safetensors: was changed while it was in use"):
            read_flow_batch(clips * 5, [0] * 15, 4, threads=threads)


DECODERS = [jpeg._decode_and_copy] + ([] if jpeg.simplejpeg is None else [jpeg._decode_in_place])


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_OPTIMIZE, 1]])
def test_each_decoder_gives_the_pixels_of_opencv(
    monkeypatch: pytest.MonkeyPatch, decode: Callable[..., bool], options: list[int]
) -> None:
    monkeypatch.setattr(jpeg, "_decode", decode)
    random = np.random.default_rng(0)
    for size in ((1, 1), (8, 8), (23, 41), (256, 340)):
        for shape in (size, (*size, 3)):
            picture = cv2.imencode(".jpg", random.integers(0, 256, shape, dtype=np.uint8), options)[1]
            assert jpeg.jpeg_size(picture) == size
            plane = np.empty(size, np.uint8)
            assert jpeg.decode_jpeg(picture, plane)
            np.testing.assert_array_equal(plane, cv2.imdecode(picture, cv2.IMREAD_GRAYSCALE))
            assert not jpeg.decode_jpeg(picture, np.empty((size[0], size[1] + 1), np.uint8))
            assert not jpeg.decode_jpeg(picture[: len(picture) // 3], np.empty((size[0] + 1, size[1]), np.uint8))


@given(st.binary(max_size=64))
def test_what_is_no_jpeg_has_no_size(data: bytes) -> None:
    for each in (data, b"\xff\xd8" + data):
        size = jpeg.jpeg_size(np.frombuffer(each, np.uint8))
        assert size is None or any(bytes([0xFF, marker]) in each for marker in range(0xC0, 0xD0))


def test_the_bounds_on_the_bytes_of_a_jpeg_hold() -> None:
    random = np.random.default_rng(1)
    for size in ((1, 1), (64, 64), (1000, 1200)):
        for picture in (np.full(size, 77, np.uint8), random.integers(0, 2, size, dtype=np.uint8) * 255):
            for quality in (1, 100):
                for progressive in (0, 1):
                    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
                    count = len(cv2.imencode(".jpg", picture, options)[1])
                    assert count <= jpeg.largest_jpeg(*size)
                    assert size[0] * size[1] <= jpeg.most_pixels(count)
