# SPDX-License-Identifier: BSD-3-Clause
"""The examples that others start from do what they say."""

from __future__ import annotations

import base64
import importlib
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import reference
import torch
from compilers import BACKENDS_IF_SLOW
from consumers import build_project, configure, needs_cmake
from modules import jax_numpy, load_module
from test_extract import assert_same_files
from torch._dynamo.backends.registry import lookup_backend
from torch.utils.data import DataLoader
from torchvision_package import import_timm
from videos import moving_frames, write_video

import twostream_ext
from twostream_ext import _C, ops
from twostream_ext.extraction import extract
from twostream_ext.flow import write_flow_clip
from twostream_ext.ops import QuantizedFlow

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="no examples beside the tests")


def load(name: str) -> ModuleType:
    return load_module(EXAMPLES / f"{name}.py")


def test_every_example_has_a_row_in_the_table() -> None:
    table = re.findall(r"^\| \[(\S+)\]\((\S+)\) \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert all(name == target for name, target in table)
    files = [f"{path.name}/main.cpp" if path.is_dir() else path.name for path in EXAMPLES.iterdir()]
    assert sorted(name for name, _ in table) == sorted(set(files) - {"README.md", "__pycache__/main.cpp"})


def test_the_flow_of_a_video_as_a_picture(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", moving_frames(3, size=(48, 64), step=(2, 0)))
    load("flow_of_a_video").main(video, tmp_path / "flow.png")
    blue, green, red = np.median(cv2.imread(str(tmp_path / "flow.png"))[12:36, 16:48].reshape(-1, 3), axis=0)
    assert red > 200  # all of it moves to the right
    assert red - max(blue, green) > 100


def test_the_kernels_on_arrays_of_numpy() -> None:
    flow = np.random.default_rng(0).normal(3.0, 1.0, size=(5, 2, 20, 30, 2)).astype(np.float32)
    found = load("numpy_alone").stacks(flow, 12, seed=4)
    assert type(found) is np.ndarray
    windows = ops.random_windows(np.tile([20, 30], (5, 1)), 12, seed=4).numpy()
    for stack, fields, (top, left, flip) in zip(found, flow, windows, strict=True):
        pixels = (fields.astype(np.float64) - fields.astype(np.float64).mean((1, 2), keepdims=True))[
            :, top : top + 12, left : left + 12
        ]
        if flip:
            pixels = pixels[:, :, ::-1] * [-1, 1]
        np.testing.assert_allclose(stack, pixels.transpose(0, 3, 1, 2).reshape(4, 12, 12), atol=1e-5)
    assert {bool(each) for each in windows[:, 2]} == {False, True}


def swelling_fields(rate: float, seed: int) -> np.ndarray:
    """Six fields that grow or shrink by `rate` a frame and drift at random, float32 [6, H, W, 2]."""
    random = np.random.default_rng(seed)
    height, width = random.integers(30, 40, 2)
    y, x = np.mgrid[:height, :width]
    swelling = rate * np.stack([x - width / 2, y - height / 2], axis=-1)
    drift, noise = random.normal(0, 3, (6, 1, 1, 2)), random.normal(0, 0.3, (6, height, width, 2))
    return (swelling + drift + noise).astype(np.float32)


def write_flow(root: Path, stored: bool) -> dict[str, np.ndarray]:
    """24 videos of two classes, as arrays or as a store; gives what a stack shows of each, float64 [6, H, W, 2]."""
    shown = {}
    for number in range(24):
        name = f"{('grow', 'shrink')[number % 2]}/v{number:02d}"
        fields = swelling_fields((0.1, -0.1)[number % 2], seed=number)
        if stored:
            coded = [each[0].numpy() for each in ops.quantize_flow(fields[None])]
            write_flow_clip(root / f"{name}.safetensors", forward=map(QuantizedFlow, *coded), codec="raw")
            codes, lo, step, mean = coded
            shown[name] = reference.dequantize(codes, lo, step) - mean.astype(np.float64)[:, None, None]
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(root / f"{name}.npy", fields)
            shown[name] = fields.astype(np.float64) - fields.astype(np.float64).mean((1, 2), keepdims=True)
    return shown


@pytest.mark.parametrize("stored", [False, True], ids=["arrays", "store"])
def test_a_dataset_of_ones_own_gives_the_stacks_of_the_formula_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # for workers that are not forked
    example = importlib.import_module("own_dataset")
    torch.manual_seed(0)
    shown = write_flow(tmp_path, stored)
    data = (example.StoredFlow if stored else example.ArrayFlow)(tmp_path, 3)
    loader = DataLoader(data, 5, num_workers=2, collate_fn=data.collate)
    names, starts_seen = sorted(shown), set()
    for first, (fields, labels) in zip(range(0, 24, 5), loader, strict=True):
        found = example.stacks(fields, 24, seed=9, first=first)
        sizes = [shown[name].shape[1:3] for name in names[first : first + 5]]
        windows = ops.random_windows(sizes, 24, seed=9, offset=first)
        for name, label, stack, window in zip(names[first : first + 5], labels, found, windows.numpy(), strict=True):
            places = [reference.flow_stack([shown[name][t : t + 3]], [[window]], (24, 24))[0, 0] for t in range(4)]
            distances = [np.abs(stack.numpy() - each).max() for each in places]
            assert min(distances) < 1e-4
            starts_seen.add(int(np.argmin(distances)))
            assert name.startswith(data.classes[label])
    assert starts_seen == {0, 1, 2, 3}

    losses = example.main(tmp_path, side=24, length=3, epochs=12)
    assert losses[0] > 0.5
    assert losses[-1] < 0.2


class Array:
    """An array of a library that is neither torch's nor NumPy's: it has a shape, and gives its memory by DLPack."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory, self.shape = memory, memory.shape
        self.place = memory.__array_interface__["data"][0]

    def __dlpack__(self, *, stream: object = None) -> object:  # of the time before versions, as JAX and CuPy have it
        return self.memory.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.__dlpack_device__()


class StandIn:
    """Of the namespace of such a library, what the example takes."""

    @staticmethod
    def asarray(numbers: object) -> Array:
        return Array(np.asarray(numbers))

    @staticmethod
    def from_dlpack(tensor: torch.Tensor) -> Array:
        return Array(tensor.numpy())  # NumPy 2.1 makes what it takes by DLPack read-only, and cannot give it on


def of_jax(memory: np.ndarray) -> tuple[ModuleType, Any, Callable[[Any], int]]:
    jax = jax_numpy()
    if jax is None:
        pytest.skip("with JAX in a process of its own: TWOSTREAM_JAX=1 pytest -k jax")
    return jax, jax.asarray(memory), lambda array: array.unsafe_buffer_pointer()


def of_numpy(memory: np.ndarray) -> tuple[ModuleType, Any, Callable[[Any], int]]:
    return np, memory, lambda array: array.__array_interface__["data"][0]


def of_the_stand_in(memory: np.ndarray) -> tuple[type, Any, Callable[[Any], int]]:
    return StandIn, Array(memory), lambda array: array.place


@pytest.mark.parametrize("library", [of_jax, of_numpy, of_the_stand_in])
def test_arrays_of_other_libraries_pass_without_a_copy(
    library: Callable[[np.ndarray], tuple[Any, Any, Callable[[Any], int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = np.random.default_rng(3).normal(2.0, 1.0, size=(3, 2, 20, 30, 2)).astype(np.float32)
    xp, flow, place_of = library(fields)
    places: list[tuple[int, int]] = []

    def recorded(flow: list[torch.Tensor], *others: Any) -> None:
        places.append((flow[0].data_ptr(), others[-1].data_ptr()))
        kernel(flow, *others)

    kernel = _C.flow_stack
    monkeypatch.setattr(_C, "flow_stack", recorded)
    found = load("dlpack_arrays").stacks(xp, flow, 12, seed=4)
    assert type(found) is type(flow)
    assert places == [(place_of(flow), place_of(found))]  # the kernel read and wrote where the library has its arrays
    windows = ops.random_windows([[20, 30]] * 3, 12, seed=4).numpy()
    expected = reference.flow_stack(fields.astype(np.float64), windows[:, None], (12, 12), subtract_mean=True)[:, 0]
    np.testing.assert_allclose(np.from_dlpack(found), expected, atol=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS_IF_SLOW)
def test_a_compiled_step_of_a_net_of_timm_is_the_step(backend: str) -> None:
    import_timm()
    example = load("timm_compiled")
    torch.manual_seed(0)
    step = example.TrainingStep("test_vit", length=2, classes=3, side=64)
    batch = (
        ops.quantize_flow(torch.randn(4, 2, 72, 80, 2)),
        ops.random_windows([[72, 80]] * 4, 64, seed=1),
        torch.arange(4) % 3,
    )
    graphs: list[str] = []

    def watched(graph: Any, inputs: Any) -> Any:
        graphs.append(graph.print_readable(print_output=False))
        return lookup_backend(backend)(graph, inputs)

    expected, expected_gradients = loss_and_gradients(step, step, batch)
    found, gradients = loss_and_gradients(torch.compile(step, fullgraph=True, backend=watched), step, batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-4)
    (graph,) = graphs
    assert "twostream.flow_stack" in graph
    assert "cross_entropy" in graph


def loss_and_gradients(
    call: Callable[..., torch.Tensor], step: torch.nn.Module, batch: tuple[Any, ...]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss = call(*batch)
    return loss.detach(), list(torch.autograd.grad(loss, list(step.parameters())))


@pytest.fixture(scope="module")
def stack_from_memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of `examples/cpp`, built."""
    build = tmp_path_factory.mktemp("cpp")
    build_project(EXAMPLES / "cpp", build, "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
    return build / "stack_from_memory"


@needs_cmake
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_a_program_in_cxx_makes_the_stacks(stack_from_memory: Path, tmp_path: Path, threads: int) -> None:
    fields = np.random.default_rng(5).normal(3.0, 2.0, size=(5, 3, 20, 26, 2)).astype(np.float32)
    fields.tofile(tmp_path / "flow")
    sizes = (str(each) for each in (*fields.shape[:4], 12, threads, 9))
    command = [stack_from_memory, tmp_path / "flow", tmp_path / "stacks", *sizes]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.match(rf"twostream_ext {twostream_ext.__version__}, \w+\n1 thread: [\d.]+ ms\n{threads} threads: ", shown)
    windows = ops.random_windows([[20, 26]] * 5, 12, seed=9).numpy()
    expected = reference.flow_stack(fields.astype(np.float64), windows[:, None], (12, 12), subtract_mean=True)
    found = np.fromfile(tmp_path / "stacks", np.float32)
    np.testing.assert_allclose(found.reshape(5, 6, 12, 12), expected[:, 0], atol=1e-5)
    assert len(set(windows[:, 2])) == 2


@needs_cmake
@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("1 2 8 9 4 1", "usage: stack_from_memory FLOW OUT SAMPLES LENGTH HEIGHT WIDTH SIDE THREADS SEED"),
        ("1 2 8 9 9 1 0", "stack_from_memory: SIDE is '9', expected a number from 1 to 8"),
        ("x 2 8 9 4 1 0", "stack_from_memory: SAMPLES is 'x', expected a number from 1 to 32768"),
        ("2 2 8 9 4 1 0", "stack_from_memory: flow: has 1152 bytes, expected 2304"),
    ],
)
def test_a_program_in_cxx_says_in_one_line_what_is_wrong(
    stack_from_memory: Path, tmp_path: Path, sizes: str, words: str
) -> None:
    np.zeros((1, 2, 8, 9, 2), np.float32).tofile(tmp_path / "flow")
    command = [stack_from_memory, "flow", "stacks", *sizes.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert done.stderr == f"{words}\n"
    assert not (tmp_path / "stacks").exists()


@needs_cmake
@pytest.mark.parametrize("version", ["0.0", "99.0"])
def test_cmake_refuses_a_version_that_is_not_the_installed_one(tmp_path: Path, version: str) -> None:
    done = configure(EXAMPLES / "cpp", tmp_path, f"-DWANTED_VERSION={version}")
    assert done.returncode != 0
    words = " ".join(done.stderr.split())
    assert f'"twostream_ext" that is compatible with requested version "{version}"' in words
    assert f"version: {twostream_ext.__version__}" in words


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        frames = moving_frames(6, step=(2, number - 2), seed=number)
        write_video(folder / f"{'ab'[number % 2]}" / f"v{number}.avi", frames)
    return folder


@pytest.fixture(scope="module")
def flow_of_one_run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    flow = tmp_path_factory.mktemp("one-run") / "flow"
    extract(videos, flow, method="dis", smallest_side=32, progress=False)
    return flow


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask and tornado
def test_a_dask_cluster_makes_the_store_of_one_run(
    videos: Path, flow_of_one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask = pytest.importorskip("dask", reason="Dask is not installed: pip install 'twostream_ext[dask]'")
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'twostream_ext[dask]'")
    monkeypatch.setattr("distributed.deploy.local.CPU_COUNT", 2)  # so many workers
    with dask.config.set({"temporary-directory": str(tmp_path / "dask")}):
        load("dask_cluster").main(videos, tmp_path / "flow", method="dis", smallest_side=32)
    assert_same_files(tmp_path / "flow", flow_of_one_run)


def array_job(task: int, *arguments: object) -> subprocess.Popen[str]:
    """A task of an array of two jobs, as Slurm starts it."""
    folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PARTS": "2",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_CPUS_PER_TASK": "1",
    }
    command = ["bash", str(EXAMPLES / "slurm_array.sh"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not (Path(sys.executable).parent / "twostream").exists(), reason="the command is not installed")
def test_an_array_of_slurm_s_jobs_makes_the_store_of_one_run(
    videos: Path, flow_of_one_run: Path, tmp_path: Path
) -> None:
    flow = tmp_path / "flow"
    arguments = (videos, flow, "--method", "dis", "--size", 32)
    jobs = [array_job(task, *arguments) for task in (1, 2)]
    for job in jobs:
        _, errors = job.communicate(timeout=120)
        assert job.returncode == 0, errors
    assert_same_files(flow, flow_of_one_run)

    mine, other = flow / "b" / "v1.safetensors", flow / "a" / "v0.safetensors"  # of parts 2 and 1
    whole = mine.read_bytes()
    mine.unlink()
    other.unlink()
    written = {path: path.stat().st_mtime_ns for path in flow.rglob("*.safetensors")}
    again = array_job(2, *arguments)
    assert again.communicate(timeout=120)[0] == f"4 videos in {flow}\n"
    assert mine.read_bytes() == whole
    assert not other.exists()
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_an_array_job_without_videos_says_how_it_is_called(tmp_path: Path) -> None:
    job = array_job(1, tmp_path)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 2
    assert errors == "usage: sbatch slurm_array.sh VIDEOS FLOW [options of twostream extract]\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's packages
def test_the_notebook_runs_and_shows_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="no notebooks: pip install 'twostream_ext[notebook]'")
    pytest.importorskip("ipykernel", reason="no notebooks: pip install 'twostream_ext[notebook]'")
    import nbformat

    notebook = nbformat.read(EXAMPLES / "flow_crops_filters.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # they are not kept in the repository
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", ())]
    assert len(pictures) == 3
    for coded in pictures:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(coded), np.uint8), cv2.IMREAD_COLOR)
        assert min(picture.shape[:2]) > 200
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    shown = "".join(output.text for output in outputs if output.output_type == "stream")
    first, last = map(float, re.findall(r"loss: ([\d.]+) at first, ([\d.]+) at the end", shown)[0])
    assert last < first / 3


@pytest.fixture
def mmaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for MMAction2, of which a step needs the registry and the base class."""

    class BaseTransform:
        def __call__(self, results: dict[str, object]) -> dict[str, object]:
            return self.transform(results)

    modules = {name: types.ModuleType(name) for name in ("mmaction", "mmaction.registry", "mmcv", "mmcv.transforms")}
    modules["mmaction.registry"].TRANSFORMS = types.SimpleNamespace(register_module=lambda: lambda step: step)
    modules["mmcv.transforms"].BaseTransform = BaseTransform
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("mmaction")
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_step_of_mmaction_flips_values_and_not_bytes(flip: float) -> None:
    random = np.random.default_rng(1)
    planes = random.integers(0, 256, (12, 20, 26), dtype=np.uint8)  # two stacks of three fields
    results = load("mmaction_step").FlowStack(size=20, length=3, flip_ratio=flip)({"imgs": list(planes), "label": 3})
    assert (results["label"], results["flip"], results["input_shape"]) == (3, bool(flip), (2, 6, 20, 20))
    values = -20 + planes.astype(np.float64) * 40 / 255
    if flip:
        values = values[:, :, ::-1] * np.array([-1, 1] * 6)[:, None, None]
    places = [values[:, :, left : left + 20].reshape(2, 6, 20, 20) for left in range(7)]
    distances = [np.abs(results["imgs"] - each).max() for each in places]
    assert min(distances) < 1e-4
