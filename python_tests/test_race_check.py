# SPDX-License-Identifier: BSD-3-Clause
"""The host build of the CUDA kernels finds races, and gives the same bits in every order of blocks and threads."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest
import torch
from conftest import ROOT, build_cuda_on_host
from operators import CASES, PIXELS, Case, flattened

THREADS = r"block \(\d, 0, 0\) thread \(\d+, 0, 0\)"
FOUND = {
    "no barrier before a read": ("neighbours<false>", "shared", "no barrier between"),
    "no barrier before a write": ("place_used_again<false>", "shared", "no barrier between"),
    "a read for one thread": ("read_for_one", "shared", "no barrier between"),
    "blocks write the same value": ("blocks_write_the_same_value", "global", "in the same launch"),
    "a block reads what another writes": ("a_block_reads_what_another_writes", "global", "in the same launch"),
    "packs overlap": ("packs_overlap", "global", "no barrier between"),
    "all store one pack": ("all_store_one_pack", "global", "no barrier between"),
    "an atomic sum is read in the same launch": ("counts<true>", "global", "no barrier between"),
}
SOUND = ("a barrier before a read", "a barrier before a write", "bytes side by side", "an atomic sum")


DIFFERENTIABLE = ("flow_stack", "trajectory_stack", "crop_frames", "local_response_norm")


@pytest.fixture(scope="module")
def say() -> Callable[[str], str]:
    """What the race check says of a kernel in csrc/cuda/host/planted_races.cu."""
    build = ROOT / "build" / "planted_races"
    if not (ROOT / "csrc" / "cuda").is_dir():
        pytest.skip("the CUDA sources are not beside the tests")
    build_cuda_on_host(build, target="planted_races", race_check=True)

    def run(name: str) -> str:
        done = subprocess.run([build / "planted_races", name], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run


@pytest.mark.unsanitized
@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("seed", ["1", "2", None])
def test_a_planted_race_is_found_in_every_order(
    say: Callable[[str], str], name: str, seed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed is None:
        monkeypatch.delenv("TWOSTREAM_SHUFFLE", raising=False)
    else:
        monkeypatch.setenv("TWOSTREAM_SHUFFLE", seed)
    kernel, memory, between = FOUND[name]
    line = say(name)
    assert line.startswith("race in ")
    assert kernel in line
    assert f"{memory} memory at 0x" in line
    assert between in line
    assert re.search(f"{THREADS} (reads|writes) at csrc/cuda/", line), line
    assert len(re.findall(r"block \(", line)) == 2


@pytest.mark.unsanitized
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_kernel_has_no_race(say: Callable[[str], str], name: str) -> None:
    assert say(f"sound: {name}") == "no race"


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


def results_and_gradients(case: Case) -> list[torch.Tensor]:
    """What the operator gives, and the gradients that it has."""
    if case.operator not in DIFFERENTIABLE:
        return flattened(case())
    inputs = []

    def follow(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name not in PIXELS or not tensor.is_floating_point():
            return tensor
        inputs.append(tensor.clone().requires_grad_())
        return inputs[-1]

    results = flattened(case.moved(follow)())
    weights = [torch.linspace(-1, 1, each.numel(), dtype=each.dtype).reshape(each.shape) for each in results]
    gradients = torch.autograd.grad(results, inputs, weights) if inputs else ()
    return [*results, *gradients]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", ["cuda_on_host"], indirect=True)
def test_blocks_and_threads_in_any_order_give_the_same_bits(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name].to(device)
    monkeypatch.delenv("TWOSTREAM_SHUFFLE", raising=False)
    expected = results_and_gradients(case)
    for seed in ("1", "2", "3"):
        monkeypatch.setenv("TWOSTREAM_SHUFFLE", seed)
        for result, other in zip(results_and_gradients(case), expected, strict=True):
            assert bits_of(result).equal(bits_of(other)), f"seed {seed}"
