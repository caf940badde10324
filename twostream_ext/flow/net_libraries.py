# SPDX-License-Identifier: BSD-3-Clause
"""Other packages that estimate flow, each behind the same few functions; imported when one of them is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from twostream_ext.errors import SettingsError, closest, describe, first_line
from twostream_ext.tensor_files import check_weights, read_weights

Fields = Callable[[Tensor], Tensor]
"""Frames uint8 RGB [T, H, W, 3] to fields float32 [T - 1, H, W, 2], both on the CPU. Not to be called twice at once:
nets keep what they compute in themselves."""

_POSITIONS = 1 << 27
"""Of all pairs in a batch on a GPU, at most: RAFT compares each of a frame's H / 8 x W / 8 positions with each of the
other's, half a gigabyte in all."""


class Library(NamedTuple):
    """A package, and how flow comes from it. `Any` is the package itself."""

    module: str
    """What is imported."""
    remedy: str
    """How to get it."""
    names: Callable[[Any], Iterable[str]]
    """Its nets, or what else it has of a kind."""
    load: Callable[[Any, str, Path | None, torch.device], Fields]
    """One of them on a device, with the weights of a file."""
    files: Callable[[Any, str], Iterable[str]] | None = None
    """Addresses from which people have the weights of a net; None if it takes none."""
    needs_gpu: bool = False


def split_name(name: str) -> tuple[str, str]:
    """The library and the net of "library:net"."""
    library, _, net = name.partition(":")
    return library, net


def import_library(name: str) -> Any:
    """The package of "library:net". SettingsError, which says how to get it, if it cannot be imported."""
    library = LIBRARIES[split_name(name)[0]]
    try:
        return importlib.import_module(library.module)
    except Exception as error:  # one that does not fit torch raises a RuntimeError
        raise SettingsError(
            f"estimator {name}: {library.module} cannot be imported ({first_line(error)}): {library.remedy}"
        ) from error


def check_net(name: str, package: Any) -> None:
    """SettingsError if the package has no such net."""
    key, net = split_name(name)
    known = list(LIBRARIES[key].names(package))
    if net not in known:
        hint = closest(net, known) or f", expected one of {', '.join(known)}"
        raise SettingsError(f"estimator {name}: {key} has no {net!r}{hint}")


def files_text(name: str, package: Any) -> str:
    """Which files have the weights of a net, and where people have them from."""
    key, net = split_name(name)
    addresses = LIBRARIES[key].files
    known = [] if addresses is None else list(addresses(package, net))
    return f"{name} takes {' or '.join(known)}" if known else f"{name} takes the weights that {key} has for it"


def _of_net(
    make: Callable[[Any, str], nn.Module],
    flow: Callable[[nn.Module, Tensor, Tensor], Tensor],
    package: Any,
    name: str,
    weights: Path | None,
    device: torch.device,
) -> Fields:
    """Fields by a net of pairs; flow: of two batches of frames, float RGB [N, 3, H, W] from 0 to 1, [N, 2, H, W]."""
    assert weights is not None
    try:
        net = make(package, split_name(name)[1]).eval()
    except Exception as error:  # of whatever kind: some of ptlflow's want more packages, or a backbone's files
        raise SettingsError(f"estimator {name}: cannot be made: {describe(error)}") from error
    given = read_weights(weights)
    check_weights(weights, name, net.state_dict(), given, files_text(name, package))
    net.load_state_dict(given)
    net.to(device)

    def fields(frames: Tensor) -> Tensor:
        count, height, width, _ = frames.shape
        colour = frames.permute(0, 3, 1, 2)
        made = torch.empty(count - 1, height, width, 2, dtype=torch.float32, device="cpu")
        step = _pairs_at_once(device, height, width)
        for first in range(0, count - 1, step):
            several = colour[first : first + step + 1].to(device, torch.float32) / 255
            made[first : first + step] = flow(net, several[:-1], several[1:]).permute(0, 2, 3, 1)
        return made

    return fields


