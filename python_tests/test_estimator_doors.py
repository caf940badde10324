# SPDX-License-Identifier: BSD-3-Clause
"""Flow by other packages' nets: the real packages where they can be imported, else stand-ins with their interface."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import pickle
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from test_extract import assert_same_files, versions
from torch import Tensor, nn
from torchvision_package import import_torchvision
from videos import decode, moving_frames, write_video

from twostream_ext import _C
from twostream_ext.cli import main
from twostream_ext.devices import find_device
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.extraction import extract
from twostream_ext.flow import (
    FlowStore,
    NetEstimator,
    estimator_name,
    net_estimator,
    net_libraries,
    nets,
    run_estimator,
)

Frames = npt.NDArray[np.uint8]
SMALL = "torchvision:raft_small"


@pytest.fixture(scope="module")
def torchvision() -> ModuleType:
    return import_torchvision()


@pytest.fixture(scope="module")
def raft(torchvision: ModuleType) -> nn.Module:
    """With weights of no training, which give large and rough flow."""
    torch.manual_seed(5)
    net: nn.Module = torchvision.models.optical_flow.raft_small(weights=None)
    return net.eval()


@pytest.fixture
def weights(raft: nn.Module, tmp_path: Path) -> Path:
    torch.save(raft.state_dict(), tmp_path / "raft.pth")
    return tmp_path / "raft.pth"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Of odd sizes, one too small for RAFT, one not."""
    write_video(tmp_path / "videos" / "A" / "small.avi", moving_frames(3, size=(90, 141)))
    write_video(tmp_path / "videos" / "B" / "large.avi", moving_frames(2, size=(132, 138), step=(1, -3), seed=1))
    return tmp_path / "videos"


def arguments(videos: Path, *options: object) -> list[str]:
    out = videos.parent / "flow"
    return ["extract", str(videos), str(out), "--size", "own", "--codec", "raw", *map(str, options)]


