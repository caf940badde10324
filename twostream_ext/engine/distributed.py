# SPDX-License-Identifier: BSD-3-Clause
"""Several processes that train one net together, as `torchrun` starts them; without it, the one there is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from twostream_ext.errors import SettingsError
from twostream_ext.models import StreamNet


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process, where each process of a machine takes one; a device with a number stays."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` started; does nothing where it started none."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """What each process gives, in the order of their numbers; all must ask."""
    if ranks() == 1:
        return [value]
    gathered: list[Any] = [None] * ranks()
    dist.all_gather_object(gathered, value)
    return gathered


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if ranks() > 1:
        dist.all_reduce(values)
    return values


def in_any(flag: bool) -> bool:
    """Whether the flag is set in one of the processes; all must ask."""
    if ranks() == 1:
        return flag
    flags = torch.tensor([flag], dtype=torch.uint8, device="cpu")  # so that no GPU waits for it
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags.item())


def check_same(facts: Mapping[str, Any]) -> None:
    """SettingsError, in every process, that names a fact in which two of them differ; all must ask."""
    gathered = gather(dict(facts))
    for number, theirs in enumerate(gathered):
        for name, value in gathered[0].items():
            if theirs[name] != value:
                raise SettingsError(
                    f"{name} is {value!r} in process 0, but {theirs[name]!r} in process {number}: "
                    "all must be given the same command"
                )


def share_state(net: StreamNet, optimizer: torch.optim.SGD, iteration: int) -> int:
    """Give all processes the first one's iteration, weights and momentum: it alone may have read a checkpoint."""
    if ranks() == 1:
        return iteration
    number = torch.tensor([iteration], device="cpu")
    dist.broadcast(number, 0)
    if number.item() > 0:
        _share_weights(net)
        _share_momentum(net, optimizer)
    return int(number.item())


def _share_weights(net: StreamNet) -> None:
    """By name: the first process may have tensors that the others lack, which DistributedDataParallel cannot mend."""
    state = net.state_dict()
    layout = [{name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}]
    dist.broadcast_object_list(layout, 0)
    device = next(net.parameters()).device
    sent = {
        name: state[name].contiguous() if rank() == 0 else torch.empty(shape, dtype=dtype, device=device)
        for name, (shape, dtype) in layout[0].items()
    }
    for tensor in sent.values():
        dist.broadcast(tensor, 0)
    if rank() != 0:
        net.load_state_dict(sent)


def _share_momentum(net: StreamNet, optimizer: torch.optim.SGD) -> None:
    for parameter in (each for each in net.parameters() if each.requires_grad):
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is None:
            momentum = torch.zeros_like(parameter)
        sent = momentum.contiguous()
        dist.broadcast(sent, 0)
        optimizer.state[parameter]["momentum_buffer"] = momentum.copy_(sent)
