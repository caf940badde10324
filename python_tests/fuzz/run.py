# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing with coverage: the readers and operators by atheris, the C API by libFuzzer under ASan and UBSan.

    python python_tests/fuzz/run.py [--seconds 60] [--jobs 1] [--targets NAME ...] [--out FILE]

Needs `pip install atheris` for the Python targets (python_tests/fuzz_targets.py) and clang with its runtime
(`apt-get install clang libclang-rt-14-dev`) for those in C (c_api.cpp beside this file). Each target gets so many
seconds, starting from its seeds, the inputs kept in python_tests/fuzz_corpus and what an earlier run left in
build/fuzz. What is found is said, kept in build/fuzz/found, and counted; a target goes on after a finding until its
time is up. Targets that are not
among those asked for keep their entries in the file. The exit code is 1 if something was found.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "fuzz"
CORPUS = ROOT / "python_tests" / "fuzz_corpus"
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "python_tests"), str(ROOT)]

import machine  # noqa: E402  beside the benchmarks
import torch  # noqa: E402
from fuzz_targets import TARGETS, register_small_net, seeds_of  # noqa: E402

C_TARGETS = re.findall(r'\{"(\w+)", \w+\}', (HERE / "c_api.cpp").read_text())
LIMITS = ("-timeout=5", "-print_final_stats=1", "-verbosity=1")
_LONGEST = 1 << 16  # bytes of an input
_FLAGS = (
    *("-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-ffp-contract=off", "-fno-math-errno"),
    *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
)


def build_c_api(sources: Path, build: Path) -> Path:
    """Compile csrc/cpu for both instruction sets and the calls of it; gives the program."""
    build.mkdir(parents=True, exist_ok=True)
    program = build / "c_api"
    common = ["clang++", *_FLAGS, f"-I{sources}", f"-I{sources / 'include'}"]
    jobs: list[tuple[Path, list[str]]] = []
    for source in sorted((sources / "cpu").glob("*.cpp")):
        # clang 14 cannot ask a processor for all that dispatch.cpp asks for.
        has = ["-DTWOSTREAM_HAS_AVX2", "-D__builtin_cpu_supports(feature)=true"] if source.stem == "dispatch" else []
        jobs.append((source, has))
        if source.stem not in ("dispatch", "parallel", "version", "without_cuda") and "_windows" not in source.stem:
            jobs.append((source, ["-mavx2", "-mfma", "-mf16c", "-DTWOSTREAM_AVX2", "-Dtwostream=twostream_avx2"]))
    newest = max(path.stat().st_mtime for path in (*sources.rglob("*"), HERE / "c_api.cpp"))
    if program.exists() and program.stat().st_mtime > newest:
        return program

    def compile_one(job: tuple[Path, list[str]]) -> str:
        source, options = job
        target = build / f"{source.stem}{'_avx2' if '-mavx2' in options else ''}.o"
        _call([*common, "-fsanitize=fuzzer-no-link", *options, "-c", str(source), "-o", str(target)])
        return str(target)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, jobs))
    _call(
        [
            *common,
            "-fsanitize=fuzzer",
            str(HERE / "c_api.cpp"),
            *objects,
            "-ldl",
            "-o",
            str(program),
        ]
    )
    return program


