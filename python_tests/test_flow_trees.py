# SPDX-License-Identifier: BSD-3-Clause
"""Trees of JPEGs as other tools write them, with their quirks, read as a flow store."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from twostream_ext import ops
from twostream_ext.data import FlowStacks, UCFLists, Video, read_batches
from twostream_ext.errors import FlowStoreError, SettingsError
from twostream_ext.flow import FlowClip, FlowStore, read_flow_batch, write_flow_clip
from twostream_ext.flow.trees import find_tree

Flow = list[np.ndarray]  # [H, W, 2] each
Quantise = Callable[[np.ndarray, float], np.ndarray]


def rounded(flow: np.ndarray, bound: float) -> np.ndarray:
    """As the tools in C++ do; NumPy rounds halves to even too."""
    return np.rint(255 * (np.clip(flow, -bound, bound) + bound) / (2 * bound)).astype(np.uint8)


def truncated(flow: np.ndarray, bound: float) -> np.ndarray:
    return np.floor((np.clip(flow, -bound, bound) + bound) * (255 / (2 * bound))).astype(np.uint8)


def random_flow(count: int, *, size: tuple[int, int] = (24, 40), seed: int = 0, largest: float = 18.0) -> Flow:
    """Smooth fields; the left third of each stands still."""
    random = np.random.default_rng(seed)
    fields = []
    for _ in range(count):
        field = cv2.resize(random.uniform(-largest, largest, (3, 4, 2)), size[::-1], interpolation=cv2.INTER_LINEAR)
        field[:, : size[1] // 3] = 0
        fields.append(field)
    return fields


def save(path: Path, codes: np.ndarray, quality: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), codes, [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_flow_x(folder: Path, flow: Flow, *, start: int, images: int, bound: float = 20, backward: Flow = ()) -> None:
    """dense_flow numbers from 1 and has as many frames as fields; denseflow numbers from 0 and has one frame more."""
    for number, field in enumerate(flow, start):
        for axis, name in enumerate("xy"):
            save(folder / f"flow_{name}_{number:05d}.jpg", rounded(field[..., axis], bound))
    for number, field in enumerate(backward, start + 1):
        for axis, name in enumerate("xy"):
            save(folder / f"flow_{name}_m1_{number:05d}.jpg", rounded(field[..., axis], bound))
    for number in range(start, start + images):
        save(folder / f"img_{number:05d}.jpg", np.zeros((*flow[0].shape[:2], 3), np.uint8))


def write_x(folder: Path, flow: Flow, *, start: int = 1, bound: float = 20) -> None:
    for number, field in enumerate(flow, start):
        for axis, name in enumerate("xy"):
            save(folder / f"{name}_{number:05d}.jpg", truncated(field[..., axis], bound))


def write_u_and_v(root: Path, name: str, flow: Flow, *, ranges: bool = False, own: bool = False) -> None:
    noted = []
    for number, field in enumerate(flow, 1):
        for axis, folder in enumerate("uv"):
            low, high = (field[..., axis].min(), field[..., axis].max()) if own else (-20.0, 20.0)
            noted += [low, high]
            codes = np.rint(255 * (np.clip(field[..., axis], low, high) - low) / (high - low)).astype(np.uint8)
            save(root / folder / name / f"frame{number:06d}.jpg", codes)
    if ranges:
        (root / "u" / f"{name}.bin").write_bytes(np.array(noted, "<f4").tobytes())


def pixels(clip: FlowClip, start: int, length: int, direction: str = "forward") -> np.ndarray:
    fields = clip.read(start, length, direction)
    assert fields.codes.dtype == torch.uint8
    assert fields.codes.shape == (length, *clip.size, 2)
    return ops.dequantize_flow([fields.codes], fields.lo[None], fields.step[None])[0].numpy()


def check(clip: FlowClip, flow: Flow, *, tolerance: float, direction: str = "forward") -> None:
    """The flow that was written, within what its coding costs; what stands still stands exactly still."""
    first = int(direction == "backward")
    assert clip.length(direction) == len(flow) == clip.frame_count - 1
    for start, length in ((first, len(flow)), (first + len(flow) - 1, 1), (first + 1, 2)):
        read = pixels(clip, start, length, direction)
        expected = np.stack(flow[start - first : start - first + length])
        assert np.abs(read - expected).max() <= tolerance
        still = expected.shape[2] // 3 - 8  # blocks of a JPEG that hold no moving pixel
        assert (read[:, :, :still] == 0).all()
        means = clip.read(start, length, direction).mean
        np.testing.assert_allclose(means, read.mean((1, 2)), atol=1e-4)


STEP = 40 / 255


@pytest.mark.parametrize(("start", "images"), [(1, 5), (0, 6), (0, 5), (1, 0)])
@pytest.mark.parametrize("name", ["v_Biking_g01_c01", "Biking/v_Biking_g01_c01"])
def test_dense_flow_and_denseflow(tmp_path: Path, start: int, images: int, name: str) -> None:
    flow = random_flow(5)
    write_flow_x(tmp_path / name, flow, start=start, images=images)
    store = FlowStore.open(tmp_path)
    assert list(store) == [name]
    clip = store[name]
    assert isinstance(clip, FlowClip)
    assert (clip.name, clip.size, clip.source_size, clip.directions) == (name, (24, 40), (24, 40), ("forward",))
    assert store.settings == clip.settings
    assert math.isnan(clip.fps)
    check(clip, flow, tolerance=2.5 * STEP)
    codes = clip.read(2, 1).codes[0, ..., 1]
    written = cv2.imread(str(tmp_path / name / f"flow_y_{start + 2:05d}.jpg"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(codes, written)
    assert codes[3, 3] == 128


@pytest.mark.parametrize("start", [0, 1])
def test_backward_flow_of_denseflow(tmp_path: Path, start: int) -> None:
    """Its numbers are those of the frames it starts from."""
    forward, backward = random_flow(6), random_flow(6, seed=1)
    write_flow_x(tmp_path / "v", forward, start=start, images=7, backward=backward)
    clip = FlowStore.open(tmp_path)["v"]
    assert clip.directions == ("forward", "backward")
    check(clip, forward, tolerance=2.5 * STEP)
    check(clip, backward, tolerance=2.5 * STEP, direction="backward")
    batch = read_flow_batch([clip], [3], 6, direction="bidirectional", threads=2)
    stack = ops.dequantize_flow(batch.fields, batch.lo, batch.step)[0].numpy()
    expected = [*forward[3:6], backward[2], backward[1], backward[0]]  # d_3, d_4, d_5, b_3, b_2, b_1
    assert np.abs(stack - np.stack(expected)).max() <= 2.5 * STEP


@pytest.mark.parametrize("start", [0, 1])
def test_flow_extraction_of_mmaction2(tmp_path: Path, start: int) -> None:
    flow = random_flow(5)
    write_x(tmp_path / "Class" / "v", flow, start=start)
    clip = FlowStore.open(tmp_path)["Class/v"]
    assert clip.read(0, 1).codes[0, 3, 3].tolist() == [127, 127]
    check(clip, flow, tolerance=3.5 * STEP)


@pytest.mark.parametrize("ranges", [False, True])
def test_gpu_flow_of_feichtenhofer(tmp_path: Path, ranges: bool) -> None:
    flow = random_flow(5)
    write_u_and_v(tmp_path, "v_Biking_g01_c01", flow, ranges=ranges)
    store = FlowStore.open(tmp_path)
    assert list(store) == ["v_Biking_g01_c01"]
    check(store["v_Biking_g01_c01"], flow, tolerance=2.5 * STEP)


def test_gpu_flow_with_a_range_for_each_field(tmp_path: Path) -> None:
    flow = random_flow(5, largest=3.0)
    write_u_and_v(tmp_path, "v", flow, ranges=True, own=True)
    check(FlowStore.open(tmp_path)["v"], flow, tolerance=2.5 * 6 / 255)
    fixed = pixels(FlowStore.open(tmp_path, bound=20)["v"], 0, 5)  # who says a bound is believed
    assert np.abs(fixed - np.stack(flow)).max() > 5
    (tmp_path / "u" / "v.bin").write_bytes(b"\0" * 79)
    with pytest.raises(FlowStoreError, match=r"u/v.bin: has 79 bytes, expected 80 for 5 fields"):
        FlowStore.open(tmp_path)
    (tmp_path / "u" / "v.bin").write_bytes(np.full(20, np.nan, "<f4").tobytes())
    with pytest.raises(FlowStoreError, match=r"u/v.bin: does not hold ranges"):
        FlowStore.open(tmp_path)


@pytest.mark.parametrize("bound", [15, 20, 32])
@pytest.mark.parametrize("zero_code", [None, 127, 128])
def test_bound_and_zero_code_are_what_they_are_said_to_be(tmp_path: Path, bound: float, zero_code: int | None) -> None:
    """Against the arithmetic in 64 bits: half a step aside, the formula of the tool turned round."""
    flow = random_flow(3, largest=bound)
    write_flow_x(tmp_path / "v", flow, start=1, images=3, bound=bound)
    clip = FlowStore.open(tmp_path, bound=bound, zero_code=zero_code)["v"]
    codes = clip.read(0, 3).codes.numpy().astype(np.float64)
    expected = (codes - (128 if zero_code is None else zero_code)) * (2 * bound / 255)
    np.testing.assert_allclose(pixels(clip, 0, 3), expected, rtol=2e-5, atol=1e-6)
    turned_round = codes * 2 * bound / 255 - bound
    assert np.abs(pixels(clip, 0, 3) - turned_round).max() <= 0.51 * 2 * bound / 255
    every = torch.arange(256, dtype=torch.uint8)[None, None, :, None].expand(1, 1, 256, 2)
    lo, step = (table[:1][None] for table in clip.read(0, 1)[1:3])
    exact = (np.arange(256) - (zero_code or 128)) * float(step[0, 0, 0])
    np.testing.assert_array_equal(ops.dequantize_flow(every[None], lo, step)[0, 0, 0, :, 0].numpy(), exact)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": 0}, "bound is 0"),
        ({"bound": math.nan}, "bound is nan"),
        ({"bound": math.inf}, "bound is inf"),
        ({"zero_code": 256}, "zero_code is 256"),
        ({"zero_code": -1}, "zero_code is -1"),
    ],
)
def test_bounds_that_cannot_be(tmp_path: Path, options: dict[str, float], message: str) -> None:
    write_flow_x(tmp_path / "v", random_flow(2), start=1, images=0)
    with pytest.raises(SettingsError, match=message):
        FlowStore.open(tmp_path, **options)  # type: ignore[arg-type]


def test_a_store_of_ours_has_no_bound(tmp_path: Path) -> None:
    codes = np.zeros((8, 8, 2), np.uint8)
    write_flow_clip(tmp_path / "v.safetensors", forward=[ops.QuantizedFlow(codes, *np.zeros((3, 2), np.float32))])
    with pytest.raises(SettingsError, match="keeps the range of each field"):
        FlowStore.open(tmp_path, bound=20)
    assert find_tree(tmp_path) is None


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def resize(name: str) -> Callable[[Path], None]:
    return lambda root: save(root / name, np.zeros((24, 48), np.uint8))


def cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:length])


def fill(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(data)


def make_pipe(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).unlink()
        os.mkfifo(root / name)

    return change


def make_folder(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).unlink()
        (root / name).mkdir()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("b/flow_x_00003.jpg"), r"b/flow_x_00003.jpg: is missing; there are fields up to number 5"),
        (remove("b/flow_y_00003.jpg"), r"b/flow_y_00003.jpg: is missing"),
        (remove("b/flow_x_00001.jpg"), r"b/flow_x_00001.jpg: is missing"),
        (remove("b/flow_y_00005.jpg"), r"b/flow_y_00005.jpg: is missing"),
        (resize("b/flow_y_00002.jpg"), r"b/flow_y_00002.jpg: is of 48x24 pixels, others are of 40x24"),
        (cut("b/flow_y_00004.jpg", 400), r"b/flow_y_00004.jpg: is truncated or no JPEG"),
        (cut("b/flow_x_00004.jpg", 0), r"b/flow_x_00004.jpg: is truncated"),
        (cut("b/flow_x_00001.jpg", 0), r"b/flow_x_00001.jpg: is damaged or no JPEG"),
        (fill("b/flow_x_00002.jpg", b"no picture"), r"b/flow_x_00002.jpg: is truncated"),
        (fill("b/flow_x_00002.jpg", b"no picture\xff\xd9"), r"b/flow_x_00002.jpg: is truncated or no JPEG"),
        (fill("b/flow_x_00002.jpg", b"\0" * 200_000), r"b/flow_x_00002.jpg: is too large, 200000 bytes"),
        (make_pipe("b/flow_x_00002.jpg"), r"b/flow_x_00002.jpg: is not a regular file"),
        (make_folder("b/flow_x_00002.jpg"), r"b/flow_x_00002.jpg: is missing|is not a regular file"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    for name in "ab":
        write_flow_x(tmp_path / name, random_flow(5), start=1, images=5)
    change(tmp_path)
    store = FlowStore.open(tmp_path)
    assert list(store) == ["a", "b"]
    store["a"].read(0, 5)
    with pytest.raises(FlowStoreError, match=message) as caught:
        read_flow_batch([store["a"], store["b"]], [0, 0], 5, threads=2)
    assert "\n" not in str(caught.value)


def test_folders_without_flow_are_named(tmp_path: Path) -> None:
    write_flow_x(tmp_path / "A" / "v", random_flow(3), start=1, images=4)
    (tmp_path / "A" / "empty").mkdir()
    save(tmp_path / "A" / "frames" / "img_00001.jpg", np.zeros((8, 8, 3), np.uint8))
    store = FlowStore.open(tmp_path)
    assert list(store) == ["A/v"]
    for name in ("A/empty", "A/frames"):
        assert name not in store
        with pytest.raises(FlowStoreError, match=f"{name}: holds no flow; looked for <video>/flow_x_00001.jpg"):
            store[name]
    with pytest.raises(FlowStoreError, match="holds no video 'A/w'"):
        store["A/w"]


def test_one_half_of_a_tree_of_u_and_v(tmp_path: Path) -> None:
    write_u_and_v(tmp_path, "a", random_flow(3))
    write_u_and_v(tmp_path, "b", random_flow(3))
    for file in (tmp_path / "v" / "b").iterdir():
        file.unlink()
    store = FlowStore.open(tmp_path)
    with pytest.raises(FlowStoreError, match=r"v/b/frame000001.jpg: is missing"):
        store["b"]
    (tmp_path / "v" / "b").rmdir()
    with pytest.raises(FlowStoreError, match=r"v/b: cannot be read: No such file"):
        FlowStore.open(tmp_path)["b"]


def test_a_tree_that_is_no_flow_or_several_kinds_of_it(tmp_path: Path) -> None:
    save(tmp_path / "v" / "frame_0001.jpg", np.zeros((8, 8), np.uint8))
    save(tmp_path / "w" / "frame000001.jpg", np.zeros((8, 8), np.uint8))  # of neither u nor v
    with pytest.raises(FlowStoreError) as caught:
        FlowStore.open(tmp_path)
    for each in ("<video>.safetensors", "flow_x_00001.jpg", "<video>/x_00001.jpg", "u/<video>/frame000001.jpg"):
        assert each in str(caught.value)
    write_flow_x(tmp_path / "w", random_flow(1), start=1, images=0)
    write_x(tmp_path / "x", random_flow(1))
    with pytest.raises(FlowStoreError, match=r"several layouts: w/flow_[xy]_00001.jpg, x/[xy]_00001.jpg; open one"):
        FlowStore.open(tmp_path)
    write_x(tmp_path / "w", random_flow(1))
    with pytest.raises(FlowStoreError, match=r"w: holds flow of several layouts"):
        FlowStore.open(tmp_path / "w")


def test_names_of_lists_find_the_videos_of_a_flat_tree(tmp_path: Path) -> None:
    """UCF-101's lists have class folders, and capitals of their own in one class."""
    for name in ("v_HandstandPushups_g01_c01", "v_Biking_g01_c01"):
        write_flow_x(tmp_path / name, random_flow(2), start=1, images=0)
    store = FlowStore.open(tmp_path)
    assert store["Biking/v_Biking_g01_c01"].name == "v_Biking_g01_c01"
    assert store["HandstandPushups/v_HandStandPushups_g01_c01"].name == "v_HandstandPushups_g01_c01"
    assert "Biking/v_Biking_g01_c02" not in store
    write_flow_x(tmp_path / "sub" / "Same", random_flow(2), start=1, images=0)
    write_flow_x(tmp_path / "sub" / "same", random_flow(2), start=1, images=0)
    store = FlowStore.open(tmp_path)
    assert store["sub/same"].name == "sub/same"
    for name in ("sub/SAME", "other/same"):
        with pytest.raises(FlowStoreError, match="holds no video"):
            store[name]


