# SPDX-License-Identifier: BSD-3-Clause
"""One target of python_tests/fuzz_targets.py under atheris; python_tests/fuzz/run.py starts it.

    python python_tests/fuzz/one_target.py "flow clip" [libFuzzer's arguments]

Half of the mutants are libFuzzer's own, half are made so that lengths and checksums fit again.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]

sys.path[:0] = [str(ROOT / "python_tests"), os.environ.get("TWOSTREAM_FUZZED", str(ROOT))]
with atheris.instrument_imports(include=["twostream_ext"]):
    from fuzz_oracle import confine, judge, kind_of
    from fuzz_targets import TARGETS, register_small_net, seeds_of


def main() -> None:
    register_small_net()
    target = TARGETS[sys.argv[1]]
    folder = Path(tempfile.mkdtemp(prefix="twostream_fuzz_"))

    def read(data: bytes) -> None:
        try:
            judge(target, data, folder)
        except Exception as error:
            print(f"found: {kind_of(error)}: {type(error).__name__}: {str(error)[:300]!r}", file=sys.stderr, flush=True)
            Path(os.environ.get("TWOSTREAM_FOUND", "."), hashlib.sha1(data).hexdigest()).write_bytes(data)
            raise

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2 or not data:
            return bytes(atheris.Mutate(data, most))
        return target.mutate(random.Random(seed), data)[:most]

    for seed in seeds_of(target):
        judge(target, seed, folder)  # what is loaded at the first use takes longer than an input may
    confine()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