def fuzz(
    name: str, command: list[str], environment: dict[str, str], seconds: int, corpora: list[Path]
) -> dict[str, Any]:
    """Run one target until its time is up, again after each finding; gives what is to be noted."""
    found_folder = BUILD / "found" / name.replace(" ", "_")
    found_folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    noted: dict[str, Any] = {
        "target": name,
        "commit": machine.commit(),
        "inputs": 0,
        "seconds": 0.0,
        "coverage": 0,
        "features": 0,
        "found": {},
    }
    while (left := int(seconds - (time.monotonic() - begin))) > 0:
        arguments = [f"-max_total_time={left}", f"-artifact_prefix={found_folder}/", *LIMITS, *map(str, corpora)]
        started = time.monotonic()
        done = subprocess.run(
            [*command, *arguments],
            env={**environment, "TWOSTREAM_FOUND": str(found_folder)},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        noted["seconds"] += time.monotonic() - started
        inputs = re.findall(r"stat::number_of_executed_units:\s*(\d+)", done.stderr) or re.findall(
            r"^#(\d+)", done.stderr, re.MULTILINE
        )
        noted["inputs"] += int(inputs[-1]) if inputs else 0
        for key, mark in (("coverage", "cov"), ("features", "ft")):
            noted[key] = max([noted[key], *map(int, re.findall(rf"\b{mark}: (\d+)", done.stderr))])
        if done.returncode == 0:
            break
        kind = _kind(done.stderr)
        noted["found"][kind] = noted["found"].get(kind, 0) + 1
        if not inputs:
            print(done.stderr[-3000:], file=sys.stderr)
            break  # it does not start
    noted["seconds"] = round(noted["seconds"], 1)
    return noted


def _kind(text: str) -> str:
    for pattern in (
        r"^found: (.*)$",
        r"^(.*runtime error: .*)$",
        r"^SUMMARY: (.*)$",
        r"^(Fatal Python error: .*)$",
        r"(ERROR: libFuzzer: .*)$",
    ):
        if match := re.search(pattern, text, re.MULTILINE):
            return re.sub(r"/\S*/(?=csrc/|python_tests/|twostream_ext/)", "", match[1])[:200]
    return "ended: " + text[-200:]


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _corpora(name: str, seeds: list[bytes]) -> list[Path]:
    """The folder that grows, and those to start from."""
    grown = BUILD / "corpus" / name.replace(" ", "_")
    grown.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (grown / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    kept = CORPUS / name.replace(" ", "_")
    return [grown, *([kept] if kept.is_dir() else [])]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--targets", nargs="+", choices=[*TARGETS, *C_TARGETS], default=[*TARGETS, *C_TARGETS])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "fuzzing.json")
    options = parser.parse_args()
    register_small_net()
    program = None
    if any(name in C_TARGETS for name in options.targets):
        if shutil.which("clang++") is None:
            raise SystemExit("clang++ is not there: apt-get install clang libclang-rt-14-dev")
        program = build_c_api(ROOT / "csrc", BUILD / "c_api")

    def one(name: str) -> dict[str, Any]:
        if name in TARGETS:
            command = [
                sys.executable,
                str(HERE / "one_target.py"),
                name,
                f"-max_len={_LONGEST}",
            ]
            command += ["-rss_limit_mb=2048"]  # torch alone is half of it; what is asked for beyond is limited inside
            noted = fuzz(name, command, _environment(), options.seconds, _corpora(name, seeds_of(TARGETS[name])))
            noted = {"tool": "atheris", **noted}
        else:
            command = [str(program), "-max_len=512", "-len_control=0", "-rss_limit_mb=1024"]
            noted = fuzz(name, command, _environment(TWOSTREAM_FUZZ=name), options.seconds, _corpora(name, [b""]))
            noted = {"tool": "libFuzzer, ASan, UBSan", **noted}
        print(
            f"{name}: {noted['inputs']} inputs in {noted['seconds']} s, coverage {noted['coverage']}, "
            f"found {noted['found'] or 'nothing'}",
            flush=True,
        )
        return noted

    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(one, options.targets))
    before = json.loads(options.out.read_text())["targets"] if options.out.exists() else []
    kept = {each["target"]: each for each in [*before, *results]}
    targets = [kept[name] for name in [*TARGETS, *C_TARGETS] if name in kept]
    total = sum(each["inputs"] for each in targets)
    record = {**machine.facts(torch.device("cpu"), 1), "inputs": total, "targets": targets}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{total} inputs in all; written to {options.out}")
    return int(any(each["found"] for each in results))


if __name__ == "__main__":
    sys.exit(main())
