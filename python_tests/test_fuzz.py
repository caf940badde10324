# SPDX-License-Identifier: BSD-3-Clause
"""Files that anyone may have written: the inputs that once broke a reader, some thousands of new ones, planted faults.

python_tests/fuzz/run.py does the same for as long as one likes, led by coverage.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fuzz_oracle import MEMORY, FoundError, confine, judge, kind_of
from fuzz_targets import TARGETS, Target, register_small_net, seeds_of
from processes import in_a_process

from twostream_ext import models
from twostream_ext.engine import load_model
from twostream_ext.errors import CheckpointError, FlowStoreError, SettingsError
from twostream_ext.media import FrameStore, container
from twostream_ext.models import SpatialNet
from twostream_ext.tensor_files import read_tensors, write_tensors

ROOT = Path(__file__).resolve().parent.parent
CORPUS = Path(__file__).parent / "fuzz_corpus"
FUZZERS = Path(__file__).parent / "fuzz"
COUNT = 200  # new inputs of each target
LONGEST = 5  # seconds for one input


@pytest.fixture(autouse=True)
def _small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known in these tests, and in no others."""
    monkeypatch.setattr("twostream_ext.models.backbones._registered", dict(models.backbones._registered))
    register_small_net()


@cache
def warmed_up(name: str) -> list[bytes]:
    """A target's seeds, read once: what is loaded at the first use takes longer than an input may."""
    seeds = seeds_of(TARGETS[name])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in seeds:
            judge(TARGETS[name], seed, Path(folder))
    return seeds


def mutants(target: Target, seed: int) -> Any:
    """New inputs of a target without end, the same for the same seed."""
    draw = random.Random(seed)
    seeds = warmed_up(target.name)
    while True:
        data = draw.choice(seeds)
        for _ in range(draw.choice((1, 1, 2, 4))):
            data = target.mutate(draw, data)
        yield data


def read_all(target: Target, inputs: Any, folder: Path) -> dict[str, int]:
    """How reading them ended, in a process of its own with little memory and little time for each input."""
    warmed_up(target.name)

    def run() -> dict[str, int]:
        sys.stderr = (folder / "stderr").open("w")  # decoders of JPEGs say what they think of them
        os.dup2(sys.stderr.fileno(), 2)
        confine()
        results: Counter[str] = Counter()
        for data in inputs:
            (folder / "last").write_bytes(data)
            signal.alarm(LONGEST)
            try:
                results[judge(target, data, folder)] += 1
            except Exception as error:
                results[f"{kind_of(error)}: {error}"] += 1
        signal.alarm(0)
        return dict(results)

    results, status = in_a_process(run)
    return results if status == 0 else {f"the process ended with {status} at the input {folder / 'last'}": 1}


def wrong(results: dict[str, int]) -> dict[str, int]:
    return {how: count for how, count in results.items() if how not in ("read", "refused")}


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_once_broke_a_reader_break_it_no_more(name: str, tmp_path: Path) -> None:
    kept = sorted((CORPUS / name.replace(" ", "_")).glob("*"))
    results = read_all(TARGETS[name], [path.read_bytes() for path in kept], tmp_path)
    assert not wrong(results)
    assert sum(results.values()) == len(kept)


