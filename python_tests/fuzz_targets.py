# SPDX-License-Identifier: BSD-3-Clause
"""All that reads what others may have written, as a table: sound files of each kind, how they are changed and read."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from fuzz_mutators import (
    Mutator,
    mutate_bytes,
    mutate_folder,
    mutate_json,
    mutate_protobuf,
    mutate_tensor_file,
    mutate_text,
    pack_folder,
    unpack_folder,
)
from fuzz_operators import call_operator
from released_files import binaryproto, caffe_net, caffemodel, matconvnet_layers, save_matconvnet
from safetensors.torch import save_file
from stores import smooth_fields
from torch import nn

from twostream_ext.data import Split, read_hmdb_lists, read_source, read_tsn_lists, read_ucf_lists, split_folders
from twostream_ext.engine import (
    TrainSettings,
    load_model,
    load_scores,
    read_any_summary,
    read_run,
    read_training_log,
    save_model,
    save_scores,
)
from twostream_ext.engine.checkpoint import load_checkpoint, save_checkpoint
from twostream_ext.engine.training_log import _keep_rows as keep_rows
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.flow import FlowStore, write_flow_clip
from twostream_ext.media import FrameStore, write_frame_clip
from twostream_ext.models import (
    BackboneSettings,
    SpatialNet,
    SVMFusion,
    TemporalNet,
    load_pretrained,
    register_backbone,
)
from twostream_ext.models.caffe import read_binaryproto
from twostream_ext.settings_files import claim
from twostream_ext.tensor_files import read_weights

OPERATORS = "operators"
TRAIN = TrainSettings(iterations=4, batch_size=2)


class Target(NamedTuple):
    name: str
    seeds: Callable[[Path], list[bytes]]
    """Sound inputs, made in an empty folder."""
    mutate: Mutator
    lay: Callable[[Path, bytes], Path]
    """Puts an input into a folder of its own, and gives the path that errors shall name."""
    read: Callable[[Any], object]
    """Takes that path, or of operators the input itself."""
    writes: bool = False
    """Reading goes with writing."""


class Small(nn.Linear):
    """A backbone of eight weights, so that files of nets are small."""

    hidden = 2

    def __init__(self, settings: BackboneSettings) -> None:
        super().__init__(settings.channels, self.hidden)


def one_file(name: str) -> Callable[[Path, bytes], Path]:
    def lay(folder: Path, data: bytes) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return lay


def many_files(folder: Path, data: bytes) -> Path:
    """The files of an input in a folder that holds nothing else."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in unpack_folder(data).items():
        if ".." in name.split("/") or name.startswith("/"):
            continue
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        except (OSError, ValueError):  # a name that no file system takes
            continue
    return root


# ---- stores --------------------------------------------------------------------------------------------------------


def flow_clips(folder: Path) -> list[bytes]:
    inputs = []
    for codec in ("jpeg", "raw"):
        path = folder / f"{codec}.safetensors"
        fields = smooth_fields(2, size=(8, 9))
        write_flow_clip(path, forward=fields, backward=fields, codec=codec, method="dis", parameters={"speed": 2})
        inputs.append(path.read_bytes())
    return inputs


def read_flow(path: Path) -> None:
    clip = FlowStore.open(path.parent)[path.stem]
    for number, direction in enumerate(clip.directions):
        clip.read(number, min(2, clip.length(direction)), direction)


def frame_clips(folder: Path) -> list[bytes]:
    path = folder / "frames.safetensors"
    frames = [np.full((8, 9, 3), shade, np.uint8) for shade in (0, 90)]
    write_frame_clip(path, frames)
    return [path.read_bytes()]


def read_frames(path: Path) -> None:
    clip = FrameStore.open(path.parent)[path.stem]
    for index in range(min(len(clip), 2)):
        clip.read(index)


def stores_with_settings(folder: Path) -> list[bytes]:
    clip = flow_clips(folder)[1]
    settings = {"method": "dis", "smallest_side": None, "codec": "raw", "quality": None, "bound": None, "frame_step": 1}
    text = json.dumps({"kind": "flow", **settings, "directions": ["forward", "backward"]})
    return [pack_folder({"store.json": text.encode(), "A/v.safetensors": clip})]


