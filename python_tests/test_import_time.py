# SPDX-License-Identifier: BSD-3-Clause
"""What a program pays that wants the kernels alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from twostream_ext.engine import save_model
from twostream_ext.models import TemporalNet

LIMIT = 0.05  # of the processor time that `import torch` takes, which a busy machine makes longer alike

# One process imports torch; each of its forked children then imports the operators for the first time.
SCRIPT = """
import gc, os, time
import torch

print(time.process_time())
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


def _run(command, folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def _share_of_torch(folder):
    """How long the operators take to import, as a share of what torch takes."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT]
    done = _run(command, folder)
    assert done.returncode == 0, done.stderr
    of_torch, *seconds = (float(line) for line in done.stdout.split())
    assert len(seconds) == 9
    return min(seconds) / of_torch


@pytest.mark.unsanitized
def test_importing_the_operators_is_quick(tmp_path):
    # torch is imported once in a process, so that its time is a single one: what seems too much is measured again.
    assert any(_share_of_torch(tmp_path) < LIMIT for _ in range(3))


READING = """
import sys
from twostream_ext.engine import load_model

assert load_model(sys.argv[1]).net.settings.length == 3
print("torch._dynamo" in sys.modules)
"""


def test_reading_a_model_does_not_import_the_compiler(tmp_path):
    """It takes longer than all else that `twostream predict` and `evaluate` import beside torch."""
    file = tmp_path / "model.safetensors"
    save_model(file, TemporalNet(5, length=3, width=0.03, input_size=64), list("abcde"))
    done = _run([sys.executable, "-c", READING, str(file)], tmp_path)
    assert done.stdout == "False\n", done.stderr
