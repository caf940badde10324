# SPDX-License-Identifier: BSD-3-Clause
"""Flow and frame stores: what is written comes back, and damage is found."""

from __future__ import annotations

import pickle
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from stores import smooth_fields, write_store
from videos import moving_frames

from twostream_ext.errors import FlowStoreError, SettingsError
from twostream_ext.flow import FlowSettings, FlowStore, read_flow_clip, write_flow_clip
from twostream_ext.media import FrameStore, write_frame_clip
from twostream_ext.media.container import open_container, write_container
from twostream_ext.media.directory import claim_directory


def pixels(codes: object, lo: object, step: object) -> np.ndarray:
    lo, step = (np.asarray(part, np.float64) for part in (lo, step))
    return lo[..., None, None, :] + step[..., None, None, :] * np.asarray(codes, np.float64)


@pytest.mark.parametrize(("codec", "tolerance"), [("raw", 0), ("jpeg", 12)])
def test_fields_come_back(tmp_path: Path, codec: str, tolerance: int) -> None:
    name = "Class/v_x"
    written = write_store(tmp_path, [name], codec=codec)[name]
    clip = FlowStore.open(tmp_path)[name]
    assert (clip.name, clip.frame_count, clip.size) == (name, 7, (24, 40))
    assert clip.directions == ("forward", "backward")
    assert clip.length() == clip.length("backward") == 6
    for first, (direction, fields) in enumerate(written.items()):
        for start, length in ((first, 6), (first + 2, 3), (first + 5, 1)):
            read = clip.read(start, length, direction)
            expected = fields[start - first : start - first + length]
            assert read.codes.dtype == torch.uint8
            assert read.codes.shape == (length, 24, 40, 2)
            assert read.codes.permute(0, 3, 1, 2).is_contiguous()
            difference = read.codes.numpy().astype(int) - np.stack([f.codes for f in expected])
            assert np.abs(difference).max() <= tolerance
            for part, name_of_part in zip(read[1:], ("lo", "step", "mean"), strict=True):
                assert part.dtype == torch.float32
                reference = np.stack([getattr(field, name_of_part) for field in expected])
                np.testing.assert_array_equal(part.numpy(), reference)


def test_quality_costs_bytes_and_buys_accuracy(tmp_path: Path) -> None:
    fields = smooth_fields(4, size=(64, 80))
    sizes, errors = [], []
    for quality in (30, 95):
        path = tmp_path / f"{quality}.safetensors"
        write_flow_clip(path, forward=fields, quality=quality)
        read = read_flow_clip(path).read(0, 4)
        reference = np.stack([pixels(field.codes, field.lo, field.step) for field in fields])
        errors.append(np.abs(pixels(read.codes, read.lo, read.step) - reference).mean())
        sizes.append(path.stat().st_size)
    assert sizes[0] < sizes[1]
    assert errors[0] > errors[1]


def test_what_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "Class" / "v_x.safetensors"
    write_flow_clip(
        path,
        forward=smooth_fields(3),
        quality=85,
        method="farneback",
        parameters={"levels": 3},
        smallest_side=24,
        fps=29.97,
        source_size=(240, 400),
    )
    store = FlowStore.open(tmp_path)
    clip = store["Class/v_x"]
    assert clip.settings == store.settings == FlowSettings("farneback", 24, "jpeg", 85, ("forward",))
    assert (clip.fps, clip.source_size, clip.frame_count) == (29.97, (240, 400), 4)
    assert clip.metadata["parameters"] == {"levels": 3}


def test_any_reader_of_safetensors_can_read_it(tmp_path: Path) -> None:
    fields = smooth_fields(3)
    path = tmp_path / "x.safetensors"
    write_flow_clip(path, forward=fields)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert set(metadata) == {"kind", "format", "description", "checksum"}
    assert tensors["forward.lo"].dtype == np.float32
    begin, end = tensors["forward.offsets"][2:4]
    plane = cv2.imdecode(tensors["forward.bytes"][begin:end], cv2.IMREAD_GRAYSCALE)
    np.testing.assert_allclose(plane, fields[1].codes[..., 0], atol=12)
    np.testing.assert_array_equal(tensors["forward.mean"][2], fields[2].mean)


