# SPDX-License-Identifier: BSD-3-Clause
"""Generated videos: files, lists, determinism, and what a frame and a flow field give away."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from test_mp4 import limited

from twostream_ext.data import GENERATED
from twostream_ext.data.generated import generate_videos, render_video
from twostream_ext.data.scenes import APPEARANCES, MOTIONS
from twostream_ext.errors import SettingsError, VideoError

CLASSES = GENERATED["two_streams"].classes
SMALL = {"train_per_class": 2, "test_per_class": 1, "size": (48, 64), "frames": 12}


def render(label: int, key: int, frames: int = 12) -> npt.NDArray[np.uint8]:
    return np.stack(list(render_video(label, np.random.SeedSequence(key), frames=frames)))


def decode(path: Path) -> list[npt.NDArray[np.uint8]]:
    reader = cv2.VideoCapture(str(path))
    pictures: list[npt.NDArray[np.uint8]] = []
    while True:
        found, picture = reader.read()
        if not found:
            return pictures
        pictures.append(np.asarray(picture[..., ::-1], dtype=np.uint8))


def digest_of_files(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "set"
    generate_videos(folder, seed=3, **SMALL)  # type: ignore[arg-type]
    return folder


def test_classes_are_all_pairs() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == len(APPEARANCES) * len(MOTIONS) == 16
    assert list(CLASSES) == sorted(CLASSES)


def test_every_video_decodes_to_the_right_frames(small_set: Path) -> None:
    videos = sorted(small_set.glob("*/*.mp4"))
    assert len(videos) == 16 * 3
    for video in videos:
        pictures = decode(video)
        assert len(pictures) == 12
        assert all(picture.shape == (48, 64, 3) for picture in pictures)


def test_coding_keeps_the_pixels(tmp_path: Path) -> None:
    """What is decoded is what was rendered (RGB order, frame order), up to the codec's loss."""
    generate_videos(tmp_path, seed=5, train_per_class=1, test_per_class=1, frames=12)
    test_draw = np.random.SeedSequence(5).spawn(2)[1].spawn(16)
    for label in (0, 5, 10, 15):
        decoded = np.stack(decode(tmp_path / CLASSES[label] / f"v_{CLASSES[label]}_g01_c01.mp4"))
        rendered = np.stack(list(render_video(label, test_draw[label], frames=12)))
        error = np.abs(decoded.astype(np.float64) - rendered).mean()
        shifted = np.abs(decoded[1:].astype(np.float64) - rendered[:-1]).mean()
        assert error < 8
        assert error < shifted


def test_lists_are_in_ucf_format(small_set: Path) -> None:
    classes = (small_set / "classInd.txt").read_text().splitlines()
    assert classes == [f"{number} {name}" for number, name in enumerate(CLASSES, 1)]
    train = [line.split(" ") for line in (small_set / "trainlist01.txt").read_text().splitlines()]
    test = (small_set / "testlist01.txt").read_text().splitlines()
    assert len(train) == 16 * 2
    assert len(test) == 16
    for name, number in train:
        assert f"{number} {name.split('/')[0]}" in classes
    listed = {name for name, _ in train} | set(test)
    assert listed == {str(path.relative_to(small_set)).replace("\\", "/") for path in small_set.glob("*/*.mp4")}
    for name in listed:
        assert name.split("/")[1].startswith(f"v_{name.split('/')[0]}_g")
    train_groups = {name.split("_g")[1][:2] for name, _ in train}
    assert train_groups.isdisjoint({name.split("_g")[1][:2] for name in test})


def test_same_draw_gives_same_pixels() -> None:
    for label in range(16):
        np.testing.assert_array_equal(render(label, 8), render(label, 8))
        assert np.any(render(label, 8) != render(label, 9))


def test_no_two_videos_are_alike(small_set: Path) -> None:
    """Train and test, and all classes, share no draw: not even one background colour."""
    firsts = np.stack([decode(path)[0] for path in sorted(small_set.glob("*/*.mp4"))])
    colours = firsts.reshape(len(firsts), -1, 3).mean(axis=1)
    distances = np.abs(colours[:, None] - colours[None]).max(axis=2)
    assert distances[~np.eye(len(firsts), dtype=bool)].min() > 0.2


