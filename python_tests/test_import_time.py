# SPDX-License-Identifier: BSD-3-Clause
"""What a program pays that wants the kernels alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LIMIT = 0.060  # seconds of processor time beyond `import torch`: others on the machine do not count

# One process imports torch; each of its forked children then imports the operators for the first time.
SCRIPT = """
import gc, os, time
import torch

gc.disable()  # it would make every child copy the parent's pages

for _ in range(9):
    reading, writing = os.pipe()
    if os.fork() == 0:
        start = time.process_time()
        import twostream_ext.ops
        os.write(writing, repr(time.process_time() - start).encode())
        os._exit(0)
    os.close(writing)  # or a child that fails would leave us reading for ever
    os.wait()
    print(os.read(reading, 100).decode())
"""


@pytest.mark.unsanitized
def test_importing_the_operators_is_quick(tmp_path):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    seconds = [float(line) for line in done.stdout.split()]
    assert len(seconds) == 9
    assert min(seconds) < LIMIT
