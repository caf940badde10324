# SPDX-License-Identifier: BSD-3-Clause
"""What the scenes of the paper's tables hide and what they show, read from the scenes and not from pixels."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from twostream_ext import ops
from twostream_ext.data import GENERATED
from twostream_ext.data.drawing import Pose, Scene, Sprite, View, draw_frames
from twostream_ext.data.generated import render_video
from twostream_ext.flow import estimate_flow

SIZE, FRAMES = (64, 80), 24
TABLE_SETS = sorted(GENERATED.keys() - {"two_streams"})

DRAWN = {
    "two_streams": "7e3e2de358b714d9",
    "shaken": "e6fd176ea5ac81e3",
    "many_motions": "df906bcb58dfc190",
    "few_motions": "03546eea93763485",
    "many_looks": "08fbf20508fc0e01",
    "few_looks": "2219386c3408c80b",
    "many_mixed": "16b32eaf4800d8cb",
    "few_mixed": "b98baff219b920ff",
}
"""What `digest_of_numbers` gave before there were cameras that turn and zoom."""


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
        places = np.array([seen.camera(index)[:2] for index in range(FRAMES)])
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


# Cameras that turn and zoom.


def digest_of_numbers(name: str) -> str:
    """Of where the camera and all sprites are at two frames of a video of each class."""
    numbers = []
    for label in range(len(GENERATED[name].classes)):
        drawn = GENERATED[name].draw(np.random.default_rng(label), label, (64, 80), 24)
        for index in (0, 7):
            poses = [sprite.pose(index) for sprite in drawn.sprites]
            numbers += [f"{value:.6f}" for each in (drawn.camera(index)[:2], *poses) for value in each]
    return hashlib.sha256(" ".join(numbers).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", DRAWN)
def test_sets_with_a_camera_that_only_pans_are_what_they_were(name: str) -> None:
    assert digest_of_numbers(name) == DRAWN[name]
    drawn = scene(name, GENERATED[name].classes[0], 3)
    height, width = SIZE
    for index, frame in enumerate(draw_frames(drawn._replace(sprites=[]), SIZE, FRAMES)):
        x, y, turn, zoom = drawn.camera(index)
        assert (turn, zoom) == (0, 1)
        only_panned = np.array([[1, 0, x * height - width / 4], [0, 1, y * height - height / 4]])
        np.testing.assert_array_equal(frame, cv2.warpAffine(drawn.background, only_panned, (width, height)))


def seen_at(view: View, places: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """Where a view shows places of the scene; x + iy, in frame heights from the middle."""
    return np.asarray(view.zoom * np.exp(1j * view.turn) * (places + complex(view.x, view.y)))


def true_map(before: View, after: View) -> npt.NDArray[np.float64]:
    """The camera's motion [2, 3] from one view to another: the displacement at column x and row y, in pixels."""
    height, width = SIZE
    middle = complex((width - 1) / 2, (height - 1) / 2)
    pixels = np.array([0, 1, 1j])  # the corner of the picture, and its neighbours
    scene_places = (pixels - middle) / height / (before.zoom * np.exp(1j * before.turn)) - complex(before.x, before.y)
    moved = seen_at(after, scene_places) * height + middle - pixels
    columns = [moved[1] - moved[0], moved[2] - moved[0], moved[0]]
    return np.array([[each.real for each in columns], [each.imag for each in columns]])


def test_the_wall_follows_the_camera_as_it_pans_turns_and_zooms() -> None:
    drawn = scene("zoomed", "AcrossFast", 5)._replace(sprites=[])
    frames = list(draw_frames(drawn, SIZE, FRAMES))
    for index in range(FRAMES - 3):
        to_later = true_map(drawn.camera(index), drawn.camera(index + 3)) + np.eye(2, 3)
        moved = cv2.warpAffine(frames[index], to_later, SIZE[::-1])
        known = cv2.warpAffine(np.ones(SIZE, np.uint8), to_later, SIZE[::-1]) > 0
        known = cv2.erode(known.astype(np.uint8), np.ones((5, 5))) > 0
        assert known.mean() > 0.4
        difference, still = (
            np.abs(each.astype(float) - frames[index + 3])[known].mean() for each in (moved, frames[index])
        )
        assert difference < 1  # grey levels: both are interpolated
        assert difference < 0.3 * still