@pytest.mark.parametrize("name", TARGETS)
def test_new_inputs_are_read_or_refused_in_one_line_that_names_them(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    results = read_all(target, islice(mutants(target, seed=1), COUNT), tmp_path)
    assert not wrong(results)
    assert sum(results.values()) == COUNT
    assert results.get("read"), "no mutant comes through: the mutator spoils all"


@pytest.mark.parametrize("channels", [2**40, 10**30, 0])
def test_a_net_larger_than_its_file_is_refused_before_memory_is_taken(channels: int, tmp_path: Path) -> None:
    path = TARGETS["model"].lay(tmp_path, seeds_of(TARGETS["model"])[0])
    tensors, description = read_tensors(path, "twostream model 1")
    description["net"]["channels"] = channels
    write_tensors(path, "twostream model 1", tensors, description)
    with pytest.raises(CheckpointError, match=f"model.safetensors: claims {channels} for channels, and has"):
        load_model(path)


def test_a_model_file_does_not_choose_what_is_fetched() -> None:
    with pytest.raises(SettingsError, match=r"'hf-hub:a/b' is not registered .* nets from elsewhere are not fetched"):
        SpatialNet(2, backbone="hf-hub:a/b")


@pytest.mark.parametrize("size", [(30000, 30000), (65535, 65535), (8, 10)])
def test_a_frame_that_claims_another_size_takes_no_memory(size: tuple[int, int], tmp_path: Path) -> None:
    data = bytearray(seeds_of(TARGETS["frame clip"])[0])
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", *size)
    path = TARGETS["frame clip"].lay(tmp_path, bytes(data))
    clip = FrameStore.open(tmp_path).peek(path.stem)
    with pytest.raises(FlowStoreError, match=r"clip.safetensors: frame 0 cannot be decoded"):
        clip.read(0)


# ---- planted faults ------------------------------------------------------------------------------------------------


def test_what_believes_a_description_is_found(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        TARGETS["flow clip"].read(path)
        assert container.open_container(path, "flow").description["parameters"]["speed"] > 0

    target = TARGETS["flow clip"]._replace(read=read)
    found = wrong(read_all(target, islice(mutants(target, seed=1), 1000), tmp_path))
    assert any(how.startswith("KeyError") for how in found)
    assert any(how.startswith("TypeError") for how in found)


def write(path: Path) -> None:
    path.with_name("more").write_text("")


def start(path: Path) -> None:
    subprocess.run(["true"], check=True)


def evaluate(path: Path) -> None:
    eval("1 + 1")


def name_nothing(path: Path) -> None:
    raise FlowStoreError("is damaged")


def believe_a_size(path: Path) -> None:
    bytearray(MEMORY * 2)


def hang(path: Path) -> None:
    time.sleep(10 * LONGEST)


def crash(path: Path) -> None:
    faulthandler.disable()  # pytest's would print where
    os.kill(os.getpid(), signal.SIGSEGV)


READERS: dict[Callable[[Path], None], str] = {
    write: "did more than read: open to write",
    start: "did more than read: subprocess.Popen",
    evaluate: "did more than read: compile",
    name_nothing: "not one line that names",
    believe_a_size: "MemoryError",
    hang: "ended with -14",
    crash: "ended with -11",
}


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_reader_that_does_what_none_may_do_is_found(
    read: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(f"{__name__}.LONGEST", 1)
    results = read_all(TARGETS["scores"]._replace(read=read), [b"x"], tmp_path)
    assert len(results) == 1
    assert READERS[read] in next(iter(results))


def test_an_operator_that_is_not_named_is_found(tmp_path: Path) -> None:
    def call(data: bytes) -> None:
        raise ValueError("a tensor is too small")

    with pytest.raises(FoundError, match="does not name the operator"):
        judge(TARGETS["operators"]._replace(read=call), b"", tmp_path)


def copy_with(bug: tuple[str, str, str], copy: Path) -> Path:
    """The package and its sources with a text of one file replaced."""
    for name in ("csrc", "twostream_ext"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    file, text, replacement = bug
    content = (copy / file).read_text()
    assert content.count(text) == 1, f"{file} no longer holds, once: {text}"
    (copy / file).write_text(content.replace(text, replacement))
    return copy


@pytest.mark.slow
def test_atheris_finds_a_planted_type_error(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    if not next((ROOT / "twostream_ext").glob("_C*.so"), None):
        pytest.skip("the package is not built in place")
    bug = (
        "twostream_ext/tensor_files.py",
        'if metadata.get("kind") != kind:',
        'if metadata.get("kind")[0] != kind[0]:',
    )
    copy = copy_with(bug, tmp_path / "copy")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(seeds_of(TARGETS["scores"])[0])
    command = [
        sys.executable,
        str(FUZZERS / "one_target.py"),
        "scores",
        "-max_total_time=120",
        str(corpus),
    ]
    environment = {**os.environ, "TWOSTREAM_FUZZED": str(copy)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stderr[-1000:]
    assert "found: TypeError" in done.stderr, done.stderr[-5000:]


@pytest.mark.slow
@pytest.mark.unsanitized
def test_libfuzzer_finds_a_planted_step_out_of_a_field(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shutil.which("clang++") is None:
        pytest.skip("clang is not installed")
    monkeypatch.syspath_prepend(FUZZERS)
    import run

    top = "{clamp(numbers[0], 0, sample.height - height),"
    bug = ("csrc/core/window.h", top, top.replace("- height)", "- height + 1)"))
    program = run.build_c_api(copy_with(bug, tmp_path / "copy") / "csrc", tmp_path / "build")
    environment = {**os.environ, "TWOSTREAM_FUZZ": "flow_stack"}
    command = [str(program), "-max_total_time=120", "-max_len=512", "-len_control=0"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stderr[-1000:]
    assert "ERROR: AddressSanitizer: heap-buffer-overflow" in done.stderr, done.stderr[-5000:]
