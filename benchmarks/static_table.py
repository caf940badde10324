# SPDX-License-Identifier: BSD-3-Clause
"""What the compiler made of each kernel for each architecture, held against the recorded table; no GPU is needed.

    cmake -S . -B build/cuda -G Ninja -DCMAKE_BUILD_TYPE=Release -DTWOSTREAM_CUDA=ON \\
        -DCMAKE_CUDA_FLAGS=--resource-usage -Dpybind11_DIR="$(python -m pybind11 --cmakedir)"
    cmake --build build/cuda --clean-first >build/cuda.log
    python benchmarks/static_table.py build/cuda build/cuda.log             # compares
    python benchmarks/static_table.py build/cuda build/cuda.log --record    # records: review what git diff shows

Registers, stack frame, spills and shared memory come from what ptxas said in the log of the whole build; 16-byte loads
and stores of global memory and float64 instructions (on most GPUs 32 to 64 times slower than float32's) are counted in
the machine code of the objects. That needs cuobjdump and nvdisasm:
`pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`. Another version of the compiler gives other registers, so that
only new spills and new kinds of float64 are looked for then.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "results" / "static_kernels.json"
FROM_LOG = ("registers", "stack_bytes", "spill_store_bytes", "spill_load_bytes", "shared_bytes")
FROM_CODE = ("loads_of_16_bytes", "stores_of_16_bytes", "float64_instructions")
FIGURES = (*FROM_LOG, *FROM_CODE)
NEVER_NEW = ("spill_store_bytes", "spill_load_bytes", "float64_instructions")  # whatever the compiler's version
SHOWN_DIFFERENCES = 40

Figures = dict[str, int]
Table = dict[str, dict[str, Figures]]  # of a kernel, of an architecture

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_OBJECT = re.compile(r"Building CUDA object \S*/(\w+)\.cu\.o")
_TARGET = re.compile(r"code for (sm_\w+)")
_FUNCTION = re.compile(r"Function : (\w+)")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P[T\d]+ )?([A-Z][A-Z0-9_.]+)")
_LOAD = re.compile(r"LDG?\.\S*\b128\b")
_STORE = re.compile(r"STG?\.\S*\b128\b")
_FLOAT64 = re.compile(r"D(?:ADD|MUL|FMA|SETP|MNMX|SET|MMA)\b|\S*\.F64\b|MUFU\.\w*64H")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    compiler, disassembler = _version("nvcc"), _version("cuobjdump")
    table = read_build(options.build, options.log)
    if options.record:
        write_record(RECORD, table, {"nvcc": compiler, "cuobjdump": disassembler})
        print(f"{RECORD.relative_to(ROOT)}: {len(table)} kernels recorded")
        return 0
    record = json.loads(RECORD.read_text())
    same_compiler = record["versions"]["nvcc"] == compiler
    found = differences(read_record(record), table, FIGURES if same_compiler else NEVER_NEW, exactly=same_compiler)
    for line in found[:SHOWN_DIFFERENCES]:
        print(line, file=sys.stderr)
    if found:
        print(
            f"{len(found)} differences from {RECORD.relative_to(ROOT)}. If they are meant, record anew and commit: "
            f"python benchmarks/static_table.py {options.build} {options.log} --record",
            file=sys.stderr,
        )
        return 1
    compared = "all figures" if same_compiler else f"only {', '.join(NEVER_NEW)}, as the record is of another nvcc"
    print(f"{len(table)} kernels as recorded ({compared})")
    return 0


def read_build(build: Path, log: Path) -> Table:
    """The figures of all kernels; RuntimeError where the log and the objects do not hold the same ones."""
    table = parse_log(log.read_text().splitlines())
    objects = sorted(build.rglob("*.cu.o"))
    code: Table = {}
    for path in objects:
        code.update(parse_code(path.name.removesuffix(".cu.o"), _machine_code(path)))
    if not objects or {name: set(each) for name, each in table.items()} != {
        name: set(each) for name, each in code.items()
    }:
        raise RuntimeError(f"{log}: is not the log of all that {build} holds; build it with --clean-first")
    names = _demangled(table)
    return {
        names[name]: {target: {**table[name][target], **code[name][target]} for target in sorted(table[name])}
        for name in sorted(table, key=names.__getitem__)
    }


def parse_log(lines: Iterable[str]) -> Table:
    """What ptxas says of each kernel, by `file:mangled name` and architecture."""
    table: Table = {}
    source, figures = "", Figures()
    for line in lines:
        if match := _OBJECT.search(line):
            source = match[1]
        elif match := _ENTRY.search(line):
            figures = table.setdefault(f"{source}:{match[1]}", {}).setdefault(match[2], Figures())
        elif match := _FRAME.search(line):
            figures |= zip(FROM_LOG[1:4], map(int, match.groups()), strict=True)
        elif match := _USED.search(line):
            shared = _SHARED.search(line)
            figures |= {"registers": int(match[1]), "shared_bytes": int(shared[1]) if shared else 0}
    return table


def parse_code(source: str, lines: Iterable[str]) -> Table:
    """Counts of instructions in what cuobjdump -sass prints, by `source:mangled name` and architecture."""
    table: Table = {}
    target, figures = "", Figures()
    for line in lines:
        if match := _TARGET.search(line):
            target = match[1]
        elif match := _FUNCTION.search(line):
            figures = table.setdefault(f"{source}:{match[1]}", {}).setdefault(target, dict.fromkeys(FROM_CODE, 0))
        elif match := _INSTRUCTION.search(line):
            for name, pattern in zip(FROM_CODE, (_LOAD, _STORE, _FLOAT64), strict=True):
                figures[name] += pattern.match(match[1]) is not None
    return table


def differences(record: Table, table: Table, figures: Sequence[str], *, exactly: bool) -> list[str]:
    """A line for each figure that is not as recorded or, unless `exactly`, is there and was not."""
    lines = [f"{name}: is in the record alone" for name in record if name not in table]
    lines += [f"{name}: is not in the record" for name in table if name not in record]
    for name in record:
        for target in table.get(name, {}):
            if target not in record[name]:
                lines.append(f"{name}, {target}: is not in the record")
                continue
            before, now = record[name][target], table[name][target]
            lines += [
                f"{name}, {target}: {figure} is {now[figure]}, recorded is {before[figure]}"
                for figure in figures
                if (now[figure] != before[figure] if exactly else now[figure] > 0 == before[figure])
            ]
    return lines


def write_record(path: Path, table: Table, versions: dict[str, str]) -> None:
    """JSON with a line for each kernel and architecture, so that a change can be read in a diff."""
    head = {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "versions": versions,
        "figures": FIGURES,
    }
    rows = [
        json.dumps([name, target, *(each[figure] for figure in FIGURES)])
        for name, targets in table.items()
        for target, each in targets.items()
    ]
    text = json.dumps(head, indent=1).removesuffix("\n}")
    path.write_text(text + ',\n "kernels": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n")


def read_record(record: dict[str, object]) -> Table:
    table: Table = {}
    figures, rows = record["figures"], record["kernels"]
    assert isinstance(figures, list)
    assert isinstance(rows, list)
    for name, target, *values in rows:
        table.setdefault(name, {})[target] = dict(zip(figures, values, strict=True))
    return table


def _machine_code(path: Path) -> Iterator[str]:
    tool = Path(_tool("cuobjdump"))
    environment = {**os.environ, "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}  # it calls nvdisasm
    with subprocess.Popen([tool, "-sass", path], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode != 0:
        raise RuntimeError(f"cuobjdump -sass {path}: ended with {process.returncode}")


def _demangled(names: Iterable[str]) -> dict[str, str]:
    """`file:mangled name` -> `file: kernel<types>`, which no other file or order of compilation changes."""
    mangled = list(names)
    symbols = "\n".join(name.partition(":")[2] for name in mangled)
    done = subprocess.run(["c++filt"], input=symbols, capture_output=True, text=True, check=True)
    return {
        name: f"{name.partition(':')[0]}: {_short(symbol)}"
        for name, symbol in zip(mangled, done.stdout.splitlines(), strict=True)
    }


def _short(symbol: str) -> str:
    """Without return type, arguments and namespaces."""
    symbol = symbol.replace("(anonymous namespace)::", "").replace("twostream::", "").removeprefix("void ")
    return symbol[: symbol.index("(", symbol.rindex(">") if ">" in symbol.partition("(")[0] else 0)].strip()


def _tool(name: str) -> str:
    """On PATH, or where NVIDIA's Python packages put it."""
    places = [str(path) for each in sys.path for path in Path(each).glob("nvidia/cu*/bin")]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise RuntimeError(
            f"{name}: is neither on PATH nor in a Python package: pip install nvidia-cuda-cuobjdump "
            "nvidia-cuda-nvdisasm"
        )
    return found


def _version(tool: str) -> str:
    done = subprocess.run([_tool(tool), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\bV(\d[\d.]*)", done.stdout)
    if found is None:
        raise RuntimeError(f"{tool} --version: tells no version: {done.stdout}")
    return found[1]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("build", type=Path, help="the folder of a build with CUDA")
    parser.add_argument("log", type=Path, help="what that build printed, made with --resource-usage")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(ROOT)}")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