def test_only_the_fields_asked_for_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_flow_clip(path, forward=smooth_fields(4))
    whole = open_container(path, "flow")
    offsets = whole.arrays["forward.offsets"]
    data = path.read_bytes()[whole.positions["forward"] :]
    planes = [data[a:b] for a, b in pairwise(offsets)]
    planes[2 * 2] = b"no picture"
    arrays = {name: array for name, array in whole.arrays.items() if "offsets" not in name}
    write_container(path, "flow", whole.description, arrays, {"forward": planes})
    clip = read_flow_clip(path)
    clip.read(0, 2)
    clip.read(3, 1)
    with pytest.raises(FlowStoreError, match=r"x.safetensors: a plane cannot be decoded"):
        clip.read(1, 2)


@pytest.mark.parametrize(
    ("start", "length", "direction", "message"),
    [
        (0, 7, "forward", r"v.safetensors: has forward fields 0 to 5, asked for 7 from 0"),
        (-1, 2, "forward", r"asked for 2 from -1"),
        (6, 1, "forward", r"asked for 1 from 6"),
        (0, 0, "forward", r"asked for 0 from 0"),
        (0, 1, "backward", r"has no backward flow; extract it with backward=True"),
        (0, 1, "sideways", r"has no sideways flow"),
    ],
)
def test_fields_that_are_not_there(tmp_path: Path, start: int, length: int, direction: str, message: str) -> None:
    write_flow_clip(tmp_path / "v.safetensors", forward=smooth_fields(6))
    with pytest.raises(SettingsError, match=message):
        FlowStore.open(tmp_path)["v"].read(start, length, direction)


@pytest.fixture(scope="module")
def written_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "v.safetensors"
    write_flow_clip(path, forward=smooth_fields(3, size=(8, 12)))
    return path


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(written_once: Path, place: int, bit: int) -> None:
    data = bytearray(written_once.read_bytes())
    data[place % len(data)] ^= 1 << bit
    check_damage(written_once.with_name("flipped.safetensors"), bytes(data))


@given(length=st.integers(0, 10_000))
def test_a_truncated_file_is_found(written_once: Path, length: int) -> None:
    data = written_once.read_bytes()
    check_damage(written_once.with_name("cut.safetensors"), data[: length % len(data)])


@pytest.mark.parametrize("tail", [b"\0", b"x" * 1000])
def test_a_longer_file_is_found(written_once: Path, tail: bytes) -> None:
    check_damage(written_once.with_name("long.safetensors"), written_once.read_bytes() + tail)


@given(garbage=st.binary(max_size=200))
def test_garbage_is_found(written_once: Path, garbage: bytes) -> None:
    check_damage(written_once.with_name("garbage.safetensors"), garbage)
    header = len(garbage).to_bytes(8, "little") + garbage
    check_damage(written_once.with_name("garbage.safetensors"), header)


def check_damage(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(FlowStoreError) as caught:
        read_flow_clip(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}",
        b'{"__metadata__":3}',
        b'{"__metadata__":{},"a":{"dtype":"F99","shape":[0],"data_offsets":[0,0]}}',
        b'{"__metadata__":{},"a":{"dtype":"U8","shape":["x"],"data_offsets":[0,0]}}',
        b'{"__metadata__":{},"a":{"dtype":"U8","shape":[0],"data_offsets":[]}}',
        b'{"__metadata__":{},"a":{"dtype":"U8","shape":[9],"data_offsets":[-9,0]}}',
        b'{"__metadata__":{"kind":"flow","format":"1","description":"{}"}}',
        b"[" * 100_000,
    ],
)
def test_crafted_headers(tmp_path: Path, header: bytes) -> None:
    check_damage(tmp_path / "x.safetensors", len(header).to_bytes(8, "little") + header)


