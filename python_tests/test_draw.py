# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of flow: the colour wheel against colorsys pixel by pixel, planes, arrows, pictures of a whole clip."""

from __future__ import annotations

import colorsys
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from videos import decode, moving_frames, write_video

from twostream_ext.errors import SettingsError, VideoError
from twostream_ext.extraction import extract
from twostream_ext.flow import (
    FlowClip,
    colour_wheel,
    draw_arrows,
    draw_clip,
    draw_flow,
    flow_to_colour,
    flow_to_planes,
    without_camera,
    write_flow_video,
)
from twostream_ext.media import read_video


def reference(x: float, y: float, maximum: float) -> list[float]:
    hue = math.atan2(y, x) / (2 * math.pi) % 1.0
    saturation = min(math.hypot(x, y) / maximum, 1.0)
    return [255 * channel for channel in colorsys.hsv_to_rgb(hue, saturation, 1.0)]


@pytest.mark.parametrize("maximum", [None, 2.5])
def test_against_colorsys(maximum: float | None) -> None:
    flow = np.random.default_rng(0).normal(scale=2, size=(13, 17, 2)).astype(np.float32)
    longest = maximum or float(np.hypot(flow[..., 0], flow[..., 1]).max())
    expected = [[reference(x, y, longest) for x, y in row] for row in flow.tolist()]
    picture = flow_to_colour(flow, maximum=maximum)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture, expected, atol=2)


def test_directions() -> None:
    flow = np.array([[[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]]], np.float32)
    picture = flow_to_colour(flow)[0]
    np.testing.assert_allclose(picture[0], [255, 0, 0], atol=2)  # right: red
    np.testing.assert_allclose(picture[1], [128, 255, 0], atol=2)
    np.testing.assert_allclose(picture[2], [0, 255, 255], atol=2)  # left: cyan
    np.testing.assert_allclose(picture[3], [128, 0, 255], atol=2)
    np.testing.assert_array_equal(picture[4], [255, 255, 255])


def test_stillness_is_white() -> None:
    assert (flow_to_colour(np.zeros((4, 5, 2))) == 255).all()


def test_the_wheel_is_the_key_to_the_colours() -> None:
    wheel = colour_wheel(101)
    assert wheel.shape == (101, 101, 3)
    np.testing.assert_array_equal(wheel[50, 50], [255, 255, 255])
    np.testing.assert_array_equal(wheel[0, 0], [255, 255, 255])  # outside
    for x, y in ((50, 0), (0, -50), (-30, 30), (10, 20)):
        expected = reference(x / 50, y / 50, 1.0)
        np.testing.assert_allclose(wheel[50 + y, 50 + x], expected, atol=3)


@pytest.mark.parametrize("maximum", [None, 1.5])
def test_planes_are_grey_where_nothing_moves(maximum: float | None) -> None:
    flow = np.random.default_rng(1).normal(size=(9, 11, 2)).astype(np.float32)
    flow[0, 0] = 0
    largest = maximum or float(np.abs(flow).max())
    planes = flow_to_planes(flow, maximum=maximum)
    for component, plane in enumerate(planes):
        assert (plane.dtype, plane.shape) == (np.uint8, (9, 11))
        expected = 127.5 + 127.5 * np.clip(flow[..., component] / largest, -1, 1)
        np.testing.assert_allclose(plane, expected, atol=0.51)
        assert plane[0, 0] == 128
    assert (flow_to_planes(np.zeros((3, 4, 2)))[0] == 128).all()


@pytest.mark.parametrize("move", [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (0.7, 0.7)])
def test_an_arrow_points_where_its_pixel_goes(move: tuple[float, float]) -> None:
    """One pixel of the grid moves: what is drawn lies on the line from it, `spacing` pixels long."""
    flow = np.zeros((80, 80, 2), np.float32)
    flow[40, 40] = np.multiply(move, 3)
    black = np.zeros((80, 80, 3), np.uint8)
    drawn = draw_arrows(black, flow, spacing=16)
    assert not black.any()
    y, x = np.nonzero(drawn.any(axis=2))
    along, across = ((x - 40) * move[0] + (y - 40) * move[1]), ((x - 40) * move[1] - (y - 40) * move[0])
    assert along.min() > -4
    assert along.max() == pytest.approx(16, abs=4)
    assert np.abs(across).max() < 8  # the head's width
    np.testing.assert_array_equal(draw_arrows(black, flow * 100, spacing=16, maximum=3 * math.hypot(*move)), drawn)


