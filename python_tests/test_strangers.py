# SPDX-License-Identifier: BSD-3-Clause
"""Files from strangers: no file takes much memory or time for what it claims, and no name in one leaves its folder."""

from __future__ import annotations

import json
import resource
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from processes import in_a_process
from released_files import caffe_net, matconvnet_layers, save_matconvnet
from stores import smooth_fields
from torch import nn
from videos import encode_video, moving_frames

from twostream_ext.data import read_ucf_lists
from twostream_ext.engine import load_model, load_scores
from twostream_ext.engine.checkpoint import _MODEL
from twostream_ext.engine.scores import _KIND as SCORES
from twostream_ext.errors import FlowStoreError, ListError, TwoStreamError
from twostream_ext.extraction import extract
from twostream_ext.flow import FlowStore, write_flow_clip
from twostream_ext.media import FrameReader, FrameStore, open_video, write_frame_clip
from twostream_ext.models import BackboneSettings, SpatialNet, load_pretrained, register_backbone
from twostream_ext.tensor_files import write_tensors

MEMORY = 1 << 30  # bytes, beyond what a process has
SECONDS = 5.0
LARGE = (16200, 16200)  # pixels: a gigabyte, and still what FFmpeg takes for possible
LARGER = (65500, 65500)

FRAMES = moving_frames(3, size=(32, 48))


def patched(data: bytes, mark: bytes, offset: int, layout: str, *values: int) -> bytes:
    """Bytes with other numbers at a place behind each occurrence of a mark."""
    changed, place = bytearray(data), data.find(mark)
    assert place >= 0
    while place >= 0:
        struct.pack_into(layout, changed, place + offset, *values)
        place = changed.find(mark, place + 1)
    return bytes(changed)


def as_gif(path: Path, size: tuple[int, int]) -> None:
    data = encode_video(path, FRAMES, "gif", pixels="rgb8", fps=10).read_bytes()
    path.write_bytes(patched(data, b"GIF89a", 6, "<HH", *size))


def as_png(path: Path, size: tuple[int, int]) -> None:
    """PNGs in a .mov, whose heads are sound: their sums are right."""
    data = encode_video(path, FRAMES, "png", pixels="rgb24").read_bytes()
    path.write_bytes(png_of(data, size))


def png_of(data: bytes, size: tuple[int, int]) -> bytes:
    data = patched(data, b"IHDR", 4, ">II", *size)
    place = data.index(b"IHDR")
    return patched(data, b"IHDR", 17, ">I", zlib.crc32(data[place : place + 17]))


def as_jpegs(path: Path, size: tuple[int, int]) -> None:
    data = encode_video(path, FRAMES, "mjpeg", pixels="yuvj420p").read_bytes()
    path.write_bytes(patched(data, b"\xff\xc0", 5, ">HH", *size))


def as_vp8(path: Path, size: tuple[int, int]) -> None:
    data = encode_video(path, FRAMES, "libvpx", options={"deadline": "realtime", "cpu-used": "8"}).read_bytes()
    path.write_bytes(patched(data, b"\x9d\x01\x2a", 3, "<HH", *(min(side, 16383) for side in size)))


def as_raw(path: Path, size: tuple[int, int]) -> None:
    data = encode_video(path, FRAMES, "rawvideo", pixels="bgr24").read_bytes()
    path.write_bytes(patched(data, b"strf", 12, "<ii", *size))


def as_huffyuv(path: Path, size: tuple[int, int]) -> None:
    data = encode_video(path, FRAMES, "huffyuv", pixels="yuv422p").read_bytes()
    path.write_bytes(patched(data, b"strf", 12, "<ii", *size))


def as_images(path: Path, size: tuple[int, int]) -> None:
    path.mkdir()
    for number in (1, 2):
        ending = path.suffix
        data = cv2.imencode(ending, FRAMES[0])[1].tobytes()
        changed = png_of(data, size) if ending == ".png" else patched(data, b"\xff\xc0", 5, ">HH", *size)
        (path / f"img_{number:05d}{ending}").write_bytes(changed)


def read_video_file(path: Path) -> None:
    for frame in open_video(path, smallest_side=32).frames:
        frame.rgb()


def read_window(path: Path) -> None:
    FrameReader(path, smallest_side=32).read(0, 1)


def flow_clip(path: Path, change: Callable[[bytes], bytes]) -> None:
    write_flow_clip(path, forward=smooth_fields(2, size=(8, 9)), codec="jpeg", method="dis")
    path.write_bytes(change(path.read_bytes()))


def read_flow(path: Path) -> None:
    FlowStore.open(path.parent)[path.stem].read(0, 1)


