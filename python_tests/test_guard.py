# SPDX-License-Identifier: BSD-3-Clause
"""The guard against slower kernels: benchmarks/guard.py."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import twostream_ext

# A library before the package's own, with one operator that does its work twice.
TWICE = """
#include <dlfcn.h>
#include <twostream/mean_flow.h>

extern "C" int twostream_mean_flow_cpu(const twostream_mean_flow_args* args) {
  using Function = int (*)(const twostream_mean_flow_args*);
  const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "twostream_mean_flow_cpu"));
  real(args);
  return real(args);
}
"""

needs_callgrind = pytest.mark.skipif(
    not (shutil.which("valgrind") and shutil.which("c++") and platform.machine() == "x86_64"),
    reason="needs valgrind and a C++ compiler on x86-64",
)


@pytest.fixture
def guard(benchmark_scripts: Path) -> ModuleType:
    import guard

    return guard


def test_a_count_is_a_fault_from_a_fourth_more_on(guard: ModuleType) -> None:
    recorded = {"baseline": {"a": 1000, "b": 1000, "gone": 5}, "avx2": {"a": 100}}
    counts = {"baseline": {"a": 1250, "b": 1251, "new": 5}, "avx2": {"a": 50}}
    assert guard.slower_counts(recorded, counts) == [
        "gone, baseline: is in the record alone",
        "new, baseline: is not in the record",
        "b, baseline: 1,251 instructions, recorded are 1,000 (1.25)",
    ]


def test_a_fraction_is_a_fault_below_its_bound(guard: ModuleType) -> None:
    bound = guard.LEAST_FRACTION
    recorded = {"a": 0.5, "b": 0.5, "gone": 0.5}
    reached = {"a": 0.5 * bound, "b": 0.49 * bound, "new": 0.5}
    lines = guard.slower_times(recorded, reached)
    assert [line.partition(":")[0] for line in lines] == ["gone", "new", "b"]
    assert lines[-1].endswith(f"{0.49 * bound:.3f} of the limit, recorded is 0.500")


@pytest.fixture
def judge(guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the guard says of some figures beside the record of others; nothing is measured."""

    def judge(counted: int, reached: float, **facts: str) -> int:
        counts = {isa: {"one": 1000} for isa in guard.ISAS}
        monkeypatch.setattr(guard, "RECORD", tmp_path / "guard.json")
        guard.write_record(guard.RECORD, counts, {"one": 0.5})
        guard.RECORD.write_text(json.dumps({**json.loads(guard.RECORD.read_text()), **facts}))
        monkeypatch.setattr(guard, "instructions", lambda: {isa: {"one": counted} for isa in guard.ISAS})
        monkeypatch.setattr(guard, "fractions", lambda: {"one": reached})
        return int(guard.main(record=False))

    return judge


def test_the_guard_fails_on_either_figure_and_passes_on_both(judge: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(1000, 0.5) == 0
    assert capsys.readouterr().err == ""
    assert judge(2000, 0.5) == 1
    assert "one, avx2: 2,000 instructions" in capsys.readouterr().err
    assert judge(1000, 0.1) == 1
    assert "one: 0.100 of the limit" in capsys.readouterr().err


def test_a_time_that_was_too_long_once_is_not_believed(
    judge: Any, guard: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(1000, 0.5)
    attempts = [0.1, 0.5]
    monkeypatch.setattr(guard, "fractions", lambda: {"one": attempts.pop(0)})
    assert guard.main(record=False) == 0
    assert attempts == []


def test_times_of_another_processor_are_told_and_not_judged(judge: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(1000, 0.1, processor="another") == 0
    assert "the record is of another" in capsys.readouterr().out
    assert judge(2000, 0.1, processor="another") == 1


def test_a_record_of_another_architecture_is_not_compared(judge: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(1000, 0.5, architecture="another") == 2
    assert re.fullmatch(r"guard: guard.json is of another, this is \w+\n", capsys.readouterr().err)


def test_another_compiler_is_named_beside_a_fault(judge: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(2000, 0.5, compiler="GCC: (another) 1.0") == 1
    assert "The record is of GCC: (another) 1.0, this library of" in capsys.readouterr().err


def test_every_operator_of_the_c_api_is_counted(guard: ModuleType) -> None:
    headers = "".join(path.read_text() for path in Path(twostream_ext.get_include(), "twostream").glob("*.h"))
    declared = set(re.findall(r"TWOSTREAM_API int (twostream_\w+_cpu)\(", headers))
    called = set(re.findall(r"return (twostream_\w+_cpu)\(", guard.CALLS.read_text()))
    assert len(declared) > 10
    assert called == declared


@needs_callgrind
@pytest.mark.unsanitized
def test_an_operator_that_works_twice_is_found_by_its_instructions(
    guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = guard.build_calls(tmp_path)
    honest = guard.count(program, "avx2", "mean_flow")
    assert len(honest) == 4
    assert guard.count(program, "avx2", "mean_flow") == honest
    (tmp_path / "twice.cpp").write_text(TWICE)
    shim = tmp_path / "twice.so"
    command = [
        "c++",
        "-shared",
        "-fPIC",
        f"-I{twostream_ext.get_include()}",
        "-o",
        shim,
        tmp_path / "twice.cpp",
        "-ldl",
    ]
    subprocess.run(list(map(str, command)), check=True)
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    planted = guard.count(program, "avx2", "mean_flow")
    lines = guard.slower_counts({"avx2": honest}, {"avx2": planted})
    assert [line.rpartition(", avx2")[0] for line in lines] == list(honest)
