# SPDX-License-Identifier: BSD-3-Clause
"""Videos to flow and frame stores: right, resumable, and clear about what cannot be read."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import estimators
import numpy as np
import pytest
import torch
from safetensors import safe_open
from videos import decode, decode_luma, moving_frames, texture, write_video

from twostream_ext.errors import ExtractionError, SettingsError, VideoError
from twostream_ext.extraction import extract, job
from twostream_ext.flow import METHODS, ClipFlow, FlowSettings, FlowStore, Method, draw_clip, estimate_clip_flow
from twostream_ext.media import FrameStore
from twostream_ext.ops import camera_motion, quantize_flow


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Four videos in two classes, 6 to 9 frames of 48x64."""
    folder = tmp_path / "videos"
    for index, name in enumerate(("A/v_a.avi", "A/v_b!#&().avi", "B/v_c.d.avi", "B/v_e.AVI")):
        write_video(folder / name, moving_frames(6 + index, step=(2 - index, 1), seed=index))
    (folder / "readme.txt").write_text("no video")
    return folder


def quiet_extract(videos: Path, out: Path, **options: Any) -> FlowStore:
    return extract(videos, out, **{"method": "dis", "smallest_side": 32, **options})


def reference_flow(path: Path, size: tuple[int, int]) -> list[np.ndarray]:
    """Forward flow with OpenCV, of frames rescaled to `size`."""
    return [dis_flow(one, other) for one, other in pairwise(reference_greys(path, size))]


def reference_greys(path: Path, size: tuple[int, int]) -> list[np.ndarray]:
    """The luma of a file of JPEGs, rescaled to `size`."""
    return [cv2.resize(luma, size[::-1], interpolation=cv2.INTER_AREA) for luma in decode_luma(path)]


def dis_flow(previous: np.ndarray, following: np.ndarray) -> np.ndarray:
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return search.calc(previous, following, None)