def frame_clip(path: Path) -> None:
    write_frame_clip(path, FRAMES)
    path.write_bytes(patched(path.read_bytes(), b"\xff\xc0", 5, ">HH", *LARGER))
    noted = path.read_bytes()
    old, new = b"[32, 48]", b"[9999, 9999]"
    path.write_bytes(with_longer_header(noted, old, new))


def with_longer_header(data: bytes, old: bytes, new: bytes) -> bytes:
    """A tensor file with other words in its header; the checksum is taken off those who look at it."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(old, new)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def peek_frames(path: Path) -> None:
    clip = FrameStore.open(path.parent).peek(path.stem)
    clip.read(0)


def header_of(claim: int) -> Callable[[bytes], bytes]:
    return lambda data: claim.to_bytes(8, "little") + data[8:]


def tensor_of(shape: list[int], end: int) -> bytes:
    metadata = {"kind": SCORES, "description": json.dumps({"names": [], "made_from": {}})}
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    header = json.dumps({"__metadata__": metadata, "scores": entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


class Giant(nn.Sequential):
    """A backbone of 160 GB."""

    hidden = 2

    def __init__(self, _: BackboneSettings) -> None:
        super().__init__(*(nn.Linear(1 << 13, 1 << 13) for _ in range(640)))


def model_of(**changes: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        settings = asdict(SpatialNet(2, width=0.05, input_size=64).settings) | changes
        names = {name: ["a"] * min(count, 3) for name, count in settings["classes"].items()}
        description = {"net": settings, "classes": names, "made_from": {}}
        write_tensors(path, _MODEL, {"x": torch.zeros(3)}, description)

    return write


def matlab_of(path: Path) -> None:
    """Zeros, a thousand times smaller than what they become, in a sound file."""
    layers = matconvnet_layers(caffe_net(2, 1 / 96), old=False)
    save_matconvnet(path, layers, np.zeros((1, 1, 3), np.float32), old=False)
    machine = zlib.compressobj(9, wbits=-15)
    block = machine.compress(bytes(1 << 20)) + machine.flush(zlib.Z_FULL_FLUSH)  # stands by itself, and so again
    packed = b"\x78\x9c" + block * 1500
    path.write_bytes(path.read_bytes() + struct.pack("<II", 15, len(packed)) + packed)


def read_released(path: Path) -> None:
    load_pretrained(SpatialNet(2, width=1 / 96), path)


def tree_of(path: Path) -> None:
    (path / "v").mkdir(parents=True)
    data = patched(cv2.imencode(".jpg", FRAMES[0][..., 0])[1].tobytes(), b"\xff\xc0", 5, ">HH", *LARGER)
    for axis in "xy":
        (path / "v" / f"flow_{axis}_00001.jpg").write_bytes(data)


def read_tree(path: Path) -> None:
    FlowStore.open(path)["v"].read(0, 1)


Case = tuple[str, Callable[[Path], object], Callable[[Path], object]]

VIDEOS: list[Case] = [
    (f"{size[0]}{name}", lambda path, write=write, size=size: write(path, size), read_video_file)  # type: ignore[misc]
    for size in ((9000, 8000), LARGE, LARGER)
    for name, write in {
        ".gif": as_gif,
        ".mov": as_png,
        ".avi": as_jpegs,
        ".webm": as_vp8,
        "raw.avi": as_raw,
        "huffyuv.avi": as_huffyuv,
        ".png": as_images,
        ".jpg": as_images,
    }.items()
]
OTHERS: list[Case] = [
    ("window.gif", lambda path: as_gif(path, LARGE), read_window),
    ("header.safetensors", lambda path: flow_clip(path, header_of(1 << 60)), read_flow),
    ("flow.safetensors", lambda path: flow_clip(path, lambda data: data.replace(b"[8, 9]", b"[8,99]")), read_flow),
    ("frames.safetensors", frame_clip, peek_frames),
    ("scores.safetensors", lambda path: path.write_bytes(tensor_of([1 << 20, 1 << 20], 16)), load_scores),
    ("scores_end.safetensors", lambda path: path.write_bytes(tensor_of([1 << 35], 1 << 37)), load_scores),
    ("model_header.safetensors", lambda path: path.write_bytes(header_of(1 << 60)(bytes(100))), load_model),
    ("backbone.safetensors", model_of(backbone="giant_of_a_stranger"), load_model),
    ("width.safetensors", model_of(width=1e6), load_model),
    ("width_infinite.safetensors", model_of(width=1e300), load_model),
    ("input_size.safetensors", model_of(input_size=1 << 40), load_model),
    ("classes.safetensors", model_of(classes={"default": 1 << 40}), load_model),
    ("channels.safetensors", model_of(channels=1 << 40), load_model),
    ("released.mat", matlab_of, read_released),
    ("tree", tree_of, read_tree),
]


def read_in_a_child(read: Callable[[Path], object], path: Path) -> str:
    """What reading says, in a child that may take a gigabyte more than it has."""

    # Here: in a child that was forked it would wait for the threads of its parent, if OpenCV has any.
    cv2.setNumThreads(1)

    def run() -> str:
        torch.set_num_threads(1)
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))
        register_backbone("giant_of_a_stranger", Giant)
        try:
            read(path)
        except TwoStreamError as error:
            return f"refused: {error}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return "read"

    told, status = in_a_process(run)
    return told or f"ended with {status}"


@pytest.mark.unsanitized  # a sanitizer's shadow is larger than any limit
@pytest.mark.parametrize(("name", "write", "read"), [*VIDEOS, *OTHERS], ids=[case[0] for case in [*VIDEOS, *OTHERS]])
def test_no_file_takes_memory_for_what_it_claims(
    tmp_path: Path, name: str, write: Callable[[Path], object], read: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    write(path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = read_in_a_child(read, path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert told.startswith("refused: "), told
    assert str(path) in told
    reason = told.replace(str(path), "")
    assert "memory" not in reason  # the limit itself
    assert "allocate" not in reason
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["../../etc/x.avi", "A/../../etc/x.avi", "/etc/A/x.avi", "A/\0x.avi", "A\\..\\x.avi", "..", "../A/x.avi", "A/.."],
)
def test_a_line_of_a_list_names_nothing_outside_the_videos(tmp_path: Path, line: str) -> None:
    outside = tmp_path / "etc"
    (outside / "A").mkdir(parents=True)
    (outside / "x.avi").touch()
    videos = tmp_path / "a" / "b"
    (videos / "A").mkdir(parents=True)
    (videos / "A" / "ok.avi").touch()
    for name, text in {"classInd": "1 A\n2 etc\n3 ..\n", "trainlist01": "A/ok.avi\n", "testlist01": line}.items():
        (videos / f"{name}.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ListError, match=r"testlist01\.txt, line 1: ") as caught:
        read_ucf_lists(videos, videos)
    assert len(str(caught.value).splitlines()) == 1


def own_store(folder: Path) -> None:
    write_flow_clip(folder / "v.safetensors", forward=smooth_fields(2, size=(8, 9)), codec="jpeg", method="dis")


def tsn_tree(folder: Path) -> None:
    (folder / "v").mkdir(parents=True)
    for axis in "xy":
        cv2.imwrite(str(folder / "v" / f"flow_{axis}_00001.jpg"), FRAMES[0][..., 0])


@pytest.mark.parametrize("write", [own_store, tsn_tree])
@pytest.mark.parametrize("linked", ["folder", "video", "plane"])
def test_links_in_a_store_are_not_followed_out_of_it(
    tmp_path: Path, write: Callable[[Path], None], linked: str
) -> None:
    """Those inside it are: some have a second name for a class. The store itself may be found by a link."""
    outside, root = tmp_path / "outside", tmp_path / "store"
    write(outside)
    write(root / "A")
    (video,) = [each for each in outside.iterdir() if each.stem == "v"]
    if linked == "folder":
        (root / "B").symlink_to(outside)
    elif linked == "video" or write is own_store:
        (root / "B").mkdir()
        (root / "B" / video.name).symlink_to(video)
    else:
        (root / "B" / "v").mkdir(parents=True)
        for plane in video.iterdir():
            (root / "B" / "v" / plane.name).symlink_to(plane)
    (root / "again").symlink_to("A")
    (tmp_path / "store by a link").symlink_to(root)
    for path in (root, tmp_path / "store by a link"):
        store = FlowStore.open(path)
        assert "A/v" in store
        assert store["again/v"].frame_count == store["A/v"].frame_count
        assert "B/v" not in store
        with pytest.raises(FlowStoreError, match=r"/B/v.*: leads out of .* by a link, which is not followed|no video"):
            _ = store["B/v"]


def test_nothing_is_extracted_through_a_link_out_of_the_store(tmp_path: Path) -> None:
    encode_video(tmp_path / "videos" / "A" / "v.mkv", FRAMES, "ffv1", pixels="bgr0")
    (tmp_path / "outside").mkdir()
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "A").symlink_to(tmp_path / "outside")
    with pytest.raises(FlowStoreError, match=r"flow/A/v\.safetensors: leads out of"):
        extract(tmp_path / "videos", tmp_path / "flow", method="dis", smallest_side=None, progress=False)
    assert not list((tmp_path / "outside").iterdir())


def test_the_limit_is_one() -> None:
    """A child that takes what it may not is told: else the tests above prove nothing."""
    told = read_in_a_child(lambda _: np.ones(3 << 30, np.uint8), Path())
    assert "MemoryError" in told or "allocate" in told, told