def _pairs_at_once(device: torch.device, height: int, width: int) -> int:
    """A processor is as fast with one."""
    return max(1, _POSITIONS // max(1, height * width // 64) ** 2) if device.type == "cuda" else 1


# ---- torchvision ---------------------------------------------------------------------------------------------------

_STRIDE, _LEAST = 8, 128  # of RAFT: sides are multiples of the one and at least the other


def _torchvision_names(package: Any) -> list[str]:
    names: list[str] = package.models.list_models(module=package.models.optical_flow)
    return names


def _torchvision_files(package: Any, net: str) -> list[str]:
    weights = package.models.get_model_weights(net)
    return [each.url for each in sorted(weights, key=lambda each: each is not weights.DEFAULT)]


def _torchvision_net(package: Any, net: str) -> nn.Module:
    made: nn.Module = package.models.get_model(net, weights=None)
    return made


def _torchvision_flow(net: nn.Module, one: Tensor, other: Tensor) -> Tensor:
    """Frames are padded by their border on all sides, as RAFT's authors do; it takes values from -1 to 1."""
    height, width = one.shape[-2:]
    left, right = _margins(width)
    top, bottom = _margins(height)
    one, other = (functional.pad(2 * each - 1, (left, right, top, bottom), mode="replicate") for each in (one, other))
    flow: Tensor = net(one, other)[-1]
    return flow[..., top : top + height, left : left + width]


def _margins(side: int) -> tuple[int, int]:
    lacking = max(_LEAST, -(-side // _STRIDE) * _STRIDE) - side
    return lacking // 2, lacking - lacking // 2


# ---- ptlflow -------------------------------------------------------------------------------------------------------


def _ptlflow_names(package: Any) -> list[str]:
    names: list[str] = package.get_model_names()
    return names


def _ptlflow_files(package: Any, net: str) -> list[str]:
    known: dict[str, str] = getattr(package.get_model_reference(net), "pretrained_checkpoints", {})
    return list(known.values())


def _ptlflow_net(package: Any, net: str) -> nn.Module:
    made: nn.Module = package.get_model(net)
    return made


def _ptlflow_flow(net: nn.Module, one: Tensor, other: Tensor) -> Tensor:
    """Its nets take BGR from 0 to 1, as OpenCV reads it, and pad or rescale by themselves."""
    flow: Tensor = net({"images": torch.stack([one, other], 1).flip(2)})["flows"]
    return flow[:, 0]


# ---- NVIDIA's hardware ---------------------------------------------------------------------------------------------

_PRESETS = ("slow", "medium", "fast")


def _nvidia_fields(package: Any, name: str, weights: Path | None, device: torch.device) -> Fields:
    """Fields by the optical flow engine of a GPU, one for each pixel, of two frames alone."""
    gpu = device.index or 0
    engines: dict[tuple[int, int], Any] = {}  # an engine is made for one size; only the last is kept

    def fields(frames: Tensor) -> Tensor:
        height, width = frames.shape[1:3]
        if (height, width) not in engines:
            engines.clear()
            engines[height, width] = package.TorchNVOpticalFlow(
                width=width, height=height, gpu_id=gpu, preset=split_name(name)[1], grid_size=1
            )
        rgba = functional.pad(frames, (0, 1), value=255).to(device)
        # Hints from the pair before would make a field depend on where a long video is cut.
        return torch.stack(
            [
                engines[height, width].compute_flow(one, other, disable_temporal_hints=True).cpu()
                for one, other in pairwise(rgba)
            ]
        )

    return fields


LIBRARIES = {
    "torchvision": Library(
        module="torchvision",
        remedy="pip install torchvision, the one that belongs to your torch",
        names=_torchvision_names,
        load=partial(_of_net, _torchvision_net, _torchvision_flow),
        files=_torchvision_files,
    ),
    "ptlflow": Library(
        module="ptlflow",
        remedy="pip install ptlflow",
        names=_ptlflow_names,
        load=partial(_of_net, _ptlflow_net, _ptlflow_flow),
        files=_ptlflow_files,
    ),
    "nvidia-of": Library(
        module="of",
        remedy="pip install 'torch-nvidia-of-sdk>=5.0.4', for Python 3.13 and later",
        names=lambda package: _PRESETS,
        load=_nvidia_fields,
        needs_gpu=True,
    ),
}
"""By what stands before the colon of an estimator's name."""