def test_repeating_keeps_the_files(small_set: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_set.glob("*/*.mp4")}
    generate_videos(small_set, seed=3, **SMALL)  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in small_set.glob("*/*.mp4")} == before
    assert not list(small_set.rglob(".*"))


def test_a_broken_off_set_is_completed(small_set: Path, tmp_path: Path) -> None:
    generate_videos(tmp_path, seed=3, **SMALL)  # type: ignore[arg-type]
    (tmp_path / "DottedSliding/v_DottedSliding_g02_c01.mp4").unlink()
    (tmp_path / "testlist01.txt").unlink()
    generate_videos(tmp_path, seed=3, **SMALL)  # type: ignore[arg-type]
    assert digest_of_files(tmp_path) == digest_of_files(small_set)


def test_a_set_that_the_first_version_began_is_completed(small_set: Path, tmp_path: Path) -> None:
    noted = '{"rendering": 3, "seed": 3, "train_per_class": 2, "test_per_class": 1, "size": [48, 64], "frames": 12}\n'
    (tmp_path / "clips.json").write_text(noted)
    generate_videos(tmp_path, seed=3, **SMALL)  # type: ignore[arg-type]
    assert digest_of_files(tmp_path).keys() == digest_of_files(small_set).keys()
    with pytest.raises(SettingsError, match="seed 3, not 4"):
        generate_videos(tmp_path, seed=4, **SMALL)  # type: ignore[arg-type]


def test_a_full_disk_and_what_a_killed_call_left(tmp_path: Path) -> None:
    with limited(3000), pytest.raises(VideoError, match=r"c01.mp4: cannot be written: it would hold 0 of 12"):
        generate_videos(tmp_path / "set", **SMALL)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "set").rglob("*") if path.is_file()] == ["clips.json"]
    left = tmp_path / "set" / "DottedSliding" / ".v.mp4.00000001-00000007.tmp.mp4"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"begun")
    os.utime(left, (0, 0))
    generate_videos(tmp_path / "set", **SMALL)  # type: ignore[arg-type]
    assert not list((tmp_path / "set").rglob(".*"))


def test_settings_of_another_set_are_refused(small_set: Path) -> None:
    before = digest_of_files(small_set)
    with pytest.raises(SettingsError, match="seed 3, not 4"):
        generate_videos(small_set, seed=4, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="frames 12, not 14"):
        generate_videos(small_set, seed=3, **{**SMALL, "frames": 14})  # type: ignore[arg-type]
    assert digest_of_files(small_set) == before


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="expected an empty folder"):
        generate_videos(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_per_class", 0),
        ("test_per_class", -1),
        ("splits", 0),
        ("splits", 4),  # 3 x 8 videos of other splits would leave no training video
        ("frames", 1),
        ("size", (49, 64)),
        ("scenes", "none"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(
        SettingsError, match="train_per_class" if value == 4 else name.replace("scenes", "generated set")
    ):
        generate_videos(tmp_path / "set", **{name: value})  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


def test_splits_test_every_group_once_at_most(tmp_path: Path) -> None:
    generate_videos(
        tmp_path, train_per_class=5, test_per_class=2, splits=3, size=(32, 32), frames=2, scenes="few_looks"
    )
    videos = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.mp4")}
    assert len(videos) == 6 * 7  # 3 x 2 that are tested in turn, and one that always trains
    tested: set[str] = set()
    for split in (1, 2, 3):
        train = {line.split()[0] for line in (tmp_path / f"trainlist0{split}.txt").read_text().splitlines()}
        test = set((tmp_path / f"testlist0{split}.txt").read_text().splitlines())
        assert (len(train), len(test)) == (6 * 5, 6 * 2)
        assert train | test == videos
        assert not test & tested
        tested |= test


# What a frame and what a flow tell: simple statistics and a forest, on videos nobody trained on.

TRAIN_VIDEOS, TEST_VIDEOS = 8, 5  # of each class


def frame_statistics(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Of the sharp, high-contrast pixels: gradient directions, how they bunch, spectrum, values."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64)
    across, down = cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)
    strength, direction = np.hypot(across, down), np.arctan2(down, across)
    weights = np.where(strength > 150, strength, 0)
    total = weights.sum() + 1e-9
    bunching = [abs((weights * np.exp(1j * turns * direction)).sum()) / total for turns in (2, 4, 6, 8)]
    rows, columns = np.nonzero(weights)
    box = grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    values = np.histogram((box - box.min()) / (np.ptp(box) + 1e-9), bins=8, range=(0, 1))[0]
    patch = cv2.resize(box, (32, 32))
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(patch - patch.mean())))
    y, x = np.mgrid[-16:16, -16:16]
    ring = np.minimum(np.hypot(x, y).astype(int), 15)
    rings = np.bincount(ring.ravel(), spectrum.ravel(), 16)
    peak = spectrum.max() / spectrum.sum()
    return np.concatenate([bunching, values / box.size, rings / rings.sum(), [peak]])