def test_only_what_moves_gets_an_arrow() -> None:
    flow = np.zeros((80, 80, 2), np.float32)
    flow[:, 40:, 0] = 5
    drawn = draw_arrows(np.zeros((80, 80, 3), np.uint8), flow, spacing=10)
    assert not drawn[:, :35].any()
    assert drawn[:, 45:].any()
    assert not draw_arrows(np.zeros((80, 80, 3), np.uint8), flow * 0).any()


def test_a_picture_of_frame_and_flow() -> None:
    frame = moving_frames(1, size=(60, 90))[0]
    flow = np.zeros((60, 90, 2), np.float32)
    flow[:, 45:, 0] = 2
    picture = draw_flow(frame, flow, number=7)
    height, width = picture.shape[:2]
    assert height > 2 * 200  # enlarged, as the frame is small
    assert width > 2 * 300
    right = picture[: height // 2, width // 2 :]
    np.testing.assert_allclose(right[120, right.shape[1] // 4], [255, 255, 255], atol=3)
    np.testing.assert_allclose(right[120, 3 * right.shape[1] // 4], [255, 0, 0], atol=3)
    below = picture[height // 2 :, : width // 2]
    np.testing.assert_array_equal(below[120, below.shape[1] // 4], [128, 128, 128])
    np.testing.assert_array_equal(below[120, 3 * below.shape[1] // 4], [255, 255, 255])


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (7, 5)])
def test_pictures_of_odd_sizes(size: tuple[int, int]) -> None:
    picture = draw_flow(np.zeros((*size, 3), np.uint8), np.ones((*size, 2), np.float32))
    assert picture.shape[2] == 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FlowClip]:
    folder = tmp_path_factory.mktemp("clip")
    video = write_video(folder / "videos" / "v.avi", moving_frames(9, size=(48, 64), step=(2, 0)), fps=10.0)
    return video, extract(video.parent, folder / "flow", smallest_side=47, frame_step=2)["v"]


def test_the_picture_of_a_clip_is_of_its_middle(clip: tuple[Path, FlowClip]) -> None:
    video, flow = clip
    fields = flow.read(2, 1)
    field = fields.lo[0].numpy() + fields.step[0].numpy() * fields.codes[0].numpy().astype(np.float32)
    frame = list(read_video(video, smallest_side=47))[4]
    np.testing.assert_array_equal(draw_clip(video, flow), draw_flow(frame, field, number=2))


def test_a_video_of_frames_beside_their_flow(clip: tuple[Path, FlowClip], tmp_path: Path) -> None:
    video, flow = clip
    write_flow_video(video, flow, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    made, frames = decode(tmp_path / "out.mp4"), list(read_video(video, smallest_side=47))
    assert [frame.shape for frame in made] == 4 * [(48, 126, 3)]  # 47 rows, and codecs want even sizes
    for index, picture in enumerate(made):
        assert np.abs(picture[:47, :63, ::-1].astype(float) - frames[2 * index]).mean() < 12  # MPEG-4
    red = np.median(made[1][10:30, 75:100].reshape(-1, 3), axis=0)  # BGR: it moves to the right
    assert red[2] > 200
    assert red[2] - max(red[:2]) > 100


def turned_and_moved(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A camera's map [2, 3], and its field [H, W, 2] in which a block moves 3 px to the right beside it."""
    camera = np.array([[0.02, -0.03, 1.0], [0.03, 0.02, -2.0]])
    y, x = np.mgrid[: size[0], : size[1]]
    field = np.einsum("ck,khw->hwc", camera, np.stack([x, y, np.ones_like(x)]))
    field[10:30, 10:40, 0] += 3
    return camera, field


def test_the_cameras_motion_is_taken_away() -> None:
    camera, field = turned_and_moved((40, 60))
    left = without_camera(field, camera)
    assert left.dtype == np.float32
    expected = np.zeros((40, 60, 2))
    expected[10:30, 10:40, 0] = 3
    np.testing.assert_allclose(left, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"without_camera: flow is \[2, 40, 60\], expected \[H, W, 2\]"):
        without_camera(field.transpose(2, 0, 1), camera)
    with pytest.raises(ValueError, match=r"without_camera: camera is \[3, 2\], expected \[2, 3\]"):
        without_camera(field, camera.T)


def test_a_picture_shows_the_cameras_motion_and_what_is_left(clip: tuple[Path, FlowClip]) -> None:
    camera, field = turned_and_moved((60, 90))
    frame = moving_frames(1, size=(60, 90))[0]
    picture = draw_flow(frame, field, camera=camera)
    above = draw_flow(frame, field)
    np.testing.assert_array_equal(picture[: above.shape[0]], above)
    row = picture[above.shape[0] :]
    height, half = row.shape[0], row.shape[1] // 2
    np.testing.assert_allclose(row[height - 20, half + 40], [255, 255, 255], atol=3)  # the background stands still
    red, green, blue = row[height // 2, half + half // 3].astype(int)
    assert red > green + 50  # the block moves to the right
    assert red > blue + 50
    video, flow = clip
    expected = draw_flow(
        list(read_video(video, smallest_side=47))[4],
        flow.displacement(2),
        number=2,
        camera=flow.camera_motion(2, 1)[0],
    )
    np.testing.assert_array_equal(draw_clip(video, flow, camera=True), expected)


def test_a_video_of_flow_with_and_without_the_cameras_motion(clip: tuple[Path, FlowClip], tmp_path: Path) -> None:
    """The whole picture of this clip moves, so nothing is left."""
    video, flow = clip
    write_flow_video(video, flow, tmp_path / "out.mp4", camera=True)
    made = decode(tmp_path / "out.mp4")
    assert [frame.shape for frame in made] == 4 * [(48, 190, 3)]  # 3 x 63, and codecs want even sizes
    red = np.median(made[1][10:30, 75:100].reshape(-1, 3), axis=0)
    assert red[2] - max(red[:2]) > 100
    assert np.median(made[1][10:30, 135:160].reshape(-1, 3), axis=0).min() > 200


def test_pictures_of_another_video_than_the_clips(clip: tuple[Path, FlowClip], tmp_path: Path) -> None:
    video, flow = clip
    short = write_video(tmp_path / "short.avi", moving_frames(3, size=(48, 64)))
    with pytest.raises(VideoError, match=r"short.avi: has no frame 2, but flow from it"):
        draw_clip(short, flow)
    with pytest.raises(VideoError, match=r"short.avi: has no frame 2, but flow from it"):
        write_flow_video(short, flow, tmp_path / "out.mp4")
    other = write_video(tmp_path / "other.avi", moving_frames(9, size=(48, 96)))
    with pytest.raises(VideoError, match=r"other.avi: has frames of another size than its flow"):
        draw_clip(other, flow)
    with pytest.raises(VideoError, match=r"out.avi: is written as .mp4"):
        write_flow_video(video, flow, tmp_path / "out.avi")
    shutil.copy(video, tmp_path / "video.mp4")
    with pytest.raises(SettingsError, match=r"video.mp4: is the input .*video.mp4 itself"):
        write_flow_video(tmp_path / "video.mp4", flow, tmp_path / "video.mp4")
    assert (tmp_path / "video.mp4").read_bytes() == video.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.avi", "short.avi", "video.mp4"]


def test_wrong_arguments() -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    for draw in (flow_to_planes, lambda flow: draw_arrows(frame, flow), lambda flow: draw_flow(frame, flow)):
        with pytest.raises(ValueError, match=r"flow is \[2, 4, 5\], expected \[H, W, 2\]"):
            draw(np.zeros((2, 4, 5)))
    with pytest.raises(ValueError, match=r"picture is \[4, 5, 3\], expected \[4, 6, 3\]"):
        draw_arrows(frame, np.zeros((4, 6, 2)))
    with pytest.raises(ValueError, match="draw_flow: frame is"):
        draw_flow(frame, np.zeros((4, 6, 2)))
    with pytest.raises(ValueError, match="flow_to_planes: maximum is -1"):
        flow_to_planes(np.zeros((4, 5, 2)), maximum=-1)

    with pytest.raises(ValueError, match=r"\[2, 4, 5\], expected \[H, W, 2\]"):
        flow_to_colour(np.zeros((2, 4, 5)))
    with pytest.raises(ValueError, match="maximum is 0"):
        flow_to_colour(np.zeros((4, 5, 2)), maximum=0)