def test_file_of_another_kind_or_version(tmp_path: Path) -> None:
    frames = tmp_path / "x.safetensors"
    write_frame_clip(frames, moving_frames(2))
    with pytest.raises(FlowStoreError, match=r"x.safetensors: holds 'frames', expected 'flow'"):
        read_flow_clip(frames)
    write_container(frames, "flow", {"frame_count": 2}, {}, {})
    with pytest.raises(FlowStoreError, match=r"x.safetensors: the description lacks 'method'"):
        read_flow_clip(frames)
    with pytest.raises(FlowStoreError, match=r"y.safetensors: cannot be read: No such file"):
        read_flow_clip(tmp_path / "y.safetensors")


def test_a_clip_whose_arrays_do_not_fit(written_once: Path, tmp_path: Path) -> None:
    whole = open_container(written_once, "flow")
    arrays = {name: array[:-1] for name, array in whole.arrays.items() if "offsets" not in name}
    path = tmp_path / "x.safetensors"
    write_container(path, "flow", whole.description, arrays, {"forward": [b"a"] * 6})
    with pytest.raises(FlowStoreError, match=r"x.safetensors: expected 3 forward fields"):
        read_flow_clip(path)


def test_store_is_a_collection_of_names(tmp_path: Path) -> None:
    names = ["B/v.with.dots", "A/v_!#&()+;@[] ~", "flat"]
    write_store(tmp_path, names, count=1)
    (tmp_path / "A" / ".v.safetensors.123.tmp").write_bytes(b"left by a killed run")
    (tmp_path / "A" / "._flat.safetensors").write_bytes(b"left by macOS")
    (tmp_path / "notes.txt").write_text("")
    store = FlowStore.open(tmp_path)
    assert list(store) == sorted(names)
    assert len(store) == 3
    assert "B/v.with.dots" in store
    assert "B/v" not in store
    assert store["flat"].name == "flat"
    with pytest.raises(FlowStoreError, match="holds no video 'B/v'"):
        store["B/v"]


def test_no_store(tmp_path: Path) -> None:
    for kind in (FlowStore, FrameStore):
        with pytest.raises(FlowStoreError, match="nowhere: no such directory"):
            kind.open(tmp_path / "nowhere")
        with pytest.raises(FlowStoreError, match=r"holds no (flow|frames) files"):
            kind.open(tmp_path)


def test_settings_of_a_store(tmp_path: Path) -> None:
    write_store(tmp_path, ["v"])
    settings = FlowSettings("dis", None, "raw", None, ("forward", "backward"))
    claim_directory(tmp_path, "flow", settings)
    store = FlowStore.open(tmp_path)
    assert store.settings == settings
    with pytest.raises(SettingsError, match=r"made with directions forward and backward, not"):
        claim_directory(tmp_path, "flow", replace(settings, directions=("forward",)))
    with pytest.raises(SettingsError, match=r"was made with kind flow, not frames"):
        claim_directory(tmp_path, "frames", settings)
    for text in ("{", "3", '{"method": "dis"}'):
        (tmp_path / "store.json").write_text(text)
        with pytest.raises(FlowStoreError, match=r"store.json: "):
            FlowStore.open(tmp_path)


def test_opening_a_large_store_reads_no_clip(tmp_path: Path) -> None:
    """1,000 names, of which only one is a whole file."""
    for index in range(10):
        (tmp_path / f"C{index:02d}").mkdir()
        for video in range(100):
            (tmp_path / f"C{index:02d}" / f"v{video:02d}.safetensors").touch()
    write_flow_clip(tmp_path / "C00" / "v00.safetensors", forward=smooth_fields(1))
    start = time.perf_counter()
    store = FlowStore.open(tmp_path)
    assert time.perf_counter() - start < 1
    assert len(store) == 1000
    assert store["C00/v00"].frame_count == 2
    with pytest.raises(FlowStoreError, match=r"C09/v99.safetensors: is truncated"):
        store["C09/v99"]