def test_store_holds_the_flow_of_the_videos(videos: Path, tmp_path: Path) -> None:
    store = quiet_extract(videos, tmp_path / "flow", quality=100)
    assert list(store) == ["A/v_a", "A/v_b!#&()", "B/v_c.d", "B/v_e"]
    assert store.settings == FlowSettings("dis", 32, "jpeg", 100, ("forward",))
    for name, file in (("A/v_a", "A/v_a.avi"), ("B/v_e", "B/v_e.AVI")):
        references = reference_flow(videos / file, (32, 43))
        clip = store[name]
        assert (clip.size, clip.source_size, clip.fps) == ((32, 43), (48, 64), 25.0)
        assert clip.length() == len(references) == clip.frame_count - 1
        fields = clip.read(0, clip.length())
        for index, reference in enumerate(references):
            lo, step, mean = (part[index].numpy().astype(float) for part in fields[1:])
            np.testing.assert_allclose(lo, reference.min((0, 1)), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(lo + 255 * step, reference.max((0, 1)), rtol=1e-5)
            np.testing.assert_allclose(mean, reference.astype(float).mean((0, 1)), rtol=1e-4)
            decoded = lo + step * fields.codes[index].numpy()
            assert (np.abs(decoded - reference) <= 4 * step).all()  # rounding and JPEG


def test_backward_is_the_flow_to_the_frame_before(videos: Path, tmp_path: Path) -> None:
    store = quiet_extract(videos, tmp_path / "flow", backward=True, names=["A/v_a.avi"])
    assert list(store) == ["A/v_a"]
    clip = store["A/v_a"]
    assert clip.directions == store.settings.directions == ("forward", "backward")
    greys = reference_greys(videos / "A/v_a.avi", (32, 43))
    for t in range(1, clip.frame_count):
        reference = dis_flow(greys[t], greys[t - 1])
        field = clip.read(t, 1, "backward")
        decoded = field.lo.numpy() + field.step.numpy() * field.codes[0].numpy()
        assert np.abs(decoded - reference).mean() < 3 * field.step.max()
        ahead = clip.read(t - 1, 1)
        assert field.mean.sign().tolist() == (-ahead.mean.sign()).tolist()


def test_frames_of_the_same_pass(videos: Path, tmp_path: Path) -> None:
    quiet_extract(videos, tmp_path / "flow", frames_out=tmp_path / "frames")
    store = FrameStore.open(tmp_path / "frames")
    assert list(store) == list(FlowStore.open(tmp_path / "flow"))
    clip = store["B/v_c.d"]
    references = decode(videos / "B/v_c.d.avi")
    assert (len(clip), clip.size, clip.source_size) == (len(references), (32, 43), (48, 64))
    for index, reference in enumerate(references):
        scaled = cv2.resize(reference, (43, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(clip.read(index).astype(float) - scaled[..., ::-1]).mean() < 12


def test_neither_threads_nor_company_change_a_byte(videos: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for name in ("A/v_a.avi", "B/v_c.d.avi"):
        quiet_extract(videos, alone, names=[name], workers=1, progress=False)
    threads = cv2.getNumThreads()
    quiet_extract(videos, together, workers=3)
    assert cv2.getNumThreads() == threads
    for file in alone.rglob("*.safetensors"):
        assert file.read_bytes() == (together / file.relative_to(alone)).read_bytes()


def assert_same_files(one: Path, other: Path) -> None:
    """The directories hold the same files, byte for byte, and no others."""
    contents = [
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (one, other)
    ]
    assert sorted(contents[0]) == sorted(contents[1])
    assert contents[0] == contents[1]


def versions(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(folder.rglob("*.safetensors"))}


def test_second_call_makes_what_is_missing(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "flow"
    quiet_extract(videos, out)
    made = versions(out)
    quiet_extract(videos, out)
    assert versions(out) == made

    missing, damaged = out / "A" / "v_a.safetensors", out / "B" / "v_e.safetensors"
    whole = damaged.read_bytes()
    missing.unlink()
    damaged.write_bytes(whole[:-100])
    (out / "A" / ".v_a.safetensors.77.tmp").write_bytes(b"left by a killed run")
    store = quiet_extract(videos, out, frames_out=tmp_path / "frames")
    again = versions(out)
    assert list(again) == list(made)
    assert {Path(f).name for f in made if made[f] != again[f]} == {missing.name, damaged.name}
    assert damaged.read_bytes() == whole
    assert len(store) == len(FrameStore.open(tmp_path / "frames")) == 4


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"smallest_side": 40}, "was made with smallest_side 32, not 40"),
        ({"smallest_side": None}, "was made with smallest_side 32, not None"),
        ({"quality": 50}, "was made with quality 90, not 50"),
        ({"method": "farneback"}, "was made with method dis, not farneback"),
        ({"backward": True}, "was made with directions forward, not forward and backward"),
        ({"bound": 20.0}, "was made with bound None, not 20.0"),
        ({"frame_step": 2}, "was made with frame_step 1, not 2"),
        ({"codec": "raw"}, "was made with codec jpeg, not raw"),
        ({"estimator": "estimators:constant"}, "was made with method dis, not estimators:constant"),
    ],
)
def test_store_of_other_settings(videos: Path, tmp_path: Path, option: dict[str, Any], message: str) -> None:
    out = tmp_path / "flow"
    quiet_extract(videos, out, names=["A/v_a.avi"])
    made = versions(out)
    with pytest.raises(SettingsError, match=f"flow: {message}"):
        quiet_extract(videos, out, **option)
    (out / "store.json").unlink()
    with pytest.raises(SettingsError, match=f"v_a.safetensors: {message}"):
        quiet_extract(videos, out, **option)
    assert versions(out) == made


def test_store_of_frames_with_other_settings(videos: Path, tmp_path: Path) -> None:
    names = ["A/v_a.avi"]
    quiet_extract(videos, tmp_path / "flow", names=names, frames_out=tmp_path / "frames")
    with pytest.raises(SettingsError, match="frames: was made with smallest_side 32, not 40"):
        quiet_extract(videos, tmp_path / "other", smallest_side=40, frames_out=tmp_path / "frames")
    with pytest.raises(SettingsError, match="flow: was made with kind flow, not frames"):
        quiet_extract(videos, tmp_path / "other2", frames_out=tmp_path / "flow")


def test_videos_that_cannot_be_read(videos: Path, tmp_path: Path) -> None:
    (videos / "A" / "text.avi").write_text("no video")
    (videos / "A" / "empty.mp4").write_bytes(b"")
    write_video(videos / "B" / "one.avi", moving_frames(1))
    write_video(videos / "B" / "tiny.avi", moving_frames(4, size=(16, 16)))
    with pytest.raises(ExtractionError) as caught:
        quiet_extract(videos, tmp_path / "flow", smallest_side=8, names=None)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("8 of 8 videos could not be extracted: ")
    assert "pixels are too small for dis" in message

    with pytest.raises(ExtractionError) as caught:
        quiet_extract(videos, tmp_path / "other", frames_out=tmp_path / "frames")
    message = str(caught.value)
    assert message.startswith("3 of 8 videos could not be extracted: ")
    assert "text.avi: is not a video that FFmpeg can read: Invalid data found when processing input" in message
    assert "empty.mp4: is empty" in message
    assert "one.avi: has 1 frame, flow needs at least 2" in message
    assert len(FlowStore.open(tmp_path / "other")) == 5  # the others are there
    assert len(FrameStore.open(tmp_path / "frames")) == 5


def test_a_video_without_frames_and_one_whose_size_changes(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "none.avi", moving_frames(1))
    data = (videos / "none.avi").read_bytes()
    (videos / "none.avi").write_bytes(data[: data.index(b"movi") + 4])
    pictures = [texture(48, 64, seed=1), texture(32, 80, seed=2)]
    coded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures for _ in range(3)]
    (videos / "changing.mjpeg").write_bytes(b"".join(coded))
    names = ["none.avi", "changing.mjpeg"]
    with pytest.raises(ExtractionError, match=r"^1 of 2 .*none.avi: (no frame can be decoded|is not a video)"):
        quiet_extract(videos, tmp_path / "flow", names=names)
    clip = FlowStore.open(tmp_path / "flow")["changing"]
    assert (clip.frame_count, clip.size, clip.source_size) == (6, (32, 43), (48, 64))


