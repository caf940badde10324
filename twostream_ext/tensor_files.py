# SPDX-License-Identifier: BSD-3-Clause
"""Safetensors files of a known kind: named tensors and a description in JSON, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, dtype

from twostream_ext.errors import CheckpointError, first_line
from twostream_ext.files import atomic_write


class TensorFile(NamedTuple):
    tensors: dict[str, Tensor]
    description: dict[str, Any]


def write_tensors(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, Any],
) -> None:
    """Write the file whole or not at all. `kind` says what it holds and in which version.

    CheckpointError if it cannot be written (no space left, say).
    """
    metadata = {"kind": kind, "description": json.dumps(description)}
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as temporary:
            permissions = temporary.stat().st_mode
            save_file(contiguous, temporary, metadata=metadata)
            temporary.chmod(permissions)  # safetensors puts a file there that its owner alone may read
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from error


def read_tensors(path: str | os.PathLike[str], kind: str) -> TensorFile:
    """What `write_tensors` wrote, on the CPU.

    CheckpointError if the file is missing, damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != kind:
                raise CheckpointError(f"{path}: expected a file of kind {kind!r}, got {metadata.get('kind')!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return TensorFile(tensors, json.loads(metadata["description"]))
    except CheckpointError:
        raise
    except Exception as error:  # whatever the system, safetensors, torch and json say of a damaged file
        raise CheckpointError(f"{path}: cannot be read: {first_line(error)}") from error


def take_tensor(
    path: str | os.PathLike[str], file: TensorFile, name: str, kind: dtype, shape: tuple[int | None, ...]
) -> Tensor:
    """A tensor of a file by its name; CheckpointError, naming both, unless it has the type and the shape.

    shape: None stands for a side of any length.
    """
    tensor = file.tensors.get(name)
    sides = () if tensor is None else tuple(tensor.shape)
    if tensor is None or tensor.dtype != kind or not _fits(sides, shape):
        wanted = f"{kind} [{', '.join('any' if side is None else str(side) for side in shape)}]"
        got = "none" if tensor is None else f"{tensor.dtype} {list(sides)}"
        raise CheckpointError(f"{path}: {name} must be {wanted.replace('torch.', '')}, got {got.replace('torch.', '')}")
    return tensor


def _fits(sides: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(sides) == len(shape) and all(each in (None, side) for side, each in zip(sides, shape, strict=True))