def test_clips_hold_no_file_open(tmp_path: Path) -> None:
    write_store(tmp_path, ["v"])
    store = FlowStore.open(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        clips = [store["v"] for _ in range(600)]
        for clip in clips:
            clip.read(0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_damage_after_opening_is_found(tmp_path: Path) -> None:
    write_store(tmp_path, ["v"])
    store = FlowStore.open(tmp_path)
    clip = store["v"]
    path = tmp_path / "v.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(FlowStoreError, match=r"v.safetensors: was changed while it was in use"):
        clip.read(0, 1)
    with pytest.raises(FlowStoreError, match=r"v.safetensors: is damaged: its checksum is"):
        store["v"]
    assert store.peek("v").frame_count == 7
    path.unlink()
    with pytest.raises(FlowStoreError, match=r"v.safetensors: cannot be read"):
        clip.read(0, 1)


def test_many_threads_and_other_processes(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    written = write_store(tmp_path, names)
    store = FlowStore.open(tmp_path)
    copy = pickle.loads(pickle.dumps(store))

    def read(index: int) -> bool:
        name, start = names[index % 3], index % 5
        fields = (store if index % 2 else copy)[name].read(start, 2)
        expected = np.stack([field.codes for field in written[name]["forward"][start : start + 2]])
        return bool((fields.codes.numpy() == expected).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))


def test_wrong_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    small, large = smooth_fields(2), smooth_fields(2, size=(24, 48))
    with pytest.raises(ValueError, match="fields of one size are expected"):
        write_flow_clip(path, forward=[*small, *large])
    with pytest.raises(ValueError, match="as many fields each way"):
        write_flow_clip(path, forward=small, backward=small[:1])
    with pytest.raises(ValueError, match=r"codes are float64 .*, expected uint8 \[H, W, 2\]"):
        write_flow_clip(path, forward=[small[0]._replace(codes=np.zeros((4, 4, 2)))])
    with pytest.raises(SettingsError, match="quality is 101"):
        write_flow_clip(path, forward=small, quality=101)
    with pytest.raises(SettingsError, match=r"codec is 'png', expected one of jpeg, raw"):
        write_flow_clip(path, forward=small, codec="png")
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_flow_clip(tmp_path / "x.safetensors", forward=smooth_fields(5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_frames_come_back(tmp_path: Path) -> None:
    frames = moving_frames(5, size=(40, 56))
    write_frame_clip(tmp_path / "A" / "v.safetensors", frames, quality=95, fps=12.5)
    store = FrameStore.open(tmp_path)
    clip = store["A/v"]
    assert (len(clip), clip.size, clip.fps, clip.source_size) == (5, (40, 56), 12.5, (40, 56))
    for index in (4, 0, 2):
        frame = clip.read(index)
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(float) - frames[index]).mean() < 8
        wrong = np.abs(frame.astype(float) - frames[index][..., ::-1]).mean()
        assert wrong > 10  # red and blue are where they were
        torch.from_numpy(frame)[0] = 0  # can be written to, without a warning
    for index in (-1, 5):
        with pytest.raises(IndexError, match=f"frame {index} of 5"):
            clip.read(index)


def test_damaged_frames(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    write_frame_clip(path, moving_frames(3))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(FlowStoreError, match=r"v.safetensors: is damaged"):
        FrameStore.open(tmp_path)["v"]
    description = {"fps": 25, "size": [48, 64], "source_size": [48, 64]}
    write_container(path, "frames", description, {}, {"frames": [b"no picture"]})
    with pytest.raises(FlowStoreError, match=r"v.safetensors: frame 0 cannot be decoded"):
        FrameStore.open(tmp_path)["v"].read(0)
    with pytest.raises(ValueError, match="frames of one size"):
        write_frame_clip(path, moving_frames(1) + moving_frames(1, size=(48, 80)))