def test_links_that_lead_back_do_not_hang(tmp_path: Path) -> None:
    write_flow_x(tmp_path / "A" / "v", random_flow(2), start=1, images=0)
    (tmp_path / "A" / "back").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "B").symlink_to(tmp_path / "A", target_is_directory=True)
    store = FlowStore.open(tmp_path)
    assert list(store) == ["A/v"]
    assert store["B/v"].frame_count == store["A/v"].frame_count


def test_nothing_is_written_into_a_tree(tmp_path: Path) -> None:
    write_flow_x(tmp_path / "v", random_flow(3), start=1, images=4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for path in [*before, tmp_path]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        FlowStore.open(tmp_path)["v"].read(0, 3)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    finally:
        for path in [tmp_path, *before]:
            path.chmod(0o755)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_of_a_tree(tmp_path: Path, workers: int) -> None:
    videos = []
    for label, name in enumerate(("A", "B")):
        for number, size in enumerate(((24, 40), (32, 24))):
            video = f"v_{name}_g0{number + 1}_c01"
            write_flow_x(tmp_path / "flow" / video, random_flow(8, size=size, seed=number), start=1, images=8)
            videos.append(Video(f"{name}/{video}.avi", f"{name}/{video}", label))
    store = FlowStore.open(tmp_path / "flow")
    batches = list(read_batches(store, videos, FlowStacks(4), batch_size=3, iterations=3, seed=0, workers=workers))
    assert len(batches) == 3
    for item, _ in batches:
        assert item.lo.shape == item.step.shape == item.mean.shape == (3, 4, 2)
        assert {tuple(flow.shape) for flow in item.fields} <= {(4, 24, 40, 2), (4, 32, 24, 2)}
        fields = ops.dequantize_flow(item.fields, item.lo, item.step)
        for field, mean in zip(fields, item.mean, strict=True):
            torch.testing.assert_close(field.mean((1, 2)), mean, atol=1e-4, rtol=0)


def test_data_sets_take_a_tree_or_a_store(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 A\n")
    (lists / "trainlist01.txt").write_text("A/v_A_g08_c01.avi 1\n")
    (lists / "testlist01.txt").write_text("A/v_A_g01_c01.avi\n")
    for group in ("g08", "g01"):
        (tmp_path / "videos" / "A").mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / "A" / f"v_A_{group}_c01.avi").touch()
        write_flow_x(tmp_path / "flow" / f"v_A_{group}_c01", random_flow(3), start=1, images=3)
    for flow in (tmp_path / "flow", FlowStore.open(tmp_path / "flow", bound=32)):
        data = UCFLists(tmp_path / "videos", lists, flow=flow)
        clip = data.train.flow_store()[data.train.videos[0].name]
        bound = 32 if isinstance(flow, FlowStore) else 20
        assert clip.read(0, 1).step[0, 0].item() == pytest.approx(2 * bound / 255, rel=2e-5)


def test_a_real_folder(shared_data: Path) -> None:
    """Ten frames and five fields, as MMAction2's own tests have them."""
    sample = shared_data / "tsn-flow-images"
    if not sample.is_dir():
        pytest.skip("the sample is not there")
    store = FlowStore.open(sample)
    assert list(store) == ["tsn-flow-images"]
    clip = store["tsn-flow-images"]
    assert (clip.frame_count, clip.size, clip.directions) == (6, (240, 320), ("forward",))
    codes = clip.read(1, 3).codes
    for k in range(3):
        for axis, name in enumerate("xy"):
            expected = cv2.imread(str(sample / f"{name}_{k + 2:05d}.jpg"), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(codes[k, ..., axis], expected)
    flow = pixels(clip, 0, 5)
    assert np.abs(flow).max() <= 20.1
    assert (np.abs(flow[1]) < 0.2).mean() > 0.9  # the camera stands still in the second
