# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import pickle

import pytest
import torch

from twostream_ext import ops

SIZES = [(6, 7), (9, 5), (8, 8)]
WINDOWS = torch.tensor([[1, 2, 1], [4, 0, 0], [0, 3, 1]], dtype=torch.int32)


def ragged(dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    fields = [torch.randn(3, *size, 2, generator=generator) * 30 + 100 for size in SIZES]
    return [field.to(dtype) for field in fields], torch.rand(3, 3, 3, 2, generator=generator)


def test_operators_find_codes_and_tables_in_the_batch(device):
    fields, (lo, step, mean) = ragged()
    batch = ops.FlowBatch.pack(fields, lo=lo, step=step, mean=mean).to(device)
    windows = WINDOWS.to(device)
    given = {"lo": lo.to(device), "step": step.to(device)}
    alone = [field.to(device) for field in fields]
    assert torch.equal(ops.flow_stack(batch, windows, 5), ops.flow_stack(alone, windows, 5, **given))
    assert torch.equal(
        ops.flow_stack(batch, windows, 5, subtract_mean=True),
        ops.flow_stack(alone, windows, 5, mean=mean.to(device), **given),
    )
    assert torch.equal(ops.mean_flow(batch), ops.mean_flow(alone, **given))
    assert torch.equal(ops.camera_motion(batch), ops.camera_motion(alone, **given))
    along = ops.trajectory_stack(batch, windows, 5, subtract_mean=True)
    assert torch.equal(along, ops.trajectory_stack(alone, windows, 5, mean=mean.to(device), **given))


def test_float_fields_have_no_ranges(device):
    fields, _ = ragged(torch.float32)
    batch = ops.FlowBatch.pack(fields).to(device)
    assert (batch.lo, batch.step, batch.mean) == (None, None, None)
    result = ops.flow_stack(batch, WINDOWS.to(device), 5, subtract_mean=True)
    expected = ops.flow_stack(fields, WINDOWS, 5, subtract_mean=True)
    torch.testing.assert_close(result.cpu(), expected)
    coded = ops.quantize_flow(batch)
    assert [tuple(codes.shape) for codes in coded.codes] == [(3, *size, 2) for size in SIZES]


def test_the_planes_are_views_of_one_buffer_on_whole_cache_lines():
    batch = ops.FlowBatch.empty(SIZES, 3)
    start, end = batch.buffer.data_ptr(), batch.buffer.data_ptr() + batch.buffer.numel()
    for field in batch.fields:
        assert (field.data_ptr() - start) % 64 == 0
        assert field.stride(-1) == field.shape[1] * field.shape[2]
        assert start <= field.data_ptr() < end
    batch.fields[1].fill_(7)
    batch.mean.fill_(0)
    assert torch.all(batch.fields[1] == 7)
    assert len(batch) == 3


def test_a_part_is_a_batch_on_the_same_buffer(device):
    fields, (lo, step, mean) = ragged()
    batch = ops.FlowBatch.pack(fields, lo=lo, step=step, mean=mean).to(device)
    whole = ops.flow_stack(batch, WINDOWS.to(device), 5, subtract_mean=True)
    for first, last in ((0, 1), (1, 3), (2, 9)):
        part = batch.part(first, last)
        assert part.buffer is batch.buffer
        assert part.sizes == tuple(SIZES[first:last])
        stacks = ops.flow_stack(part, WINDOWS[first:last].to(device), 5, subtract_mean=True)
        assert torch.equal(stacks, whole[first:last])
    inner = pickle.loads(pickle.dumps(batch.part(1, 3))).part(1, 2)
    assert torch.equal(inner.fields[0].cpu(), fields[2])
    assert torch.equal(inner.lo.cpu(), lo[2:])


def test_a_batch_carries_camera_motion(device):
    fields, (lo, step, mean) = ragged()
    camera = torch.randn(len(fields), 3, 2, 3)
    batch = ops.FlowBatch.pack(fields, lo=lo, step=step, mean=mean, camera=camera).to(device)
    assert batch.tables == ("lo", "step", "mean", "camera")
    for table, given in ((batch.lo, lo), (batch.step, step), (batch.mean, mean), (batch.camera, camera)):
        assert torch.equal(table.cpu(), given)
    for held, field in zip(batch.fields, fields, strict=True):
        assert torch.equal(held.cpu(), field)
    windows = WINDOWS.to(device)
    expected = ops.flow_stack(
        [field.to(device) for field in fields], windows, 5, lo=batch.lo, step=batch.step, camera=camera.to(device)
    )
    assert torch.equal(ops.flow_stack(batch, windows, 5, camera=batch.camera), expected)
    assert torch.equal(batch.part(1, 3).camera.cpu(), camera[1:3])
    assert ops.FlowBatch.pack([torch.zeros(2, 3, 4, 2)], camera=camera[:1, :2]).tables == ("camera",)


def test_a_batch_is_pickled_as_one_buffer():
    fields, (lo, step, mean) = ragged()
    batch = ops.FlowBatch.pack(fields, lo=lo, step=step, mean=mean)
    assert batch.fields[0].shape == (3, 6, 7, 2)  # the views exist now, and must stay at home
    data = pickle.dumps(batch)
    assert len(data) < batch.buffer.numel() + 2000
    again = pickle.loads(data)
    assert torch.equal(again.fields[2], fields[2])
    assert torch.equal(again.step, step)


class Windows(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((2, 5 + index, 6, 2), index, dtype=torch.uint8)


def collate(samples):
    table = torch.ones(len(samples), 2, 2)
    return ops.FlowBatch.pack(samples, lo=table, step=table)


def test_loader_workers_send_batches():
    loader = torch.utils.data.DataLoader(Windows(), batch_size=2, num_workers=1, collate_fn=collate)
    batches = list(loader)
    assert [batch.sizes for batch in batches] == [((5, 6), (6, 6)), ((7, 6), (8, 6))]
    assert torch.all(batches[1].fields[1] == 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_pinned_batch_goes_to_the_device_with_one_copy():
    fields, (lo, step, mean) = ragged()
    batch = ops.FlowBatch.pack(fields, lo=lo, step=step, mean=mean).pin_memory()
    assert batch.is_pinned()
    moved = batch.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert moved.device.type == "cuda"
    assert torch.equal(moved.fields[1].cpu(), fields[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.FlowBatch.pack([]), r"fields must be tensors \[L, H, W, 2\]"),
        (lambda: ops.FlowBatch.pack([torch.zeros(2, 3, 4)]), "fields must be tensors"),
        (lambda: ops.FlowBatch.pack([torch.zeros(2, 3, 4, 2, dtype=torch.uint8)]), "lo and step belong to uint8"),
        (lambda: ops.FlowBatch.pack([torch.zeros(2, 3, 4, 2), torch.zeros(1, 3, 4, 2)]), "one dtype and length"),
        (
            lambda: ops.FlowBatch.pack([torch.zeros(2, 3, 4, 2)], mean=torch.zeros(2, 2)),
            r"mean must be \(1, 2, 2\), got \(2, 2\)",
        ),
        (
            lambda: ops.FlowBatch.pack([torch.zeros(2, 3, 4, 2)], camera=torch.zeros(1, 2, 2)),
            r"camera must be \(1, 2, 2, 3\)",
        ),
        (lambda: ops.FlowBatch.empty([(3, 0)], 2), "sizes and length must be at least 1"),
    ],
)
def test_wrong_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