def test_devices_that_are_not_there(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that knows both takes the CPU by itself where there is no GPU, and is refused one by name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    seen = []

    def still(frames: torch.Tensor, device: torch.device, backward: bool) -> ClipFlow:
        seen.append(device.type)
        return ClipFlow(torch.zeros(len(frames) - 1, *frames.shape[1:], 2), None)

    monkeypatch.setitem(METHODS, "still", Method(still, "nothing moves", {}, runs_on_cuda=True))
    with pytest.raises(SettingsError, match=r"device is 'cuda:0', but (torch finds no GPU|.* without CUDA)"):
        quiet_extract(videos, tmp_path / "flow", method="still", device="cuda:0")
    quiet_extract(videos, tmp_path / "flow", method="still")
    assert set(seen) == {"cpu"}


def test_long_lists_of_failures_are_cut(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(25):
        (videos / f"{index}.avi").write_text("no video")
    with pytest.raises(ExtractionError, match=r"^25 of 25 videos .*; and 15 more$"):
        quiet_extract(videos, tmp_path / "flow")


def test_nothing_to_extract(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    out = tmp_path / "flow"
    with pytest.raises(VideoError, match=r"none: no videos \(.*\.avi"):
        quiet_extract(tmp_path / "none", out)
    with pytest.raises(VideoError, match="nowhere: no such directory"):
        quiet_extract(tmp_path / "nowhere", out)
    with pytest.raises(VideoError, match="names: no videos"):
        quiet_extract(videos, out, names=[])
    for name in ("../A/v_a.avi", str(videos / "A/v_a.avi")):
        with pytest.raises(SettingsError, match="is not inside"):
            quiet_extract(videos, out, names=[name])
    assert not out.exists()
    with pytest.raises(ExtractionError, match=r"1 of 1 .* A/x.avi|x.avi: no such file"):
        quiet_extract(videos, out, names=["A/x.avi"])


def test_two_videos_of_one_name(videos: Path, tmp_path: Path) -> None:
    (videos / "A" / "v_a.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match=r"A/v_a.mp4: would be stored as v_a.avi is"):
        quiet_extract(videos, tmp_path / "flow")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"method": "brox"}, "method is 'brox', expected one of tvl1, tvl1-fast, dis, farneback"),
        ({"quality": 0}, "quality is 0, expected a number from 1 to 100"),
        ({"smallest_side": 0}, "smallest_side is 0"),
        ({"workers": 0}, "workers is 0, expected at least 1"),
        ({"frame_step": 0}, "frame_step is 0, expected a positive number"),
        ({"bound": -1.0}, "bound is -1.0, expected a positive number of pixels"),
        ({"bound": float("nan")}, "bound is nan"),
        ({"codec": "png"}, "codec is 'png', expected one of jpeg, raw"),
        ({"codec": "raw", "quality": 0}, "quality is 0"),
        ({"shard": (3, 2)}, "shard is 3/2, expected i/n with i from 1 to n"),
        ({"shard": (5, 9)}, "shard is 5/9, but there are only 4 videos"),
        ({"device": "abacus"}, "device is 'abacus', expected auto, cpu or cuda"),
        ({"device": "cuda"}, "device is 'cuda', but dis runs on the CPU only"),
        ({"device": "cpu", "estimator": "estimators:constant"}, "an estimator of your own chooses its device itself"),
        ({"estimator": "constant"}, "estimator is 'constant', expected module:function"),
        ({"estimator": "estimators:nothing"}, "estimator estimators:nothing: module 'estimators' has no attribute"),
        ({"estimator": "no_such_module:f"}, "estimator no_such_module:f: No module named 'no_such_module'"),
        ({"estimator": "estimators:STEP"}, "estimator estimators:STEP: is not a function"),
    ],
)
def test_wrong_options(videos: Path, tmp_path: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        quiet_extract(videos, tmp_path / "flow", **option)
    assert not (tmp_path / "flow").exists()


def test_every_nth_frame(videos: Path, tmp_path: Path) -> None:
    """9 frames at step 3 are a video of frames 0, 3 and 6 at a third of the frames per second."""
    file = videos / "B/v_e.AVI"
    store = quiet_extract(videos, tmp_path / "flow", frame_step=3, frames_out=tmp_path / "frames", names=["B/v_e.AVI"])
    clip, frames = store["B/v_e"], FrameStore.open(tmp_path / "frames")["B/v_e"]
    assert (clip.frame_count, len(frames)) == (3, 3)
    assert clip.fps == frames.fps == pytest.approx(25 / 3)
    assert clip.settings.frame_step == 3
    scaled = [cv2.resize(frame, (43, 32), interpolation=cv2.INTER_AREA) for frame in decode(file)[::3]]
    greys = reference_greys(file, (32, 43))[::3]
    fields = clip.read(0, 2)
    for index, pair in enumerate(pairwise(greys)):
        np.testing.assert_allclose(fields.lo[index], dis_flow(*pair).min((0, 1)), rtol=1e-5, atol=1e-6)
        assert np.abs(frames.read(index).astype(float) - scaled[index][..., ::-1]).mean() < 12
    with pytest.raises(ExtractionError, match=r"v_e.AVI: has 1 frame at a frame step of 9, flow needs at least 2"):
        quiet_extract(videos, tmp_path / "none", frame_step=9, names=["B/v_e.AVI"])


@pytest.mark.parametrize("codec", ["jpeg", "raw"])
def test_bound_clips_displacements(videos: Path, tmp_path: Path, codec: str) -> None:
    names = ["A/v_a.avi"]
    store = quiet_extract(videos, tmp_path / "flow", bound=1.0, codec=codec, quality=100, names=names, smallest_side=48)
    assert store.settings.bound == 1.0
    clip = store["A/v_a"]
    fields = clip.read(0, clip.length())
    assert (fields.lo == -1).all()
    np.testing.assert_allclose(fields.step, 2 / 255, rtol=1e-6)
    references = reference_flow(videos / "A/v_a.avi", (48, 64))
    assert max(float(reference.max()) for reference in references) > 1.5  # the texture moves by 2 pixels
    for index, reference in enumerate(references):
        found = -1 + 2 / 255 * fields.codes[index].numpy().astype(float)
        error = np.abs(found - np.clip(reference, -1, 1))
        assert error.max() <= (1.01 / 255 if codec == "raw" else 8 / 255)


def test_raw_planes_hold_what_quantizing_gives(videos: Path, tmp_path: Path) -> None:
    clip = quiet_extract(videos, tmp_path / "flow", codec="raw", names=["B/v_c.d.avi"])["B/v_c.d"]
    assert (clip.settings.codec, clip.settings.quality) == ("raw", None)
    fields = clip.read(0, clip.length())
    for index, reference in enumerate(reference_flow(videos / "B/v_c.d.avi", (32, 43))):
        expected = quantize_flow(torch.from_numpy(reference)[None, None])
        assert torch.equal(fields.codes[index], expected.codes[0, 0])


def test_the_camera_motion_of_each_field_is_kept_beside_its_mean(videos: Path, tmp_path: Path) -> None:
    """That of the field before it is coded; what is fitted to the coded one is near."""
    clip = quiet_extract(videos, tmp_path / "flow", backward=True, names=["A/v_a.avi"])["A/v_a"]
    greys = reference_greys(videos / "A/v_a.avi", clip.size)
    corners = np.array([[x, y, 1] for x in (0, clip.size[1]) for y in (0, clip.size[0])]).T
    ahead = [dis_flow(one, other) for one, other in pairwise(greys)]
    back = [dis_flow(other, one) for one, other in pairwise(greys)]
    for direction, first, fields in (("forward", 0, ahead), ("backward", 1, back)):
        stored = clip.camera_motion(first, len(fields), direction)
        np.testing.assert_array_equal(stored, camera_motion(torch.from_numpy(np.stack(fields))[None])[0])
        coded = clip.read(first, len(fields), direction)
        fitted = camera_motion(coded.codes[None], lo=coded.lo[None], step=coded.step[None])[0].numpy()
        np.testing.assert_allclose(fitted @ corners, stored @ corners, atol=0.2)


def test_long_videos_are_cut_into_clips_that_join_without_a_seam(tmp_path: Path) -> None:
    """More frames than a clip holds, in threads that share the video: every field is of its own two frames."""
    file = write_video(tmp_path / "videos" / "long.avi", moving_frames(53, size=(32, 48), step=(1, 0), seed=4))
    options: dict[str, Any] = {"backward": True, "quality": 100, "frames_out": tmp_path / "frames", "workers": 4}
    clip = quiet_extract(file.parent, tmp_path / "flow", **options)["long"]
    references = reference_flow(file, (32, 48))
    assert clip.length() == len(references) == 52
    assert len(FrameStore.open(tmp_path / "frames")["long"]) == 53
    lo = clip.read(0, 52).lo
    np.testing.assert_allclose(lo, [field.min((0, 1)) for field in references], rtol=1e-5, atol=1e-6)
    greys = decode_luma(file)
    back = [dis_flow(other, one).min((0, 1)) for one, other in pairwise(greys)]
    np.testing.assert_allclose(clip.read(1, 52, "backward").lo, back, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "most"), [((32, 48), 16), ((300, 400), 4)])
