# SPDX-License-Identifier: BSD-3-Clause
"""The recorded table of what the compiler made of each kernel, and the reading of the compiler's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from modules import forget_scripts

ROOT = Path(__file__).resolve().parent.parent
NAME = "_ZN45_GLOBAL__N__f43cb0b4_12_mean_flow_cu_a87c70a516mean_flow_kernelIfEEvN9twostream11SampleChunkEPKfS4_Pf"
LOG = f"""\
[3/12] Building CUDA object CMakeFiles/twostream.dir/csrc/cuda/mean_flow.cu.o
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{NAME}' for 'sm_75'
ptxas info    : Function properties for {NAME}
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 38 registers, used 1 barriers, 4096 bytes smem, 1928 bytes cmem[0]
ptxas info    : Compiling entry function '{NAME}' for 'sm_90'
ptxas info    : Function properties for {NAME}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 2104 bytes cmem[0]
"""
CODE = f"""\
\tcode for sm_75
\t\tFunction : {NAME}
        /*0010*/                   S2R R17, SR_CTAID.Y ;                     /* 0x0000000000117919 */
                                                                             /* 0x000e220000002600 */
        /*0020*/              @!P0 LDG.E.128.SYS R4, [R2] ;                  /* 0x0000000002047381 */
        /*0030*/                   LDG.E.64.CONSTANT.SYS R4, [R2] ;          /* 0x0000000002047381 */
        /*0040*/               @P1 STG.E.128.SYS [R2], R4 ;                  /* 0x0000000402007386 */
        /*0050*/                   LDS.128 R4, [R2] ;                        /* 0x0000000002047984 */
        /*0060*/                   F2F.F64.F32 R8, R4 ;                      /* 0x0000000400087310 */
        /*0070*/                   DFMA R8, R8, 1.5, R10 ;                   /* 0x0000000a08087810 */
        /*0080*/                   DEPBAR.LE SB0, 0x0 ;                      /* 0x000080000000791a */
\tcode for sm_90
\t\tFunction : {NAME}
        /*0010*/              @!PT LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ; /* 0x0000000402047981 */
        /*0020*/                   MUFU.RCP64H R5, R9 ;                      /* 0x0000000900057308 */
        /*0030*/                   FADD R4, R4, R5 ;                         /* 0x0000000504047221 */
"""


@pytest.fixture(scope="module")
def static_table() -> Iterator[ModuleType]:
    folder = ROOT / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the benchmarks are not beside the tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import static_table

        yield static_table
    forget_scripts(folder)


def test_what_ptxas_says_of_a_kernel_is_read_for_each_architecture(static_table: ModuleType) -> None:
    table = static_table.parse_log(LOG.splitlines())
    assert list(table) == [f"mean_flow:{NAME}"]
    figures = {target: [each[name] for name in static_table.FROM_LOG] for target, each in table.popitem()[1].items()}
    assert figures == {"sm_75": [38, 16, 8, 12, 4096], "sm_90": [40, 0, 0, 0, 0]}


def test_vectors_and_float64_are_counted_in_the_machine_code(static_table: ModuleType) -> None:
    table = static_table.parse_code("mean_flow", CODE.splitlines())
    figures = {target: [each[name] for name in static_table.FROM_CODE] for target, each in table.popitem()[1].items()}
    assert figures == {"sm_75": [1, 1, 2], "sm_90": [1, 0, 1]}


def test_a_changed_figure_is_a_line_that_names_kernel_architecture_and_figure(static_table: ModuleType) -> None:
    def table(registers: int, spilled: int, float64: int) -> dict[str, dict[str, dict[str, int]]]:
        figures = dict.fromkeys(static_table.FIGURES, 0)
        figures |= {"registers": registers, "spill_load_bytes": spilled, "float64_instructions": float64}
        return {"mean_flow: mean_flow_kernel<float>": {"sm_75": figures}}

    def found(before: tuple[int, int, int], now: tuple[int, int, int], *, exactly: bool) -> list[str]:
        figures = static_table.FIGURES if exactly else static_table.NEVER_NEW
        lines = static_table.differences(table(*before), table(*now), figures, exactly=exactly)
        return [line.removeprefix("mean_flow: mean_flow_kernel<float>, sm_75: ") for line in lines]

    assert found((38, 0, 0), (40, 8, 2), exactly=True) == [
        "registers is 40, recorded is 38",
        "spill_load_bytes is 8, recorded is 0",
        "float64_instructions is 2, recorded is 0",
    ]
    assert found((38, 0, 0), (40, 8, 0), exactly=False) == ["spill_load_bytes is 8, recorded is 0"]
    assert found((38, 4, 9), (40, 8, 2), exactly=False) == []
    assert static_table.differences({}, table(1, 0, 0), static_table.FIGURES, exactly=True) == [
        "mean_flow: mean_flow_kernel<float>: is not in the record"
    ]
    assert static_table.differences(table(1, 0, 0), {}, static_table.FIGURES, exactly=True) == [
        "mean_flow: mean_flow_kernel<float>: is in the record alone"
    ]


def test_every_kernel_is_recorded_for_every_architecture(static_table: ModuleType) -> None:
    table = static_table.read_record(json.loads(static_table.RECORD.read_text()))
    declared = re.search(r"CMAKE_CUDA_ARCHITECTURES ([\d\sa-z-]+)\)", (ROOT / "CMakeLists.txt").read_text())
    assert declared is not None
    architectures = {f"sm_{each.removesuffix('-real')}" for each in declared[1].split()}
    assert {name: set(targets) for name, targets in table.items()} == dict.fromkeys(table, architectures)
    sources = "".join(path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu*"))
    kernels = set(re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(", sources))
    assert kernels == {re.split("[ <]", name.partition(": ")[2])[0] for name in table}
