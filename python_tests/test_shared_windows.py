# SPDX-License-Identifier: BSD-3-Clause
"""Windows that are cut out of what a net's first layers give of larger ones: the maps of each by itself."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from twostream_ext.engine.shared_windows import shared_regions
from twostream_ext.models import SpatialNet, TemporalNet
from twostream_ext.ops import ten_crop_windows


@given(st.data(), st.integers(2, 9), st.integers(1, 4))
def test_each_window_lies_in_its_region_as_it_would_alone(data: st.DataObject, size: int, stride: int) -> None:
    """The first layers here take every so many pixels; a pixel is its own number."""
    height, width = data.draw(st.integers(size, 24)), data.draw(st.integers(size, 24))
    window = st.tuples(st.integers(0, height - size), st.integers(0, width - size), st.integers(0, 1))
    windows = data.draw(st.lists(window, min_size=1, max_size=10))
    pixels = np.arange(height * width).reshape(height, width)

    def maps(top: int, left: int, flip: int, rows: int, columns: int) -> np.ndarray:
        part = pixels[top : top + rows, left : left + columns]
        assert part.shape == (rows, columns)
        return (part[:, ::-1] if flip else part)[::stride, ::stride]

    side = len(range(0, size, stride))
    found: list[int] = []
    area = 0
    for region in shared_regions(windows, size, stride):
        whole = maps(*region.window, *region.size)
        area += region.size[0] * region.size[1]
        for place in region.places:
            expected = maps(*windows[place.window], size, size)
            np.testing.assert_array_equal(
                whole[place.row : place.row + side, place.column : place.column + side], expected
            )
            found.append(place.window)
    assert sorted(found) == list(range(len(windows)))
    assert area <= len(windows) * size**2


def test_the_ten_of_the_paper_s_frames_take_two_regions() -> None:
    """256x340 pixels, windows of 224: all lie whole strides of 2 apart, so that only the flip tells them apart."""
    windows = [tuple(row) for row in ten_crop_windows(torch.tensor([[256, 340]]), 224)[0].tolist()]
    regions = shared_regions(windows, 224, 2)  # type: ignore[arg-type]
    assert [(region.window, region.size, len(region.places)) for region in regions] == [
        ((0, 0, 0), (256, 340), 5),
        ((0, 0, 1), (256, 340), 5),
    ]


def test_the_first_layers_of_a_part_are_a_part_of_theirs() -> None:
    for net in (SpatialNet(3, width=0.1, input_size=57).eval(), TemporalNet(3, width=0.1, input_size=57).eval()):
        stride = net.stem_stride
        assert stride == 2
        torch.manual_seed(0)
        x = torch.randn(2, net.settings.channels, 64, 71)
        with torch.no_grad():
            whole = net.stem(x)
            part = x[:, :, 4 : 4 + 57, 10 : 10 + 57]
            maps = net.stem(part)
            side = maps.shape[2]
            torch.testing.assert_close(whole[:, :, 2 : 2 + side, 5 : 5 + side], maps, rtol=1e-5, atol=1e-5)
            assert torch.equal(net.from_stem(maps), net(part))  # type: ignore[arg-type]