def test_a_method_gets_overlapping_clips_whose_size_follows_from_the_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], most: int
) -> None:
    """A method added to the table is all that it takes; large frames make short clips."""
    seen: list[torch.Tensor] = []

    def numbered(frames: torch.Tensor, device: torch.device, backward: bool) -> ClipFlow:
        assert (frames.dtype, device.type, backward) == (torch.uint8, "cpu", False)
        seen.append(frames)
        return ClipFlow(frames[:-1, :, :, None].expand(-1, -1, -1, 2).float(), None)

    monkeypatch.setitem(METHODS, "numbered", Method(numbered, "brightness", {"of": "a test"}))
    grey_levels = [np.full((*size, 3), 40 + 5 * index, np.uint8) for index in range(21)]
    file = write_video(tmp_path / "videos" / "v.avi", grey_levels)
    store = extract(file.parent, tmp_path / "flow", method="numbered", smallest_side=None, workers=1)
    clip = store["v"]
    assert clip.metadata["parameters"] == {"of": "a test"}
    assert [len(frames) - 1 for frames in seen] == [most] * (20 // most) + [20 % most] * bool(20 % most)
    for one, other in pairwise(seen):
        assert torch.equal(one[-1], other[0])
    found = clip.read(0, 20).lo[:, 0]
    np.testing.assert_allclose(found, [40 + 5 * index for index in range(20)], atol=3)


def test_threads_share_a_single_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three clips of one video meet in the method, each in a thread of its own, while they wait for one another."""
    meeting = threading.Barrier(3)

    def waiting(frames: torch.Tensor, device: torch.device, backward: bool) -> ClipFlow:
        meeting.wait(timeout=30)
        return ClipFlow(torch.zeros(len(frames) - 1, *frames.shape[1:], 2), None)

    monkeypatch.setitem(METHODS, "waiting", Method(waiting, "of a test", {}))
    file = write_video(tmp_path / "videos" / "v.avi", moving_frames(49))
    assert quiet_extract(file.parent, tmp_path / "flow", method="waiting", workers=3)["v"].length() == 48


def test_shards_are_the_whole_and_share_nothing(videos: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    quiet_extract(videos, whole)
    seen: set[str] = set()
    for number in (2, 3, 1):
        before = set(versions(parts))
        quiet_extract(videos, parts, shard=(number, 3))
        made = set(versions(parts)) - before
        assert made
        assert not made & seen
        seen |= made
    assert_same_files(whole, parts)


def test_shards_may_run_at_once_in_one_directory(videos: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    quiet_extract(videos, whole)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: quiet_extract(videos, parts, shard=(number, 3)), (1, 2, 3)))
    assert_same_files(whole, parts)


def test_own_estimator(videos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backward": True, "codec": "raw", "names": ["A/v_a.avi"]}
    store = quiet_extract(videos, tmp_path / "function", estimator=estimators.constant, **options)
    quiet_extract(videos, tmp_path / "name", estimator="estimators:constant", **options)
    assert_same_files(tmp_path / "function", tmp_path / "name")
    assert store.settings.method == "estimators:constant"
    frames = [cv2.resize(frame, (43, 32), interpolation=cv2.INTER_AREA) for frame in decode(videos / "A/v_a.avi")]
    brightness = np.diff([float(frame.mean()) for frame in frames])
    clip = store["A/v_a"]
    for direction, first, sign in (("forward", 0, 1), ("backward", 1, -1)):
        fields = clip.read(first, clip.length(), direction)
        flow = fields.lo[:, None, None] + fields.step[:, None, None] * fields.codes.float()
        np.testing.assert_allclose(flow[:, 0, 0, 0], sign * brightness, atol=1e-3)
        np.testing.assert_allclose(flow[:, 1:], np.broadcast_to(estimators.STEP, flow[:, 1:].shape), atol=1e-2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("of_wrong_shape", r"returned float32 \[5, 32, 42, 2\], expected float32 \[5, 32, 43, 2\]"),
        ("of_wrong_type", r"returned float64 \[5, 32, 43, 2\], expected float32"),
        ("not_finite", "returned values that are not finite"),
        ("failing", "failed: RuntimeError: out of ideas"),
    ],
)
def test_estimators_that_fail(videos: Path, tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ExtractionError, match=rf"^1 of 1 .*A/v_a\.avi: estimator estimators:{name} {reason}"):
        quiet_extract(videos, tmp_path / "flow", estimator=f"estimators:{name}", names=["A/v_a.avi"])


def test_previews_are_beside_the_flow_and_made_again_when_missing(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "flow"
    store = quiet_extract(videos, out)
    assert not list(out.rglob("*.png"))
    made = versions(out)
    quiet_extract(videos, out, preview=True)
    assert versions(out) == made
    pictures = {str(path.relative_to(out)): path for path in out.rglob("*.png")}
    assert sorted(pictures) == [f"{name}.png" for name in store]
    picture = cv2.imread(str(pictures["B/v_c.d.png"]))
    np.testing.assert_array_equal(picture[..., ::-1], draw_clip(videos / "B/v_c.d.avi", store["B/v_c.d"]))
    pictures["B/v_c.d.png"].unlink()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    quiet_extract(videos, out, preview=True)
    assert cv2.imread(str(pictures["B/v_c.d.png"])).shape == picture.shape
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_leftovers_of_killed_runs_are_removed(videos: Path, tmp_path: Path) -> None:
    """In the store and in that of the frames; see test_files for which files are nobody's."""
    left = [tmp_path / store / "A" / ".v_a.safetensors.00000001-00000007.tmp" for store in ("flow", "frames")]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"begun")
        os.utime(path, (0, 0))
    quiet_extract(videos, tmp_path / "flow", frames_out=tmp_path / "frames")
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("length", [230, 251])
def test_a_name_too_long_for_its_file_fails_alone(videos: Path, tmp_path: Path, length: int) -> None:
    (videos / f"{'n' * length}.avi").write_bytes((videos / "A" / "v_a.avi").read_bytes())
    with pytest.raises(ExtractionError, match=r"^1 of 5 .*safetensors: the name is too long$"):
        quiet_extract(videos, tmp_path / "flow")
    assert len(FlowStore.open(tmp_path / "flow")) == 4


