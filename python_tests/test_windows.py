# SPDX-License-Identifier: BSD-3-Clause
"""random_windows and ten_crop_windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import philox

from twostream_ext import ops

per_device = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**63 - 1)


def test_philox_known_answers():
    # The published test vectors of Philox4x32-10 (Random123, kat_vectors), as far as our counters and keys reach.
    assert [f"{word:08x}" for word in philox(0, 0)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@per_device
@given(data=st.data(), seed=seeds, offset=seeds, flip=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_random_windows_against_the_definition(device, data, seed, offset, flip):
    size = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    extra = st.integers(0, 40)
    sizes = [(size[0] + data.draw(extra), size[1] + data.draw(extra)) for _ in range(data.draw(st.integers(1, 5)))]
    windows = ops.random_windows(torch.tensor(sizes, device=device), size, flip=flip, seed=seed, offset=offset).tolist()
    for sample, (window, extent) in enumerate(zip(windows, sizes, strict=True)):
        random = philox((offset + sample) % 2**64, seed)
        top, left = (number * (e - s + 1) >> 32 for number, e, s in zip(random, extent, size, strict=False))
        assert window == [top, left, int(random[2] < flip * 2**32)]


def test_random_windows_are_uniform_and_do_not_depend_on_the_batch():
    sizes = torch.tensor([[10, 12]]).expand(20_000, 2)
    windows = ops.random_windows(sizes, (8, 8), seed=1)
    for column, positions in ((0, 3), (1, 5), (2, 2)):
        counts = torch.bincount(windows[:, column], minlength=positions)
        assert counts.shape[0] == positions
        expected = len(sizes) / positions
        chi_squared = ((counts - expected) ** 2 / expected).sum().item()
        assert chi_squared < 30  # for 4 degrees of freedom, one in 200,000
    late = ops.random_windows(sizes[:5], (8, 8), seed=1, offset=100)
    assert torch.equal(late, windows[100:105])


@per_device
@given(data=st.data())
def test_ten_crop(device, data):
    size = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    height, width = size[0] + data.draw(st.integers(0, 40)), size[1] + data.draw(st.integers(0, 40))
    bottom, right = height - size[0], width - size[1]
    windows = ops.ten_crop_windows(torch.tensor([[height, width]], device=device), size)[0].tolist()
    places = [[0, 0], [0, right], [bottom, 0], [bottom, right], [bottom // 2, right // 2]]
    assert windows == [[*place, flip] for flip in (0, 1) for place in places]


def test_out_and_other_integers():
    sizes = torch.tensor([[10, 12], [9, 9]], dtype=torch.int32)
    out = torch.empty(2, 3, dtype=torch.int32)
    assert ops.random_windows(sizes, 8, seed=3, out=out) is out
    assert torch.equal(out, ops.random_windows([[10, 12], [9, 9]], 8, seed=3))
    ten = torch.empty(2, 10, 3, dtype=torch.int32)
    assert ops.ten_crop_windows(sizes, 8, out=ten) is ten
    assert torch.equal(ten, ops.ten_crop_windows(sizes, 8))


@pytest.mark.parametrize(("seed", "offset"), [(-1, 0), (2**63, 0), (0, -1)])
def test_unusable_counters(seed, offset):
    with pytest.raises(ValueError, match=r"random_windows: (seed|offset) must be from 0"):
        ops.random_windows([[4, 4]], 2, seed=seed, offset=offset)
