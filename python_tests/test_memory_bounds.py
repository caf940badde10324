# SPDX-License-Identifier: BSD-3-Clause
"""No operator reads or writes outside its tensors, whatever their place, strides and values."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operators import CASES, EXAMPLES, PIXELS, cases, flattened, like
from placement import Embedded, at_page_edge, embedded_copy, reserved

from twostream_ext import _C, ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
WIDE = cases(height=5, width=83, crop=(3, 75))  # rows longer than a vector register, and no multiple of one
BEYOND = 2**31 + 64  # elements


def same(results, expected):
    return all(torch.equal(got, want) for got, want in zip(flattened(results), flattened(expected), strict=True))


def planar(move):
    """Apply `move` to tensors whose components lie in planes of their own."""

    def moved(name, tensor):
        return move(tensor.movedim(-1, -3).contiguous()).movedim(-3, -1) if name in PIXELS else move(tensor)

    return moved


def test_every_operator_has_a_case():
    registered = {name for name in ops.__all__ if hasattr(torch.ops.twostream, name)}
    assert registered == set(EXAMPLES)


@pytest.mark.parametrize("name", WIDE)
def test_outputs_leave_what_lies_around_them(device, name):
    case = WIDE[name].to(device)
    expected = case()
    for offset in (0, 1, 3):
        places = []

        def place(tensor, offset=offset, places=places):
            places.append(Embedded(tensor.shape, tensor.dtype, tensor.device, offset=offset))
            return places[-1].tensor

        result = case(out=like(expected, place))
        assert same(result, expected)
        assert all(each.intact() for each in places)


@per_device
@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
def test_outputs_and_inputs_with_any_strides(device, data, name):
    case = CASES[name].to(device)
    expected = case()
    places = []

    def place(tensor):
        layout = {"offset": data.draw(st.integers(0, 15))}
        if tensor.dim() > 3 and case.operator != "camera_motion":  # tables of fields are demanded contiguous
            layout["order"] = data.draw(st.permutations(range(tensor.dim())))
            layout["gaps"] = [data.draw(st.integers(0, 2)) for _ in tensor.shape]
        places.append(Embedded(tensor.shape, tensor.dtype, tensor.device, **layout))
        return places[-1].tensor

    def scatter(name, tensor):
        if name not in PIXELS:
            return embedded_copy(tensor, offset=data.draw(st.integers(0, 15)))
        order = data.draw(st.permutations(range(tensor.dim())))
        gaps = [data.draw(st.integers(0, 2)) for _ in order]
        return embedded_copy(tensor, order=order, gaps=gaps, offset=data.draw(st.integers(0, 15)))

    assert same(case.moved(scatter)(out=like(expected, place)), expected)
    assert all(each.intact() for each in places)


@pytest.mark.parametrize("name", WIDE)
def test_every_alignment_of_inputs_and_outputs(name):
    case = WIDE[name]
    expected = case()
    for offset in range(64):

        def place(_, tensor, offset=offset):
            return embedded_copy(tensor, offset=offset % (64 // tensor.element_size()))

        moved = case.moved(place)
        out = like(expected, lambda tensor, offset=offset: torch.full_like(tensor, 7))
        assert same(moved(out=out), expected), offset
        moved = case.moved(planar(lambda tensor, place=place: place("", tensor)))
        out = like(expected, lambda tensor, place=place: place("", torch.full_like(tensor, 7)))
        assert same(moved(out=out), expected), offset


@pytest.mark.parametrize("end", [True, False], ids=["end", "begin"])
@pytest.mark.parametrize("name", WIDE)
def test_nothing_is_touched_beyond_a_page(device, name, end):
    # Vector instructions that no sanitizer sees (masked loads, gathers, streaming stores) fault here too.
    if device.type == "cuda":
        pytest.skip("pages of the host")
    case = WIDE[name]
    expected = case()

    def edge(tensor):
        return at_page_edge(tensor, end=end)

    for move in (lambda _, tensor: edge(tensor), planar(edge)):
        assert same(case.moved(move)(out=like(expected, edge)), expected)


@pytest.mark.unsanitized
def test_the_page_edge_faults():
    tensor = at_page_edge(torch.zeros(3), end=True)
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        ctypes.string_at(tensor.data_ptr() + 12, 1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV


@pytest.mark.parametrize("name", [name for name in WIDE if "windows" in WIDE[name].tensors])
def test_windows_of_any_number_stay_inside_on_a_device(cuda_on_host, monkeypatch, name):
    # Looking at them would synchronise, so the kernels clamp them.
    monkeypatch.setattr(_C, WIDE[name].operator, getattr(cuda_on_host, WIDE[name].operator))
    monkeypatch.setattr(_C, "mean_flow", cuda_on_host.mean_flow)
    case = WIDE[name]
    largest, smallest = 2**31 - 1, -(2**31)
    numbers = case.tensors["windows"].clone()
    inside = numbers.clone()
    last = last_positions(case)
    flat, clamped = numbers.view(len(last), -1, 3), inside.view(len(last), -1, 3)
    for sample, (bottom, right) in enumerate(last):
        for place in range(flat.shape[1]):
            low = (sample + place) % 2 == 0
            flat[sample, place] = torch.tensor([smallest, largest, -5] if low else [largest, smallest, largest])
            clamped[sample, place] = torch.tensor([0, right, 1] if low else [bottom, 0, 1])
    expected = case.moved(lambda key, tensor: inside if key == "windows" else tensor)()
    wild = case.moved(lambda key, tensor: numbers if key == "windows" else at_page_edge(tensor, end=True))
    assert same(wild(out=like(expected, lambda tensor: at_page_edge(tensor, end=True))), expected)


def last_positions(case):
    """The last top and left of a window in each sample."""
    pixels = case.tensors.get("flow", case.tensors.get("frames"))
    height, width = case.options["size"]
    samples = pixels if isinstance(pixels, list) else list(pixels)
    return [(each.shape[-3] - height, each.shape[-2] - width) for each in samples]


@pytest.mark.parametrize("name", EXAMPLES)
def test_overlapping_inputs(device, name):
    # Strides of zero, and rows that begin inside one another.
    case = EXAMPLES[name].to(device)

    def overlap(key, tensor):
        if key not in PIXELS:
            return tensor
        strides = [0] * (tensor.dim() - 3) + [1, 2, 1]
        return tensor.as_strided(tensor.shape, strides)

    overlapping = case.moved(overlap)
    whole = overlapping.moved(lambda _, tensor: tensor.contiguous())
    assert same(overlapping(), whole())


@pytest.mark.parametrize("dimension", range(5))
def test_offsets_beyond_32_bits_in_inputs(device, dimension):
    # Memory that is not touched costs nothing, so each stride in turn leads beyond 2^31 elements.
    if device.type == "cuda":
        pytest.skip("untouched memory is the host's")
    extents = [1, 1, 3, 5, 2]
    extents[dimension] = max(2, extents[dimension])
    strides = [40, 20, 12, 2, 1]
    strides[dimension] = BEYOND // (extents[dimension] - 1)
    codes = reserved(sum(s * (e - 1) for s, e in zip(strides, extents, strict=True)) + 1, torch.uint8)
    codes = codes.as_strided(extents, strides)
    codes.copy_(torch.arange(codes.numel()).view(extents))
    near = codes.clone(memory_format=torch.contiguous_format)
    ranges = {name: torch.rand(*extents[:2], 2) for name in ("lo", "step")}
    windows = torch.tensor([[0, 1, 1]], dtype=torch.int32).expand(extents[0], 3)
    for call in (
        lambda pixels: ops.flow_stack(pixels, windows, (3, 4), **ranges, dtype=torch.bfloat16),
        lambda pixels: ops.mean_flow(pixels, **ranges),
        lambda pixels: ops.camera_motion(pixels, **ranges),
        lambda pixels: ops.dequantize_flow(pixels, **ranges, out=torch.zeros(*extents)),
    ):
        assert torch.equal(call(codes), call(near))
    frames = codes[:, 0, ..., :1].expand(-1, -1, -1, 3)
    colour = {"mean": [1, 2, 3], "std": [4, 5, 6]}
    expected = ops.crop_frames(frames.contiguous(), windows, (3, 4), **colour)
    assert torch.equal(ops.crop_frames(frames, windows, (3, 4), **colour), expected)


@pytest.mark.parametrize("dimension", range(5))
def test_offsets_beyond_32_bits_in_outputs(device, dimension):
    if device.type == "cuda":
        pytest.skip("untouched memory is the host's")
    extents = [2, 2, 4, 3, 5]
    strides = [120, 60, 15, 5, 1]
    strides[dimension] = BEYOND // (extents[dimension] - 1)
    out = reserved(sum(s * (e - 1) for s, e in zip(strides, extents, strict=True)) + 1, torch.bfloat16)
    out = out.as_strided(extents, strides)
    flow = torch.randn(2, 2, 4, 7, 2)
    windows = torch.tensor([[[0, 0, 0], [1, 2, 1]]], dtype=torch.int32).expand(2, 2, 3)
    ops.flow_stack(flow, windows, (3, 5), out=out)
    assert torch.equal(out, ops.flow_stack(flow, windows, (3, 5), dtype=torch.bfloat16))

    codes = reserved(BEYOND + 10, torch.uint8).as_strided((1, 1, 2, 3, 2), (1, 1, BEYOND, 2, 1))
    expected = ops.quantize_flow(flow[:1, :1, :2, :3])
    ops.quantize_flow(flow[:1, :1, :2, :3], out=expected._replace(codes=codes))
    assert torch.equal(codes, expected.codes)


@pytest.mark.slow
@pytest.mark.unsanitized
def test_more_pixels_than_32_bits_count():
    # 4.3 GB of output and next to no input: the fields are one row, repeated.
    row = torch.randint(0, 256, (1, 1, 1, 46_341, 2), dtype=torch.uint8)
    fields = row.expand(1, 1, 46_341, 46_341, 2)  # 2^31 + 4633 pixels
    ranges = {"lo": torch.tensor([[[-3.0, 2.0]]]), "step": torch.tensor([[[0.5, 0.25]]])}
    assert torch.equal(ops.mean_flow(fields, **ranges), ops.mean_flow(row, **ranges))

    length = 24_000
    flow = row[:, :, :, :224].expand(1, length, 200, 224, 2)  # 2^31 + 2,916,352 elements of output
    ranges = {name: value.expand(1, length, 2).contiguous() for name, value in ranges.items()}
    windows = torch.tensor([[0, 0, 1]], dtype=torch.int32)
    stack = ops.flow_stack(flow, windows, (200, 224), **ranges, dtype=torch.bfloat16)
    assert stack.numel() > 2**31
    expected = ops.flow_stack(flow[:, :1], windows, (200, 224), lo=ranges["lo"][:, :1], step=ranges["step"][:, :1])
    expected = expected.to(torch.bfloat16)
    for field in (0, 1, length // 2, length - 2, length - 1):
        assert torch.equal(stack[:, 2 * field : 2 * field + 2], expected)