def test_no_progress_bar_in_a_file(videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    extract(videos, tmp_path / "flow", smallest_side=32)
    assert capfd.readouterr() == ("", "")


def limited(size: int, call: Callable[[], object]) -> None:
    """Call with a limit on the size of files, which stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "flow"
    with pytest.raises(ExtractionError) as caught:
        limited(2000, lambda: quiet_extract(videos, out))
    assert "safetensors: cannot be written: File too large" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [file.name for file in out.rglob("*") if file.is_file()] == ["store.json"]
    with pytest.raises(ExtractionError, match="other: cannot be written: File too large"):
        limited(10, lambda: quiet_extract(videos, tmp_path / "other"))
    assert not [file for file in (tmp_path / "other").rglob("*") if file.is_file()]


def test_output_that_is_a_file(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "flow").write_text("")
    with pytest.raises(ExtractionError, match="flow: cannot be written"):
        quiet_extract(videos, tmp_path / "flow")


# A pytest that was started in the background may have handed on that SIGINT is ignored.
KILLED = """
import signal, sys
from twostream_ext.extraction import extract
signal.signal(signal.SIGINT, signal.default_int_handler)
extract(sys.argv[1], sys.argv[2], method="dis", smallest_side=32, frames_out=sys.argv[3])
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_killed_run_leaves_whole_files_and_goes_on(tmp_path: Path, kind: signal.Signals) -> None:
    videos, flow, frames = tmp_path / "videos", tmp_path / "flow", tmp_path / "frames"
    first = write_video(videos / "v00.avi", moving_frames(20))
    for index in range(1, 40):
        (videos / f"v{index:02d}.avi").write_bytes(first.read_bytes())
    command = [sys.executable, "-c", KILLED, str(videos), str(flow), str(frames)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as run:
        while len(list(frames.glob("*.safetensors"))) < 3:
            assert run.poll() is None
            time.sleep(0.005)
        run.send_signal(kind)
        assert run.wait(timeout=20) != 0
    done = versions(flow)
    assert 3 <= len(done) < 40
    if kind == signal.SIGINT:
        assert not list(flow.glob(".*.tmp"))
    for file in done:
        with safe_open(file, framework="numpy") as opened:
            assert opened.get_tensor("forward.lo").shape == (19, 2)
    store = quiet_extract(videos, flow, frames_out=frames)
    assert len(store) == len(FrameStore.open(frames)) == 40
    after = versions(flow)
    assert all(after[file] == made for file, made in done.items())
    for name in store:
        assert store[name].frame_count == 20


def test_real_clips(shared_data: Path, tmp_path: Path) -> None:
    names = ["HandShaking/v_HandShaking_g01_c01.mp4", "Punching/v_Punching_g05_c01.mp4"]
    store = quiet_extract(shared_data / "ut-interaction", tmp_path / "flow", smallest_side=48, names=names)
    assert len(store) == 2
    for file, name in zip(names, store, strict=True):
        assert store[name].frame_count == len(decode(shared_data / "ut-interaction" / file))
        fields = store[name].read(10, 10)
        assert float(fields.step.max()) > 0


def test_what_ctrl_c_waits_for_is_short_and_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch of TV-L1 on the CPU has 2^19 pixels, or two frames: half a second on a processor of its own."""
    write_video(tmp_path / "videos" / "a.avi", moving_frames(6, size=(300, 400)))
    given: list[tuple[int, int, int]] = []

    def note(frames: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        given.append(tuple(frames.shape))  # type: ignore[arg-type]
        return estimate_clip_flow(frames, *arguments, **options)

    monkeypatch.setattr(job, "estimate_clip_flow", note)
    quiet_extract(tmp_path / "videos", tmp_path / "short", smallest_side=None)
    assert [shape[0] for shape in given] == [5, 2]
    monkeypatch.setitem(job._PIXELS, "cpu", 1 << 30)
    quiet_extract(tmp_path / "videos", tmp_path / "long", smallest_side=None)
    assert [shape[0] for shape in given] == [5, 2, 6]
    assert_same_files(tmp_path / "short", tmp_path / "long")