def refusal(videos: Path, capsys: pytest.CaptureFixture[str], *options: object, code: int = 2) -> str:
    """The one line that the command ends with, after which there is nothing of a store."""
    assert main(arguments(videos, *options)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert not (videos.parent / "flow").exists()
    return shown.err.removeprefix("twostream: error: ").removesuffix("\n")


def assert_within_half_a_code(clip: Any, direction: str, expected: list[npt.NDArray[np.float32]]) -> None:
    fields = clip.read(int(direction == "backward"), clip.length(), direction)
    step = fields.step[:, None, None].numpy()
    flow = fields.lo[:, None, None].numpy() + step * fields.codes.numpy()
    assert len(flow) == len(expected)
    assert (np.abs(flow - np.stack(expected)) <= 0.505 * step).all()
    assert (fields.step > 0).all()


# ---- RAFT of torchvision -------------------------------------------------------------------------------------------


def plain_raft(torchvision: ModuleType, net: nn.Module, one: Frames, other: Frames) -> npt.NDArray[np.float32]:
    """As a user of torchvision calls it, with a border as RAFT's authors have it."""
    sides = one.shape[:2]
    lacking = [max(128, (side + 7) // 8 * 8) - side for side in sides]
    around = [(each // 2, each - each // 2) for each in lacking]
    border = [
        torch.from_numpy(np.pad(each, (*around, (0, 0)), mode="edge").transpose(2, 0, 1)) for each in (one, other)
    ]
    prepared = torchvision.models.optical_flow.Raft_Small_Weights.DEFAULT.transforms()(*(each[None] for each in border))
    with torch.no_grad():
        flow = net(*prepared)[-1][0]
    (top, _), (left, _) = around
    inside = flow[:, top : top + sides[0], left : left + sides[1]]
    return np.ascontiguousarray(inside.permute(1, 2, 0).numpy())


def test_the_store_has_the_flow_of_torchvisions_own_raft(
    torchvision: ModuleType, raft: nn.Module, weights: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--estimator", SMALL, "--estimator-weights", weights, "--backward", "--workers", "2"]
    assert main(arguments(videos, *options)) == 0
    assert capsys.readouterr().err == ""
    store = FlowStore.open(videos.parent / "flow")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert store.settings.method == f"{SMALL}@{digest[:8]}"
    for name in ("A/small", "B/large"):
        assert store[name].metadata["parameters"] == {"weights": "raft.pth", "sha256": digest}
        frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in decode(videos / f"{name}.avi")]
        ahead = [plain_raft(torchvision, raft, one, other) for one, other in pairwise(frames)]
        back = [plain_raft(torchvision, raft, other, one) for one, other in pairwise(frames)]
        assert_within_half_a_code(store[name], "forward", ahead)
        assert_within_half_a_code(store[name], "backward", back)


def test_a_store_goes_on_with_the_same_weights_only(
    torchvision: ModuleType, weights: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, part = videos.parent / "whole", videos.parent / "flow"
    options: dict[str, Any] = {"smallest_side": None, "codec": "raw", "progress": False, "device": "cpu"}
    extract(videos, whole, estimator=net_estimator(SMALL, weights), **{**options, "device": "auto"})
    extract(videos, part, estimator=SMALL, estimator_weights=weights, names=["A/small.avi"], **options)
    made = versions(part)
    torch.manual_seed(6)
    other = weights.with_name("other.pth")
    torch.save(torchvision.models.optical_flow.raft_small(weights=None).state_dict(), other)
    assert main(arguments(videos, "--estimator", SMALL, "--estimator-weights", other)) == 2
    digests = [hashlib.sha256(each.read_bytes()).hexdigest()[:8] for each in (weights, other)]
    assert "was made with method {0}@{1}, not {0}@{2}".format(SMALL, *digests) in capsys.readouterr().err
    assert versions(part) == made
    extract(videos, part, estimator=SMALL, estimator_weights=weights, **options)
    assert made.items() <= versions(part).items()
    assert_same_files(whole, part)


def test_other_files_of_the_same_weights(raft: nn.Module, weights: Path) -> None:
    """Lightning's, with plain numbers beside the weights, those of several GPUs, and safetensors."""
    frames = np.stack(moving_frames(2, size=(40, 50)))
    state = raft.state_dict()
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-4}}, weights.with_name("a.ckpt"))
    torch.save({f"module.{name}": each for name, each in state.items()}, weights.with_name("b.pth"))
    save_file(state, weights.with_name("c.safetensors"))
    expected = net_estimator(SMALL, weights, device="cpu")(frames)
    for name in ("a.ckpt", "b.pth", "c.safetensors"):
        np.testing.assert_array_equal(net_estimator(SMALL, weights.with_name(name), device="cpu")(frames), expected)


def wrong_weights(case: str, path: Path, torchvision: ModuleType, raft: nn.Module) -> None:
    if case == "other":
        torch.save(torchvision.models.optical_flow.raft_large(weights=None).state_dict(), path)
    elif case == "pickled":
        torch.save({"state_dict": raft.state_dict(), "hyper_parameters": argparse.Namespace(lr=1)}, path)
    elif case == "text":
        path.write_text("<html>")
    elif case == "list":
        torch.save([torch.zeros(3)], path)
    elif case == "directory":
        path.mkdir()
    elif case == "cut":
        torch.save(raft.state_dict(), path)
        path.write_bytes(path.read_bytes()[:-5000])


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("missing", "no such file; torchvision:raft_small takes https://"),
        ("directory", "cannot be read: Is a directory"),
        (
            "other",
            "is not torchvision:raft_small: weight feature_encoder.convnormrelu.0.weight must be [32, 3, 7, 7], got",
        ),
        ("pickled", "cannot be read as weights: it holds argparse.Namespace, too, and only tensors are taken"),
        ("text", "cannot be read as weights: "),
        ("cut", "cannot be read as weights: "),
        ("list", "does not hold weights by name"),
    ],
)
def test_wrong_files_are_one_line(
    case: str,
    reason: str,
    torchvision: ModuleType,
    raft: nn.Module,
    videos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = videos.parent / "wrong.pth"
    wrong_weights(case, path, torchvision, raft)
    line = refusal(videos, capsys, "--estimator", SMALL, "--estimator-weights", path, code=1)
    assert line.startswith(f"{path}: {reason}")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["torchvision:raft_smal"], "estimator torchvision:raft_smal: torchvision has no 'raft_smal'; did you mean"),
        (["torchvision"], "estimator torchvision: torchvision has no '', expected one of raft_large, raft_small"),
        (["torchvision:resnet18"], "estimator torchvision:resnet18: torchvision has no 'resnet18', expected one of"),
        (
            [SMALL],
            "estimator_weights is missing: torchvision:raft_small takes https://download.pytorch.org/models/raft_s",
        ),
        ([SMALL, "--device", "tpu"], "device is 'tpu', expected auto, cpu or cuda"),
        (
            ["my_flow:f", "--estimator-weights", "a.pth"],
            "estimator_weights is 'a.pth', which is for estimators of torch",
        ),
    ],
)
def test_wrong_names_are_one_line(
    options: list[str], line: str, torchvision: ModuleType, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(videos, capsys, "--estimator", *options).startswith(line)


def test_only_known_packages_have_nets() -> None:
    expected = "estimator is 'brox:gpu', expected one of torchvision:NAME, ptlflow:NAME, nvidia-of:NAME"
    with pytest.raises(SettingsError, match=expected):
        net_estimator("brox:gpu")


def test_weights_are_of_an_estimator(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(videos, capsys, "--estimator-weights", "a.pth").endswith("not for none")


def test_a_file_that_is_replaced_meanwhile_is_not_used(weights: Path, videos: Path) -> None:
    estimator = net_estimator(SMALL, weights, device="cpu")
    torch.save({}, weights)
    with pytest.raises(CheckpointError, match=r"raft\.pth: is another file than when the extraction was begun"):
        extract(videos, videos.parent / "flow", estimator=estimator, progress=False)
    assert not list((videos.parent / "flow").rglob("*.safetensors"))


def test_a_net_goes_to_other_processes_and_folders(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(weights.parent)
    estimator = net_estimator(SMALL, "raft.pth", device="cpu")
    frames = np.stack(moving_frames(2, size=(40, 50)))[:, ::-1]
    expected = estimator(frames)
    monkeypatch.chdir("/")
    nets._idle.clear()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator))(frames), expected)
    assert estimator_name(estimator) == estimator.noted_name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(weights: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--estimator", SMALL, "--estimator-weights", weights, "--device", "cuda"]
    assert refusal(videos, capsys, *options) == "device is 'cuda', but torch finds no GPU"
    assert net_estimator(SMALL, weights).find_device() == torch.device("cpu")


def test_a_device_other_than_that_of_the_estimator(weights: Path, videos: Path) -> None:
    with pytest.raises(SettingsError, match="device is 'cuda', but an estimator of your own chooses its device itself"):
        extract(videos, videos.parent / "flow", estimator=net_estimator(SMALL, weights, device="cpu"), device="cuda")


def test_a_gpu_serves_nets_where_our_kernels_are_built_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_C, "cuda_architectures", list)
    assert find_device("auto").type == "cpu"
    assert find_device("auto", own_kernels=False).type == "cuda"
    assert NetEstimator(SMALL, None, "", "auto").find_device().type == "cuda"


