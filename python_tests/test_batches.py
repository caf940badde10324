# SPDX-License-Identifier: BSD-3-Clause
"""Training batches: right fields, same draws whatever the workers, and clean ends."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from twostream_ext.data import BatchPlan, FlowStacks, FrameRuns, Video, class_uniform_draws, read_batches
from twostream_ext.errors import FlowStoreError, SettingsError
from twostream_ext.flow import FlowStore, write_flow_clip
from twostream_ext.media import FrameBatch, FrameStore, write_frame_clip
from twostream_ext.ops import FlowBatch, QuantizedFlow

SIZES = {"a/0": (16, 24), "a/1": (20, 16), "b/2": (17, 31), "c/3": (16, 16)}
FRAMES = {"a/0": 7, "a/1": 9, "b/2": 20, "c/3": 8}
VIDEOS = [Video(f"{name}.avi", name, "abc".index(name[0])) for name in SIZES]


def field(video: int, direction: int, number: int, size: tuple[int, int]) -> QuantizedFlow:
    """One field, coded so that its place can be told from its pixels and from its numbers."""
    codes = np.zeros((*size, 2), np.uint8)
    codes[..., 0], codes[..., 1] = number, 100 * direction + video
    codes[0, 0] = size
    mark = np.array([number, 10 * direction + video], np.float32)
    return QuantizedFlow(codes, mark, mark + 0.25, mark + 0.5)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def flow_store(tmp_path_factory: pytest.TempPathFactory) -> FlowStore:
    root = tmp_path_factory.mktemp("flow")
    for index, (name, size) in enumerate(SIZES.items()):
        numbers = range(FRAMES[name])
        write_flow_clip(
            root / f"{name}.safetensors",
            forward=[field(index, 0, number, size) for number in numbers[:-1]],
            backward=[field(index, 1, number, size) for number in numbers[1:]],
            codec="raw",
        )
    return FlowStore.open(root)


@pytest.fixture(scope="module")
def frame_store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    root = tmp_path_factory.mktemp("frames")
    for index, (name, size) in enumerate(SIZES.items()):
        frames = [np.full((*size, 3), (10 * number, 40 * index, 100), np.uint8) for number in range(FRAMES[name])]
        write_frame_clip(root / f"{name}.safetensors", frames, quality=100)
    return FrameStore.open(root)


FlowItem = tuple[FlowBatch, torch.Tensor]
FrameItem = tuple[FrameBatch, torch.Tensor]


def same(one: FlowItem | FrameItem, other: FlowItem | FrameItem) -> bool:
    (batch, labels), (other_batch, other_labels) = one, other
    alike = batch.sizes == other_batch.sizes and torch.equal(labels, other_labels)
    return alike and torch.equal(contents(batch), contents(other_batch))


def contents(batch: FlowBatch | FrameBatch) -> torch.Tensor:
    """All bytes of a batch but those between its parts."""
    parts = [*batch.fields, batch.lo, batch.step, batch.mean] if isinstance(batch, FlowBatch) else batch.frames
    return torch.cat([part.contiguous().flatten().view(torch.uint8) for part in parts])


@pytest.mark.parametrize("workers", [0, 2])
def test_stacks_are_the_fields_drawn(flow_store: FlowStore, workers: int) -> None:
    length = 4
    batches = list(
        read_batches(
            flow_store,
            VIDEOS,
            FlowStacks(length),
            batch_size=5,
            iterations=12,
            start_iteration=2,
            seed=3,
            workers=workers,
        )
    )
    assert len(batches) == 10
    for iteration, (item, labels) in enumerate(batches, 2):
        draws = class_uniform_draws([video.label for video in VIDEOS], 3, iteration, 5)
        assert labels.dtype == torch.int64
        assert labels.tolist() == [VIDEOS[video].label for video, _ in draws]
        assert item.lo.shape == item.step.shape == item.mean.shape == (5, length, 2)
        for sample, (video, position) in enumerate(draws):
            name = VIDEOS[video].name
            start = int(position * (FRAMES[name] - length))
            numbers = list(range(start, start + length))
            flow = item.fields[sample]
            assert flow.dtype == torch.uint8
            assert flow.shape == (length, *SIZES[name], 2)
            assert flow.permute(0, 3, 1, 2).is_contiguous()
            assert flow[:, 1, 1, 0].tolist() == numbers
            assert flow[:, 1, 1, 1].tolist() == [video] * length
            assert flow[:, 0, 0].tolist() == [list(SIZES[name])] * length
            assert item.lo[sample].tolist() == [[number, video] for number in numbers]
            assert torch.equal(item.step, item.lo + 0.25)
            assert torch.equal(item.mean, item.lo + 0.5)


def test_bidirectional_stacks(flow_store: FlowStore) -> None:
    """d_tau, d_tau+1, d_tau+2, then b_tau, b_tau-1, b_tau-2 (nearest first)."""
    seen = set()
    stacks = FlowStacks(6, bidirectional=True)
    for item, _ in read_batches(flow_store, VIDEOS[:1], stacks, batch_size=4, iterations=3, seed=0, workers=0):
        for flow, lo in zip(item.fields, item.lo, strict=True):
            tau = int(lo[0, 0])
            assert lo[:, 0].tolist() == [tau, tau + 1, tau + 2, tau, tau - 1, tau - 2]
            assert lo[:, 1].tolist() == [0, 0, 0, 10, 10, 10]
            assert flow[:, 1, 1, 0].tolist() == lo[:, 0].tolist()
            assert flow[:, 1, 1, 1].tolist() == [0, 0, 0, 100, 100, 100]
            seen.add(tau)
    assert seen == {3}  # 7 frames leave one place


def test_every_start_is_drawn(flow_store: FlowStore) -> None:
    for bidirectional, expected in ((False, set(range(5))), (True, set(range(2, 7)))):
        starts = set()
        stacks = FlowStacks(4, bidirectional)
        for item, _ in read_batches(flow_store, VIDEOS[1:2], stacks, batch_size=16, iterations=6, seed=1, workers=0):
            starts |= {int(lo[0, 0]) for lo in item.lo}
        assert starts == expected


def test_frames(frame_store: FrameStore) -> None:
    numbers = {"batch_size": 6, "iterations": 8, "start_iteration": 1, "seed": 4, "workers": 1}
    batches = list(read_batches(frame_store, VIDEOS, FrameRuns(), **numbers))
    assert len(batches) == 7
    for iteration, (item, labels) in enumerate(batches, 1):
        draws = class_uniform_draws([video.label for video in VIDEOS], 4, iteration, 6)
        assert labels.tolist() == [VIDEOS[video].label for video, _ in draws]
        for frame, (video, position) in zip(item.frames, draws, strict=True):
            name = VIDEOS[video].name
            assert frame.dtype == torch.uint8
            assert frame.shape == (*SIZES[name], 3)
            colour = (10 * int(position * FRAMES[name]), 40 * video, 100)
            assert np.abs(frame.numpy().astype(int) - colour).max() <= 4


def test_runs_of_frames(frame_store: FrameStore) -> None:
    starts = set()
    for item, _ in read_batches(frame_store, VIDEOS[:1], FrameRuns(5), batch_size=8, iterations=3, seed=4, workers=1):
        assert item.sizes == (SIZES["a/0"],) * 8
        for sample in range(8):
            colours = [round(frame[..., 0].double().mean().item() / 10) for frame in item.frames[5 * sample :][:5]]
            assert colours == list(range(colours[0], colours[0] + 5))
            starts.add(colours[0])
    assert starts == {0, 1, 2}  # of 7 frames
    with pytest.raises(SettingsError, match="a/0: has 7 frames, expected at least 8"):
        read_batches(frame_store, VIDEOS, FrameRuns(8), batch_size=1, iterations=1, seed=0, workers=0)


def test_batches_depend_on_seed_and_iteration_alone(flow_store: FlowStore, frame_store: FrameStore) -> None:
    def flow(workers: int, seed: int = 7, start: int = 0) -> list[FlowItem]:
        return list(
            read_batches(
                flow_store,
                VIDEOS,
                FlowStacks(5),
                batch_size=3,
                iterations=6,
                start_iteration=start,
                seed=seed,
                workers=workers,
            )
        )

    def frames(workers: int) -> list[FrameItem]:
        return list(read_batches(frame_store, VIDEOS, FrameRuns(), batch_size=3, iterations=6, seed=7, workers=workers))

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    alone = flow(0)
    torch.manual_seed(2)
    for other in (flow(1), flow(2)):
        assert all(map(same, alone, other))
    assert all(map(same, alone[4:], flow(2, start=4)))
    assert not all(map(same, alone, flow(0, seed=8)))
    assert all(map(same, frames(0), frames(2)))
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_callers_random_state_is_left(flow_store: FlowStore) -> None:
    before = torch.random.get_rng_state()
    for workers in (0, 1):
        next(stream(flow_store, workers=workers))
    assert torch.equal(torch.random.get_rng_state(), before)


def stream(store: FlowStore, *, length: int = 4, bidirectional: bool = False, **changes: int) -> Generator[FlowItem]:
    options = {"batch_size": 2, "iterations": 1000, "seed": 0, "workers": 0, **changes}
    return read_batches(store, VIDEOS, FlowStacks(length, bidirectional), **options)  # type: ignore[arg-type,return-value]


def test_early_end_leaves_no_process(flow_store: FlowStore) -> None:
    batches = stream(flow_store, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()
    other = stream(flow_store, workers=1)
    next(other)
    del other
    assert not multiprocessing.active_children()


def test_a_worker_needs_few_open_files(flow_store: FlowStore) -> None:
    """One for the shared memory of each batch at hand, however many stacks it has."""
    batches = stream(flow_store, workers=1, batch_size=200)
    next(batches)
    held = [next(batches) for _ in range(5)]
    assert len(list(Path("/proc/self/fd").iterdir())) < 200
    assert len({flow.untyped_storage().data_ptr() for flow in held[0][0].fields}) == 1


def test_no_iterations_left(flow_store: FlowStore) -> None:
    assert not list(stream(flow_store, iterations=3, start_iteration=3))
    assert not list(stream(flow_store, iterations=3, start_iteration=5, workers=1))


def test_stores_of_jpegs_are_read_by_workers_after_the_parent(tmp_path: Path) -> None:
    """OpenCV, once used with threads in the parent, must not hang in the children."""
    size = (128, 176)
    write_flow_clip(tmp_path / "a/0.safetensors", forward=[field(0, 0, number, size) for number in range(8)])
    store = FlowStore.open(tmp_path)
    options = {"batch_size": 4, "iterations": 4, "seed": 0}
    alone = list(read_batches(store, VIDEOS[:1], FlowStacks(4), workers=0, **options))  # type: ignore[arg-type]
    others = list(read_batches(store, VIDEOS[:1], FlowStacks(4), workers=2, **options))  # type: ignore[arg-type]
    assert all(map(same, alone, others))


def test_readers_can_be_sent_to_spawned_processes(flow_store: FlowStore) -> None:
    from twostream_ext.data.batches import _PieceReader
    from twostream_ext.data.sampling import order_by_class

    by_class = order_by_class([video.label for video in VIDEOS])
    read = _PieceReader(flow_store, VIDEOS, by_class, BatchPlan(2, 0), FlowStacks(4), threads=2)
    copy = pickle.loads(pickle.dumps(read))
    (one, labels), (other, same_labels) = read(3), copy(3)
    assert labels == same_labels
    assert all(torch.equal(a, b) for a, b in zip(one.fields, other.fields, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length is 0, expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"length": 3, "bidirectional": True}, "length is 3, expected an even number"),
        ({"length": 7}, r"a/0: has 7 frames, a stack of 7 flow fields needs 8"),
        ({"length": 8, "bidirectional": True}, r"a/0: has 7 frames, .* 8 flow fields needs 9"),
    ],
)
def test_wrong_settings(flow_store: FlowStore, changes: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        stream(flow_store, **changes)


def test_no_videos_and_no_backward_flow(flow_store: FlowStore, frame_store: FrameStore, tmp_path: Path) -> None:
    with pytest.raises(FlowStoreError, match="holds no video 'z/9'"):
        read_batches(frame_store, [Video("", "z/9", 0)], FrameRuns(), batch_size=1, iterations=1, seed=0, workers=0)
    with pytest.raises(SettingsError, match="no videos"):
        next(read_batches(flow_store, [], FlowStacks(4), batch_size=1, iterations=1, seed=0, workers=0))
    write_flow_clip(tmp_path / "x.safetensors", forward=[field(0, 0, n, (16, 16)) for n in range(9)])
    with pytest.raises(SettingsError, match=r"x.safetensors: has no backward flow"):
        read_batches(
            FlowStore.open(tmp_path),
            [Video("", "x", 0)],
            FlowStacks(4, bidirectional=True),
            batch_size=1,
            iterations=1,
            seed=0,
            workers=0,
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_found_by_a_worker_is_one_line(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "a/0.safetensors"
    write_flow_clip(path, forward=[field(0, 0, number, (16, 16)) for number in range(8)])
    store = FlowStore.open(tmp_path)
    batches = stream_of_one(store, workers)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FlowStoreError) as caught:
        next(batches)
    assert "a/0.safetensors: is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


def stream_of_one(store: FlowStore, workers: int) -> Generator[FlowItem]:
    return read_batches(  # type: ignore[return-value]
        store, VIDEOS[:1], FlowStacks(4), batch_size=2, iterations=9, seed=0, workers=workers
    )
