# SPDX-License-Identifier: BSD-3-Clause
"""What the scenes of the paper's tables hide and what they show, read from the scenes and not from pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from twostream_ext.data import GENERATED
from twostream_ext.data.drawing import Scene
from twostream_ext.data.generated import render_video

SIZE, FRAMES = (64, 80), 24
TABLE_SETS = sorted(GENERATED.keys() - {"two_streams"})


def scene(name: str, of_class: str, key: int) -> Scene:
    label = GENERATED[name].classes.index(of_class)
    return GENERATED[name].draw(np.random.default_rng(key), label, SIZE, FRAMES)


def poses(name: str, of_class: str, key: int) -> npt.NDArray[np.float64]:
    """x, y, turned edge and radius of the object that carries the class, in pixels [frames, 4]."""
    pose_at = scene(name, of_class, key).sprites[-1].pose  # the last drawn is the object
    each = [pose_at(index) for index in range(FRAMES)]
    return np.array([(pose.x, pose.y, pose.angle * pose.radius, pose.radius) for pose in each]) * SIZE[0]


def speeds(name: str, of_class: str, videos: int = 40) -> npt.NDArray[np.float64]:
    """How far the edge goes from frame to frame, in pixels [videos, frames - 1]."""
    return np.stack([np.abs(np.diff(poses(name, of_class, key), axis=0)).max(1) for key in range(videos)])


def reversals(name: str, of_class: str, videos: int = 40) -> float:
    """How often in a video the fastest part of the pose turns back."""
    counts = []
    for key in range(videos):
        steps = np.diff(poses(name, of_class, key), axis=0)
        part = steps[:, np.abs(steps).max(0).argmax()]
        counts.append((np.diff(np.sign(part)) != 0).sum())
    return float(np.mean(counts))


@pytest.mark.parametrize("name", TABLE_SETS)
def test_every_class_can_be_drawn_and_the_draw_decides(name: str) -> None:
    classes = GENERATED[name].classes
    assert len(set(classes)) == len(classes)
    for label in range(len(classes)):
        one, same, other = (
            np.stack(list(render_video(label, np.random.SeedSequence(key), scenes=name, size=SIZE, frames=3)))
            for key in (1, 1, 2)
        )
        assert one.shape == (3, *SIZE, 3)
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()


@pytest.mark.parametrize(("fast", "slow"), [("AcrossFast", "AcrossSlow"), ("DownMedium", "DownSlow")])
def test_one_field_does_not_tell_the_period_and_many_do(fast: str, slow: str) -> None:
    """So a longer stack must be better: the speeds from frame to frame are alike, the times of turning back are not."""
    some, others = speeds("shaken", fast), speeds("shaken", slow)
    quantiles = np.linspace(0.1, 0.9, 5)
    np.testing.assert_allclose(np.quantile(some, quantiles), np.quantile(others, quantiles), atol=0.25)
    assert reversals("shaken", fast) > 1.5 * reversals("shaken", slow)


def test_the_camera_moves_like_an_object_and_further() -> None:
    """So the whole field hides the class until its mean is subtracted."""
    classes = GENERATED["shaken"].classes
    steps = []
    for key in range(40):
        seen = scene("shaken", classes[key % len(classes)], key)
        places = np.array([seen.camera(index) for index in range(FRAMES)])
        assert np.abs(places).max() < 0.25  # the wall ends there
        steps.append(np.abs(np.diff(places, axis=0)).max(1) * SIZE[0])
    objects = np.mean([speeds("shaken", of_class, 10).mean() for of_class in classes])
    assert np.mean(steps) > 1.2 * objects


@pytest.mark.parametrize("kind", ["looks", "motions"])
def test_the_small_set_shares_what_classes_are_made_of_but_no_class(kind: str) -> None:
    few, many = GENERATED[f"few_{kind}"].classes, GENERATED[f"many_{kind}"].classes
    assert not set(few) & set(many)

    def parts(classes: tuple[str, ...]) -> set[str]:
        return {name[: max(at for at, letter in enumerate(name) if letter.isupper())] for name in classes}

    assert len(parts(few) & parts(many)) == 4


@pytest.mark.parametrize("name", ["few_mixed", "many_mixed"])
def test_each_stream_alone_mixes_up_two_pairs_of_classes_and_not_the_same(name: str) -> None:
    uppercase = [[at for at, letter in enumerate(each) if letter.isupper()] for each in GENERATED[name].classes]
    looks = [each[: at[2]] for each, at in zip(GENERATED[name].classes, uppercase, strict=True)]
    motions = [each[at[2] :] for each, at in zip(GENERATED[name].classes, uppercase, strict=True)]
    assert (len(looks), len(set(looks)), len(set(motions))) == (8, 6, 6)
    assert not [
        (first, second)
        for first in range(8)
        for second in range(first)
        if looks[first] == looks[second] and motions[first] == motions[second]
    ]