def test_importing_flow_imports_no_library(tmp_path: Path) -> None:
    code = (
        "import sys, twostream_ext.flow, twostream_ext.extraction;"
        "print([m for m in ('torchvision', 'ptlflow', 'lightning', 'of') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# ---- ptlflow -------------------------------------------------------------------------------------------------------


class Pairs(nn.Module):
    """A net of ptlflow's: takes a dict of frames [N, 2, 3, H, W] and gives one of flows [N, 1, 2, H, W]."""

    pretrained_checkpoints = {"things": "https://example.org/pairs-things.ckpt"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.pairs: list[int] = []

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        one, other = inputs["images"].unbind(1)
        assert not self.training
        self.pairs.append(len(one))
        flow = torch.stack([one[:, 0] - 2 * other[:, 1], other[:, 2]], 1) * self.scale[None, :, None, None]
        return {"flows": flow[:, None]}


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[Pairs]:
    """Nets that were made, by a stand-in for ptlflow with the functions that it documents."""
    made: list[Pairs] = []

    def get_model(name: str, ckpt_path: str | None = None) -> Pairs:
        assert (name, ckpt_path) == ("pairs", None)
        made.append(Pairs())
        return made[-1]

    package = ModuleType("ptlflow")
    functions = SimpleNamespace(
        get_model=get_model, get_model_names=lambda: ["pairs", "rapidflow"], get_model_reference=lambda name: Pairs
    )
    package.__dict__.update(vars(functions))
    monkeypatch.setitem(sys.modules, "ptlflow", package)
    return made


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    torch.save({"state_dict": {"scale": torch.tensor([3.0, -5.0])}}, tmp_path / "pairs.ckpt")
    return tmp_path / "pairs.ckpt"


def expected_of_pairs(frames: Frames) -> npt.NDArray[np.float64]:
    """In float64: blue of the first less twice green of the second, and red of the second; scaled."""
    red, green, blue = np.moveaxis(frames.astype(np.float64) / 255, -1, 0)
    return np.stack([3 * (blue[:-1] - 2 * green[1:]), -5 * red[1:]], -1)


@pytest.mark.parametrize("at_once", [None, 2, 9])
def test_nets_of_ptlflow_take_bgr_from_0_to_1(
    at_once: int | None, pairs: list[Pairs], scale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if at_once:
        monkeypatch.setattr(net_libraries, "_pairs_at_once", lambda *_: at_once)
    frames = np.stack(moving_frames(6, size=(21, 30)))
    flow = net_estimator("ptlflow:pairs", scale, device="cpu")(frames)
    assert (flow.dtype, flow.shape) == (np.float32, (5, 21, 30, 2))
    np.testing.assert_allclose(flow, expected_of_pairs(frames), atol=1e-5)
    assert pairs[-1].pairs == {None: [1] * 5, 2: [2, 2, 1], 9: [5]}[at_once]


def test_a_gpu_takes_as_many_pairs_as_its_memory_allows() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    for height, width in ((256, 340), (1080, 1920), (32, 5), (4320, 7680)):
        positions = height * width // 64
        count = net_libraries._pairs_at_once(cuda, height, width)
        assert count == 1 or count * positions**2 * 4 <= 512 << 20
        assert count == 1 or (count + 1) * max(1, positions) ** 2 * 4 > 512 << 20
        assert net_libraries._pairs_at_once(cpu, height, width) == 1
    assert net_libraries._pairs_at_once(cuda, 256, 340) >= 16  # a whole stretch of the usual size


def test_threads_have_nets_of_their_own_which_are_used_again(pairs: list[Pairs], scale: Path, videos: Path) -> None:
    for name in ("B/two", "C/three", "D/four"):
        (videos / name).parent.mkdir(exist_ok=True)
        shutil.copy(videos / "B" / "large.avi", videos / f"{name}.avi")
    options: dict[str, Any] = {"smallest_side": None, "codec": "raw", "progress": False, "device": "cpu"}
    flow = extract(
        videos, videos.parent / "flow", estimator="ptlflow:pairs", estimator_weights=scale, workers=2, **options
    )
    assert len(flow) == 5
    assert 2 <= len(pairs) <= 3  # one to see that it can be made
    assert pairs[0].pairs == []
    frames = np.stack(decode(videos / "A" / "small.avi"))[..., ::-1]
    assert_within_half_a_code(flow["A/small"], "forward", list(expected_of_pairs(frames).astype(np.float32)))


def test_processors_work_on_pairs_at_once(pairs: list[Pairs], scale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)
    plain = Pairs.forward

    def forward(self: Pairs, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        both.wait()
        return plain(self, inputs)

    monkeypatch.setattr(Pairs, "forward", forward)
    estimator = net_estimator("ptlflow:pairs", scale, device="cpu")
    clips = [np.stack(moving_frames(3, size=(20, 30), seed=seed)) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        flows = list(pool.map(lambda frames: run_estimator(estimator, frames, backward=False).forward.numpy(), clips))
    for frames, flow in zip(clips, flows, strict=True):
        np.testing.assert_allclose(flow, expected_of_pairs(frames), atol=1e-5)


def test_a_gpu_works_for_one_thread_at_a_time(pairs: list[Pairs], scale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = net_estimator("ptlflow:pairs", scale, device="cuda")
    loaded, at_work = [], threading.Lock()

    def load(package: Any, name: str, weights: Path | None, device: torch.device) -> net_libraries.Fields:
        loaded.append(device.type)

        def fields(frames: Tensor) -> Tensor:
            assert at_work.acquire(blocking=False)
            time.sleep(0.01)
            at_work.release()
            return torch.zeros(len(frames) - 1, *frames.shape[1:3], 2)

        return fields

    monkeypatch.setitem(net_libraries.LIBRARIES, "ptlflow", net_libraries.LIBRARIES["ptlflow"]._replace(load=load))
    monkeypatch.setattr(NetEstimator, "find_device", lambda self: torch.device("cuda"))
    frames = np.stack(moving_frames(3, size=(20, 30)))
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: run_estimator(estimator, frames, backward=True), range(8)))) == 8
    assert loaded == ["cuda"]
    assert list(nets._idle) == [estimator]  # those of others are let go


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["ptlflow:pears"], "estimator ptlflow:pears: ptlflow has no 'pears'; did you mean 'pairs'?"),
        (
            ["ptlflow:pairs"],
            "estimator_weights is missing: ptlflow:pairs takes https://example.org/pairs-things.ckpt",
        ),
    ],
)
def test_wrong_names_of_ptlflow(
    options: list[str], line: str, pairs: list[Pairs], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(videos, capsys, "--estimator", *options) == line


def test_weights_of_another_net_of_ptlflow(
    pairs: list[Pairs], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = videos.parent / "other.ckpt"
    torch.save({"state_dict": {"scale": torch.ones(3)}}, path)
    line = refusal(videos, capsys, "--estimator", "ptlflow:pairs", "--estimator-weights", path, code=1)
    assert line == (
        f"{path}: is not ptlflow:pairs: weight scale must be [2], got [3]; "
        "ptlflow:pairs takes https://example.org/pairs-things.ckpt"
    )


def test_a_net_that_cannot_be_made(
    pairs: list[Pairs], scale: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def get_model(name: str) -> Pairs:
        raise FileNotFoundError("dinov3\nwhich is elsewhere")

    monkeypatch.setattr(sys.modules["ptlflow"], "get_model", get_model)
    line = refusal(videos, capsys, "--estimator", "ptlflow:pairs", "--estimator-weights", scale)
    assert line == "estimator ptlflow:pairs: cannot be made: FileNotFoundError: dinov3 which is elsewhere"


def test_what_a_net_fails_at_is_of_the_video(
    pairs: list[Pairs], scale: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forward(self: Pairs, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        raise RuntimeError("Output size is too small")

    monkeypatch.setattr(Pairs, "forward", forward)
    assert main(arguments(videos, "--estimator", "ptlflow:pairs", "--estimator-weights", scale)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{videos / 'A' / 'small.avi'}: estimator ptlflow:pairs@")
    assert lines[0].endswith(" failed: RuntimeError: Output size is too small")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", ["rapidflow", "neuflow2", "sea_raft_s"])
def test_the_nets_of_ptlflow_itself(net: str, tmp_path: Path) -> None:
    """Against its own way from files of frames to flow, with weights of no training."""
    if importlib.util.find_spec("ptlflow") is None:
        pytest.skip("ptlflow is not installed")
    import_torchvision()
    try:
        ptlflow = importlib.import_module("ptlflow")
        adapter = importlib.import_module("ptlflow.utils.io_adapter").IOAdapter
    except Exception as error:
        pytest.skip(f"ptlflow cannot be imported: {error}")
    torch.manual_seed(3)
    plain = ptlflow.get_model(net).eval()
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "net.ckpt")
    frames = np.stack(moving_frames(3, size=(133, 150)))
    flow = net_estimator(f"ptlflow:{net}", tmp_path / "net.ckpt", device="cpu")(frames)
    for one, other, field in zip(frames[:-1], frames[1:], flow, strict=True):
        inputs = adapter(plain.output_stride, one.shape[:2]).prepare_inputs([one[..., ::-1], other[..., ::-1]])
        with torch.no_grad():
            expected = plain(inputs)["flows"][0, 0].permute(1, 2, 0).numpy()
        scale = np.abs(expected).max()
        assert 0 < scale < np.inf
        np.testing.assert_allclose(field, expected, atol=1e-4 * scale)


# ---- NVIDIA's engine -----------------------------------------------------------------------------------------------


class Engine:
    """What torch-nvidia-of-sdk documents; the flow tells of which frames it is."""

    made: list[dict[str, Any]]

    def __init__(self, *, width: int, height: int, gpu_id: int, preset: str, grid_size: int) -> None:
        self.size = (height, width)
        self.made.append({"gpu_id": gpu_id, "preset": preset, "grid_size": grid_size, "size": self.size})

    def compute_flow(
        self, input: Tensor, reference: Tensor, upsample: bool = True, disable_temporal_hints: bool = False
    ) -> Tensor:
        assert disable_temporal_hints
        for each in (input, reference):
            assert (each.dtype, tuple(each.shape)) == (torch.uint8, (*self.size, 4))
            assert (each[..., 3] == 255).all()
        return torch.stack([input[..., 0].float(), -reference[..., 2].float()], -1)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    Engine.made = []
    package = ModuleType("of")
    package.TorchNVOpticalFlow = Engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "of", package)
    return Engine


def test_the_engine_of_a_gpu(engine: type[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stand-in computes on the CPU, which is taken for the third GPU."""
    estimator = net_estimator("nvidia-of:medium", device="cuda:2")
    assert (estimator.noted_name, estimator.parameters) == ("nvidia-of:medium", {})
    monkeypatch.setattr(NetEstimator, "find_device", lambda self: torch.device("cpu", 2))
    for size in ((21, 30), (21, 30), (30, 21)):
        frames = np.stack(moving_frames(4, size=size))
        flow = estimator(frames)
        assert flow.dtype == np.float32
        np.testing.assert_array_equal(flow[..., 0], frames[:-1, ..., 0])
        np.testing.assert_array_equal(flow[..., 1], -frames[1:, ..., 2].astype(np.float32))
    common = {"gpu_id": 2, "preset": "medium", "grid_size": 1}
    assert engine.made == [{**common, "size": (21, 30)}, {**common, "size": (30, 21)}]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["nvidia-of:best"], "estimator nvidia-of:best: nvidia-of has no 'best', expected one of slow, medium, fast"),
        (
            ["nvidia-of:slow", "--estimator-weights", "a.pth"],
            "estimator_weights is 'a.pth', but nvidia-of:slow takes none",
        ),
        (
            ["nvidia-of:slow", "--device", "cpu"],
            "estimator nvidia-of:slow needs a GPU, and device 'cpu' is none here",
        ),
    ],
)
def test_wrong_options_of_the_engine(
    options: list[str], line: str, engine: type[Engine], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(videos, capsys, "--estimator", *options) == line


# ---- packages that are not there -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "remedy"),
    [
        (SMALL, "torchvision", "pip install torchvision, the one that belongs to your torch"),
        ("ptlflow:rapidflow", "ptlflow", "pip install ptlflow"),
        ("nvidia-of:slow", "of", "pip install 'torch-nvidia-of-sdk>=5.0.4', for Python 3.13 and later"),
    ],
)
def test_a_package_that_is_not_installed(
    name: str,
    module: str,
    remedy: str,
    videos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    line = refusal(videos, capsys, "--estimator", name, "--estimator-weights", "a.pth")
    assert line.startswith(f"estimator {name}: {module} cannot be imported (")
    assert line.endswith(f"): {remedy}")