def flow_statistics(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Of the moving pixels, over every other pair of frames: mean motion, curl, and their number."""
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    per_pair = []
    for first, second in zip(greys[::2], greys[1::2], strict=True):
        flow = estimator.calc(first, second, None).astype(np.float64)  # type: ignore[call-overload]
        flow -= np.median(flow, axis=(0, 1))
        moving = np.hypot(flow[..., 0], flow[..., 1]) > 0.3
        weight = moving / max(moving.sum(), 1)
        y, x = np.indices(moving.shape)
        middle_x, middle_y = (weight * x).sum(), (weight * y).sum()
        mean = (weight[..., None] * flow).sum(axis=(0, 1))
        u, v = flow[..., 0] - mean[0], flow[..., 1] - mean[1]
        around = (weight * (v * (x - middle_x) - u * (y - middle_y))).sum()
        spread = (weight * np.hypot(x - middle_x, y - middle_y)).sum() + 1
        per_pair.append(np.abs([mean[0], mean[1], around / spread, moving.mean()]))
    strengths = np.mean(per_pair, axis=0)
    return np.asarray(np.concatenate([strengths, strengths / (strengths.sum() + 1e-9)]))


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, str], float]:
    """Accuracy of (statistics of "frame" or "flow") telling ("appearance" or "motion")."""
    statistics: dict[str, list[npt.NDArray[np.float64]]] = {"frame": [], "flow": []}
    labels = []
    for key in range(TRAIN_VIDEOS + TEST_VIDEOS):
        for label in range(16):
            pictures = render(label, 1000 + 16 * key + label)
            statistics["frame"].append(frame_statistics(pictures[6]))
            statistics["flow"].append(flow_statistics(pictures))
            labels.append(label)
    targets = {"appearance": np.array(labels) // 4, "motion": np.array(labels) % 4}
    split = 16 * TRAIN_VIDEOS
    accuracies = {}
    for source, rows in statistics.items():
        for aim, target in targets.items():
            forest = ExtraTreesClassifier(200, random_state=0)
            forest.fit(np.stack(rows[:split]), target[:split])
            accuracies[source, aim] = forest.score(np.stack(rows[split:]), target[split:])
    return accuracies


def test_a_frame_tells_the_appearance_only(told: dict[tuple[str, str], float]) -> None:
    assert told["frame", "appearance"] > 0.85
    assert told["frame", "motion"] < 0.42  # chance is 0.25, on 80 videos


def test_the_flow_tells_the_motion_only(told: dict[tuple[str, str], float]) -> None:
    assert told["flow", "motion"] > 0.9
    assert told["flow", "appearance"] < 0.42


def test_a_frame_tells_no_motion_before_a_zooming_camera() -> None:
    classes = len(GENERATED["zoomed"].classes)
    statistics, labels = [], []
    for key in range(TRAIN_VIDEOS + TEST_VIDEOS):
        for label in range(classes):
            pictures = list(
                render_video(label, np.random.SeedSequence(3000 + classes * key + label), scenes="zoomed", frames=7)
            )
            statistics.append(frame_statistics(pictures[6]))
            labels.append(label)
    split = classes * TRAIN_VIDEOS
    forest = ExtraTreesClassifier(200, random_state=0)
    forest.fit(np.stack(statistics[:split]), labels[:split])
    assert forest.score(np.stack(statistics[split:]), labels[split:]) < 0.3  # chance is 0.125, on 40 videos
