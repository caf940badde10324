# SPDX-License-Identifier: BSD-3-Clause
"""Safetensors files of a known kind: named tensors and a description in JSON, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from twostream_ext.errors import CheckpointError
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
    with _opened(path, kind) as (file, description):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return TensorFile(tensors, description)


def read_description(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """What `read_tensors` gives beside the tensors, of which none is read; its errors."""
    with _opened(path, kind) as (_, description):
        return description


@contextmanager
def _opened(path: str | os.PathLike[str], kind: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        if Path(path).is_dir():
            raise CheckpointError(f"{path}: is a directory, expected a file")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != kind:
                raise CheckpointError(f"{path}: expected a file of kind {kind!r}, got {metadata.get('kind')!r}")
            description = json.loads(metadata["description"])
            if not isinstance(description, dict):
                raise CheckpointError(f"{path}: its description is damaged")
            yield file, description
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
