# SPDX-License-Identifier: BSD-3-Clause
"""The operators from several threads, from forked and spawned workers, and on any number of torch's threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from foreign_tensors import tensor_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operators import CASES, EXAMPLES, cases, flattened, like

from twostream_ext import _C, ops

SECONDS = 120  # a worker that hangs is a failure then
LARGE = cases(height=150, width=190, crop=(140, 180))  # enough pixels for several threads


def bits(results):
    return [tensor.contiguous().view(torch.uint8) for tensor in flattened(results)]


class Calls(torch.utils.data.Dataset):
    """Each item is the result of every operator."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return [bits(case()) for case in EXAMPLES.values()]


@pytest.fixture
def many_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_workers(many_threads, method):
    for case in LARGE.values():
        case()  # the parent's threads are running by now
    loader = torch.utils.data.DataLoader(
        Calls(),
        batch_size=None,
        num_workers=2,
        timeout=SECONDS,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    expected = Calls()[0]
    results = list(loader)
    assert len(results) == 4
    for result in results:
        for got, wanted in zip(result, expected, strict=True):
            assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))


FORKED = """
import os
import torch
from operators import EXAMPLES, cases

large = [case for case in cases(150, 190, (140, 180)).values() if case.operator in EXAMPLES]
torch.set_num_threads(4)
for case in large:
    case()
child = os.fork()
if child == 0:
    # torch's own OpenMP waits for ever in a forked child that starts several threads; DataLoader sets one, and so do
    # we. Calls too small to be split need no setting.
    for case in EXAMPLES.values():
        case()
    torch.set_num_threads(1)
    for case in large:
        case()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
for case in large:
    case()
print("done")
"""


def test_a_forked_child():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED]
    folder = Path(__file__).parent
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout == "done\n", done.stderr


def test_several_python_threads_at_once():
    expected = {name: bits(case()) for name, case in LARGE.items()}

    def work(seed):
        names = list(LARGE)
        random.Random(seed).shuffle(names)
        for name in names:
            got = bits(LARGE[name]())
            assert all(torch.equal(*pair) for pair in zip(got, expected[name], strict=True)), name
        return len(names)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [len(LARGE)] * 8


def test_tensors_of_many_types_from_several_threads():
    # The binding keeps how the first types are read (csrc/python/tensor.cpp). torch's and a foreign one differ, and
    # there are more than it keeps.
    memory = torch.zeros(64)
    types = [type(f"Tensor{number}", (torch.Tensor,), {}) for number in range(20)]
    readings = [tensor_on(1, memory[:32]), *(memory[:32].as_subclass(each) for each in types)]
    overlapping, apart = tensor_on(1, memory[16:48]), memory[32:]
    start = threading.Barrier(8)

    def work(seed):
        order = random.Random(seed)
        start.wait(SECONDS)
        for _ in range(2000):
            reading = order.choice(readings) if order.random() < 0.2 else order.choice(readings[:2])
            _C.check_apart("one", reading, "flow", apart)
            with pytest.raises(ValueError, match="overlaps flow"):
                _C.check_apart("one", reading, "flow", overlapping)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8


WITHOUT_GIL = """
import sys
import torch
without = not sys._is_gil_enabled()
import twostream_ext.ops
print(without, not sys._is_gil_enabled())
"""


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_a_python_without_the_gil_stays_without():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GIL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True True\n", done.stderr


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(threads=st.integers(1, 9), name=st.sampled_from(sorted(LARGE)))
def test_any_number_of_threads(many_threads, threads, name):
    torch.set_num_threads(1)
    expected = LARGE[name]()
    torch.set_num_threads(threads)
    out = like(expected, lambda tensor: torch.full_like(tensor, 7))
    result = LARGE[name](out=out)
    assert all(torch.equal(*pair) for pair in zip(bits(result), bits(expected), strict=True))


def test_operators_can_be_pickled():
    for name in {case.operator for case in CASES.values()}:
        operator = getattr(ops, name)
        assert pickle.loads(pickle.dumps(operator)) is operator