def flow_trees(folder: Path) -> list[bytes]:
    def plane(shade: int) -> bytes:
        return cv2.imencode(".jpg", np.full((8, 9), shade, np.uint8))[1].tobytes()

    numbers = (1, 2)
    both = ("flow_x_", "flow_y_")
    tsn = {f"A/v/{prefix}{number:05d}.jpg": plane(100 + number) for prefix in both for number in numbers}
    backward = {f"A/v/flow_{axis}_m1_0000{number}.jpg": plane(90) for axis in "xy" for number in (2, 3)}
    short = {f"v/{axis}_{number:05d}.jpg": plane(number) for axis in "xy" for number in (0, 1)}
    halves = {f"{part}/v/frame00000{number}.jpg": plane(number) for part in "uv" for number in numbers}
    ranges = np.array([[[-1, 1], [0, 3]], [[0, 0], [-2, 2]]], "<f4").tobytes()
    return [pack_folder(each) for each in (tsn, tsn | backward, short, halves, halves | {"u/v.bin": ranges})]


def read_tree(root: Path) -> None:
    store = FlowStore.open(root)
    for name in list(store)[:2]:
        clip = store[name]
        for number, direction in enumerate(clip.directions):
            clip.read(number, min(2, clip.length(direction)), direction)


# ---- nets and scores -----------------------------------------------------------------------------------------------


def small_net() -> TemporalNet:
    return TemporalNet({"one": 2, "two": 3}, length=1, backbone="fuzz_small", dropout=0.0)


def models(folder: Path) -> list[bytes]:
    path = folder / "model.safetensors"
    save_model(path, small_net(), {"one": ["a", "b"], "two": ["c", "d", "e"]})
    return [path.read_bytes()]


def read_model(path: Path) -> None:
    net, classes = load_model(path)
    assert {name: len(names) for name, names in classes.items()} == net.settings.classes
    assert all(isinstance(each, str) for names in classes.values() for each in names)


def checkpoints(folder: Path) -> list[bytes]:
    path = folder / "checkpoint.safetensors"
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(path, net, optimizer, TRAIN, 2)
    return [path.read_bytes()]


def read_checkpoint(path: Path) -> None:
    net = small_net()
    iteration = load_checkpoint(path, net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), TRAIN)
    assert type(iteration) is int
    assert 0 <= iteration <= TRAIN.iterations