def test_sprites_are_seen_through_the_same_view() -> None:
    """A disk, dark on its right half: where its dark half lies, how it is turned and how large it is."""
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, 64)])
    opacity = (np.hypot(x, y) < 0.8).astype(np.float32)
    colour = np.repeat(np.where(x > 0, 0, 200).astype(np.uint8)[..., None], 3, axis=2)
    pose = Pose(x=0.1, y=-0.15, angle=0.4, radius=0.25)
    view = View(x=-0.05, y=0.1, turn=0.6, zoom=1.2)
    size = (200, 240)
    wall = np.full((400, 480, 3), 255, np.uint8)
    (frame,) = draw_frames(Scene(wall, [Sprite(colour, opacity, lambda _: pose)], lambda _: view), size, 1)
    rows, columns = np.nonzero(frame[..., 0] < 50)
    found = np.mean(columns - 119.5 + 1j * (rows - 99.5)) / 200
    radius = 0.8 * 0.25
    towards_dark = np.exp(1j * pose.angle) * 4 * radius / (3 * math.pi)  # the centroid of half a disk
    expected = seen_at(view, np.array([complex(pose.x, pose.y) + towards_dark]))[0]
    assert abs(found - expected) < 0.01
    assert len(rows) == pytest.approx(math.pi / 2 * (radius * view.zoom * 200) ** 2, rel=0.1)  # its edge is soft


def test_the_zooming_camera_never_sees_where_the_wall_ends() -> None:
    for key in range(60):
        drawn = scene("zoomed", "AcrossFast", key)
        white = drawn._replace(background=np.full_like(drawn.background, 255), sprites=[])
        assert min(frame.min() for frame in draw_frames(white, SIZE, FRAMES)) == 255


def test_the_zooming_camera_tells_no_class() -> None:
    """Of the same random numbers it is the same for every class."""
    classes = GENERATED["zoomed"].classes
    for key in range(3):
        cameras = [scene("zoomed", name, key).camera for name in classes]
        views = np.array([[camera(index) for index in range(FRAMES)] for camera in cameras])
        np.testing.assert_array_equal(views, np.broadcast_to(views[0], views.shape))


def own_speed(drawn: Scene) -> float:
    """How far the points of the object go from frame to frame if the camera stands still, in pixels on average."""
    x, y = np.meshgrid(*2 * [np.linspace(-0.7, 0.7, 21)])
    points = (x + 1j * y)[np.hypot(x, y) < 0.7]  # as far as the outline lies on average
    poses = [drawn.sprites[-1].pose(index) for index in range(FRAMES)]
    ways = np.array([complex(pose.x, pose.y) + pose.radius * np.exp(1j * pose.angle) * points for pose in poses])
    return float(np.abs(np.diff(ways, axis=0)).mean() * SIZE[0])


def test_the_camera_pans_and_turns_and_zooms_faster_than_objects_move() -> None:
    """So what is left where only the mean is taken away still hides the class."""
    rows, columns = np.mgrid[: SIZE[0] : 8, : SIZE[1] : 8]
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    objects, panned, left = [], [], []
    for key, name in enumerate(4 * GENERATED["zoomed"].classes):
        drawn = scene("zoomed", name, key)
        objects.append(own_speed(drawn))
        for before, after in pairwise(map(drawn.camera, range(FRAMES))):
            field = places @ true_map(before, after).T
            mean = field.mean((0, 1))
            panned.append(np.hypot(*mean))
            left.append(np.linalg.norm(field - mean, axis=-1).mean())
    assert np.mean(panned) > 2 * np.mean(objects)
    assert np.mean(left) > 1.1 * np.mean(objects)


def test_camera_motion_of_flow_finds_what_the_camera_pans_turns_and_zooms() -> None:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    off, moved, slopes = [], [], []
    for label, name in enumerate(GENERATED["zoomed"].classes):
        drawn = scene("zoomed", name, 100 + label)
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in draw_frames(drawn, SIZE, 4)]
        for index in range(3):
            flow = torch.from_numpy(estimate_flow(greys[index], greys[index + 1], "tvl1-fast"))
            found = ops.camera_motion(flow[None, None])[0, 0].numpy()
            truth = true_map(drawn.camera(index), drawn.camera(index + 1))
            off.append(np.linalg.norm(places @ (found - truth).T, axis=-1).mean())
            moved.append(np.linalg.norm(places @ truth.T, axis=-1).mean())
            slopes.append(np.abs(found - truth)[:, :2].max())  # of turn and zoom, a frame
    assert np.mean(moved) > 1.5  # pixels
    assert np.max(off) < 0.3
    assert np.mean(slopes) < 0.005
