# SPDX-License-Identifier: BSD-3-Clause
"""Random draws of training videos, and equally spaced test frames."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostream_ext.data import BatchPlan, Video, class_uniform_draws, equally_spaced, hold_out
from twostream_ext.errors import SettingsError

LABELS = [4] * 50 + [0] * 3 + [2] + [0] * 2 + [7] * 10  # of 4 classes, unsorted


def many_draws(count: int = 400) -> list[tuple[int, float]]:
    return [draw for i in range(count) for draw in class_uniform_draws(LABELS, 5, i, 64)]


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 for count in counts) / expected


def test_classes_are_uniform_and_videos_within_them() -> None:
    draws = many_draws()
    by_class = Counter(LABELS[index] for index, _ in draws)
    assert set(by_class) == set(LABELS)
    assert chi_square(list(by_class.values())) < 16.3  # 3 degrees of freedom, 0.1 %
    by_video = Counter(index for index, _ in draws)
    assert set(by_video) == set(range(len(LABELS)))
    members = [index for index, label in enumerate(LABELS) if label == 7]
    assert chi_square([by_video[index] for index in members]) < 27.9  # 9 degrees, 0.1 %


def test_positions_are_uniform_and_independent_of_the_video() -> None:
    draws = many_draws()
    positions = np.array([position for _, position in draws])
    assert positions.min() >= 0
    assert positions.max() < 1
    assert chi_square(np.histogram(positions, 20, (0, 1))[0].tolist()) < 43.8  # 19 degrees
    classes = np.array([LABELS[index] for index, _ in draws])
    assert abs(np.corrcoef(classes, positions)[0, 1]) < 0.02


def test_draws_depend_on_seed_and_iteration_alone() -> None:
    again = class_uniform_draws(LABELS, 5, 9, 64)
    assert again == class_uniform_draws(LABELS, 5, 9, 64)
    others = [class_uniform_draws(LABELS, seed, i, 64) for seed, i in ((5, 10), (6, 9), (9, 5))]
    assert all(other != again for other in others)
    positions = {position for draws in (again, *others) for _, position in draws}
    assert len(positions) == 4 * 64
    assert class_uniform_draws(np.array(LABELS), 5, 9, 64) == again


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_the_pieces_of_all_processes_are_the_batch(
    batch_size: int, ranks: int, accumulate: int, iteration: int
) -> None:
    plans = [BatchPlan(batch_size, 0, rank, ranks, accumulate) for rank in range(ranks)]
    if batch_size < ranks * accumulate:
        with pytest.raises(SettingsError, match=f"batch_size is {batch_size}, "):
            plans[0].pieces(0, 9)
        return
    pieces = [plan.piece(number) for plan in plans for number in plan.pieces(iteration, iteration + 1)]
    assert {piece.iteration for piece in pieces} == {iteration}
    assert [n for piece in pieces for n in range(piece.first, piece.last)] == list(range(batch_size))
    sizes = [piece.last - piece.first for piece in pieces]
    assert len(sizes) == ranks * accumulate
    assert max(sizes) - min(sizes) <= 1


def test_nothing_to_draw_from() -> None:
    with pytest.raises(SettingsError, match="no videos"):
        class_uniform_draws([], 0, 0, 4)


@given(st.integers(1, 60), st.integers(1, 500))
def test_equal_spacing(count: int, positions: int) -> None:
    chosen = equally_spaced(count, positions)
    assert chosen.shape == (count,)
    assert chosen.min() >= 0
    assert chosen.max() <= positions - 1
    if count > 1:
        assert chosen[0] == 0
        assert chosen[-1] == positions - 1
        ideal = (positions - 1) / (count - 1)
        assert np.abs(np.diff(chosen) - ideal).max() <= 1
        assert np.abs(chosen + chosen[::-1] - (positions - 1)).max() <= 1
    if count == positions:
        np.testing.assert_array_equal(chosen, np.arange(count))


def test_equal_spacing_of_the_paper() -> None:
    """25 starts of 11 frames in a video of 180."""
    chosen = equally_spaced(25, 170)
    assert chosen.dtype == np.int64
    assert len(set(chosen.tolist())) == 25
    np.testing.assert_array_equal(equally_spaced(1, 9), [4])
    with pytest.raises(ValueError, match="0 of 5"):
        equally_spaced(0, 5)
    with pytest.raises(ValueError, match="3 of 0"):
        equally_spaced(3, 0)


# ---- videos held out -----------------------------------------------------------------------------------------------


def grouped() -> list[Video]:
    """Class 0 in 8 groups of 5 videos, class 1 in 3 groups of 2, class 2 without groups, class 3 of one group."""
    names = [f"a/v_a_g{group:02}_c{clip}" for group in range(8) for clip in range(5)]
    names += [f"b/v_b_g{group:02}_c{clip}" for group in range(3) for clip in range(2)]
    names += [f"c/{number}" for number in range(10)] + [f"d/v_d_g01_c{clip}" for clip in range(4)]
    return [Video(f"{name}.avi", name, "abcd".index(name[0])) for name in names]


@pytest.mark.parametrize("seed", range(20))
def test_whole_groups_of_each_class_are_held_out(seed: int) -> None:
    videos = grouped()
    kept, held = hold_out(videos, 0.25, seed)
    assert sorted([*kept, *held]) == sorted(videos)
    assert [each for each in videos if each in held] == held
    assert [each for each in videos if each in kept] == kept
    groups = [{each.name.rsplit("_", 1)[0] for each in part} for part in (kept, held)]
    assert not groups[0] & groups[1]
    counts = [sum(each.label == label for each in held) for label in range(4)]
    assert counts[0] == 10
    assert counts[1] == 2
    assert counts[2] in (2, 3)
    assert counts[3] == 0
    assert hold_out(videos, 0.25, seed) == (kept, held)


def test_another_seed_holds_out_others() -> None:
    assert len({tuple(hold_out(grouped(), 0.25, seed)[1]) for seed in range(10)}) > 5


@pytest.mark.parametrize(
    ("videos", "share", "message"),
    [
        (grouped(), 0.0, "hold_out is 0.0, expected between 0 and 1"),
        (grouped(), float("nan"), "hold_out is nan, expected between 0 and 1"),
        (grouped()[-4:], 0.5, "hold_out is 0.5: of the 4 training videos none can be held out"),
    ],
)
def test_what_cannot_be_held_out(videos: list[Video], share: float, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        hold_out(videos, share, 0)