def scores(folder: Path) -> list[bytes]:
    path = folder / "scores.safetensors"
    save_scores(path, ["A/a", "B/b"], torch.tensor([0, 1]), torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    return [path.read_bytes()]


def read_scores(path: Path) -> None:
    names, labels, values = load_scores(path)[:3]
    assert all(isinstance(name, str) for name in names)
    assert (labels.dtype, labels.shape) == (torch.int64, (len(names),))
    assert values.dtype == torch.float32
    assert values.ndim == 2
    assert len(values) == len(names)


def machines(folder: Path) -> list[bytes]:
    path = folder / "svm.safetensors"
    values = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    SVMFusion().fit([values, values], torch.tensor([0, 1])).save(path)
    return [path.read_bytes()]


def read_machine(path: Path) -> None:
    machine = SVMFusion.load(path)
    values = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    try:
        predicted = machine.predict([values] * 2)
    except SettingsError:  # one for another number of scores
        return
    assert predicted.dtype == torch.int64
    assert predicted.shape == (2,)


# ---- released weights ----------------------------------------------------------------------------------------------

WIDTH = 1 / 96  # one to 43 units a layer


def matlab_files(folder: Path) -> list[bytes]:
    blobs, inputs = caffe_net(2, WIDTH), []
    for old, count in ((True, 8), (True, 1), (False, 1)):
        chosen = {name: blobs[name] for name in list(blobs)[:count]}
        path = folder / "net.mat"
        save_matconvnet(path, matconvnet_layers(chosen, old=old)[:-1], np.ones((1, 1, 3), np.float32), old=old)
        inputs.append(path.read_bytes())
    return inputs


def caffe_files(folder: Path) -> list[bytes]:
    blobs = caffe_net(2, WIDTH)
    first = {"conv1": blobs["conv1"]}
    return [caffemodel(first, old=True), caffemodel(first, old=False), caffemodel(blobs, old=False)]


def read_released(path: Path) -> None:
    net = SpatialNet(2, width=WIDTH)
    load_pretrained(net, path)


def mean_files(folder: Path) -> list[bytes]:
    image = np.ones((3, 2, 2), np.float32)
    return [binaryproto(image), binaryproto(image.astype(np.float64))]


# ---- text ----------------------------------------------------------------------------------------------------------


def lists(folder: Path) -> list[bytes]:
    classes = b"1 A\n2 B\n10 C\n".replace(b"10", b"3")
    videos = {"A/v_1.avi": b"", "A/v 2.avi": b"", "B/v_3.avi": b""}
    train, test = b"A/v_1.avi 1\r\nA/v 2.avi 1\r\n", b"B/v_3.avi\n\n"
    return [pack_folder({"classInd.txt": classes, "trainlist01.txt": train, "testlist01.txt": test, **videos})]


def read_lists(root: Path) -> None:
    split = read_ucf_lists(root, root)
    for video in (*split.train, *split.test):
        assert split.classes[video.label] in video.path
        assert ".." not in video.path.split("/")


def hmdb_lists(folder: Path) -> list[bytes]:
    clips = {"kick/a!#&()+;@[]~_1.avi": b"", "kick/b 2.avi": b"", "kick_ball/c.avi": b""}
    lists = {
        "kick_test_split1.txt": b"a!#&()+;@[]~_1.avi 1 \nb 2.avi 2 \n",
        "kick_ball_test_split1.txt": b"c.avi 1 \r\n",
    }
    return [pack_folder(lists | clips), pack_folder(lists | clips | {"classInd.txt": b"1 kick_ball\n2 kick\n"})]


def tsn_lists(folder: Path) -> list[bytes]:
    images = {f"{name}/img_0000{number}.jpg": b"" for name in ("A/v.1", "B/v 2", "B/v3") for number in (1, 2)}
    frames = {"ucf101_train_split_1_rawframes.txt": b"A/v.1 2 0\r\nB/v3 2 1\r\n"}
    frames |= {"ucf101_val_split_1_rawframes.txt": b"B/v 2 3 1\n"}
    videos = {
        "x_train_list.txt": b"A/a.avi 1\n",
        "x_test_list.txt": b"/data/v/B/b.avi 2\n",
        "A/a.avi": b"",
        "B/b.avi": b"",
    }
    classes = {"classInd.txt": b"1 A\n2 B\n"}
    return [pack_folder(each) for each in (frames | images, frames | images | classes, videos, videos | classes)]


def class_folders(folder: Path) -> list[bytes]:
    names = [f"{name}/v_{name}_g{group:02d}_c1.avi" for name in "AB" for group in (1, 2, 3)]
    images = [f"C/{video}/{number}.jpg" for video in "xy" for number in (1, 2)]
    return [pack_folder(dict.fromkeys((*names, *images), b""))]


def reading(read: Callable[[Path], Split]) -> Callable[[Path], None]:
    """All that is read is in the folder, and of a class that there is."""

    def read_and_check(root: Path) -> None:
        split = read(root)
        for video in (*split.train, *split.test):
            assert 0 <= video.label < len(split.classes)
            assert ".." not in video.path.split("/")
            assert (root / video.path).exists()

    return read_and_check


def data_files(folder: Path) -> list[bytes]:
    text = 'videos = "v"\nlists = "l"\nformat = "ucf"\nsplit = 2\nflow = "f"\nframes = "/x"\nleave_out = ["A", "B"]\n'
    return [text.encode() + b"whole = true\n", b"videos = 'v' # here\n"]


def read_data_file(path: Path) -> None:
    source = read_source(path)
    assert isinstance(source.videos, Path)
    assert type(source.split) is int
    assert all(isinstance(name, str) for name in source.leave_out)


def runs(folder: Path) -> list[bytes]:
    settings = {"videos": "/v", "lists": "/l", "split": 1, "seed": 0, "epochs": [1, 2.5], "backbone": "cnn_m_2048"}
    return [json.dumps(settings).encode()]


def run_folder(folder: Path, data: bytes) -> Path:
    """Errors may name the folder alone: settings that are not those asked for are no fault of the file."""
    return one_file("run.json")(folder, data).parent


def read_settings_of_run(folder: Path) -> None:
    assert isinstance(read_run(folder), dict)
    claim(folder / "run.json", {"videos": "/v", "split": 1}, CheckpointError)


def summaries(folder: Path) -> list[bytes]:
    summary = {
        "top1": {"spatial": 0.5, "average": 1.0},
        "videos": {"train": 3, "test": 2},
        "classes": ["a", "b"],
        "recipe": {"length": 10},
    }
    measures = {
        "top1": {"spatial": 0.5},
        "interval": {"spatial": [0.4, 0.6]},
        "mean_class": {"spatial": 0.5},
        "mean_class_interval": {"spatial": [0.4, 0.6]},
    }
    split = {**measures, "videos": {"train": 3, "test": 2}}
    of_splits = {**measures, "splits": {"1": split, "2": split}, "classes": ["a", "b"], "recipe": {}, "notes": ["x"]}
    row = {"top1": 0.5, "interval": [0.4, 0.6], "mean_class": 0.5, "seeds": 3, "paper": 0.8, "setting": {"text": "row"}}
    left_out = {"setting": {"text": "row"}, "reason": "why", "paper": 0.8}
    of_table = {"table": "table2", "rows": [row], "not_run": [left_out], "splits": 1, "recipe": {}}
    return [json.dumps(each).encode() for each in (summary, of_splits, of_table)]


def read_result_of_run(path: Path) -> None:
    assert isinstance(read_any_summary(path.parent), dict)


def logs(folder: Path) -> list[bytes]:
    return [b"iteration,loss,learning_rate,seconds,seconds_waiting\n0,0.7,0.01,0.1,0\n1,0.6,0.01,0.1,0\n2,"]


def read_log(path: Path) -> None:
    read_training_log(path)
    keep_rows(path, 2)


def pickled_weights(folder: Path) -> list[bytes]:
    """As torch writes them now, as it wrote them, and inside what a training script keeps beside them."""
    weights = {"a.weight": torch.arange(6.0).view(2, 3), "a.counter": torch.tensor(3)}
    inputs = []
    for content, is_new in ((weights, True), (weights, False), ({"state_dict": weights, "epoch": 2}, True)):
        torch.save(content, folder / "weights.pt", _use_new_zipfile_serialization=is_new)
        inputs.append((folder / "weights.pt").read_bytes())
    return inputs


def weights_as_safetensors(folder: Path) -> list[bytes]:
    save_file({"a.weight": torch.arange(6.0).view(2, 3), "module.b": torch.tensor(3)}, folder / "weights")
    return [(folder / "weights").read_bytes()]


def read_foreign_weights(path: Path) -> None:
    for name, tensor in read_weights(path).items():
        assert isinstance(name, str)
        assert tensor.sum().numel() == 1


# ---- operators -----------------------------------------------------------------------------------------------------


def calls(folder: Path) -> list[bytes]:
    draw = random.Random(0)
    return [bytes([number]) + draw.randbytes(40) for number in range(60)]


TARGETS = {
    target.name: target
    for target in (
        Target("flow clip", flow_clips, mutate_tensor_file, one_file("clip.safetensors"), read_flow),
        Target("frame clip", frame_clips, mutate_tensor_file, one_file("clip.safetensors"), read_frames),
        Target("store settings", stores_with_settings, mutate_folder(mutate_json), many_files, read_tree),
        Target("flow tree", flow_trees, mutate_folder(mutate_bytes), many_files, read_tree),
        Target("model", models, mutate_tensor_file, one_file("model.safetensors"), read_model),
        Target("checkpoint", checkpoints, mutate_tensor_file, one_file("checkpoint.safetensors"), read_checkpoint),
        Target("scores", scores, mutate_tensor_file, one_file("scores.safetensors"), read_scores),
        Target("svm", machines, mutate_tensor_file, one_file("svm.safetensors"), read_machine),
        Target("matconvnet", matlab_files, mutate_bytes, one_file("net.mat"), read_released),
        Target("caffemodel", caffe_files, mutate_protobuf, one_file("net.caffemodel"), read_released),
        Target("binaryproto", mean_files, mutate_protobuf, one_file("mean.binaryproto"), read_binaryproto),
        Target("pickled weights", pickled_weights, mutate_bytes, one_file("net.pt"), read_foreign_weights),
        Target(
            "weights", weights_as_safetensors, mutate_tensor_file, one_file("net.safetensors"), read_foreign_weights
        ),
        Target("lists", lists, mutate_folder(mutate_text), many_files, read_lists),
        Target(
            "hmdb lists", hmdb_lists, mutate_folder(mutate_text), many_files, reading(lambda r: read_hmdb_lists(r, r))
        ),
        Target("tsn lists", tsn_lists, mutate_folder(mutate_text), many_files, reading(lambda r: read_tsn_lists(r, r))),
        Target("class folders", class_folders, mutate_folder(mutate_text), many_files, reading(split_folders)),
        Target("data file", data_files, mutate_text, one_file("set.toml"), read_data_file),
        Target("run settings", runs, mutate_json, run_folder, read_settings_of_run),
        Target("summary", summaries, mutate_json, one_file("summary.json"), read_result_of_run),
        Target("training log", logs, mutate_text, one_file("log.csv"), read_log, writes=True),
        Target(OPERATORS, calls, mutate_bytes, one_file("call"), call_operator),
    )
}


def seeds_of(target: Target) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return target.seeds(Path(folder))


def register_small_net() -> None:
    """Make the backbone of the nets in the seeds known; to be called before they are made."""
    register_backbone("fuzz_small", Small)
