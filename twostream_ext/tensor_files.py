# SPDX-License-Identifier: BSD-3-Clause
"""Safetensors files of a known kind: named tensors and a description in JSON, no pickle."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, dtype

from twostream_ext.errors import CheckpointError, first_line
from twostream_ext.files import atomic_write, remove_leftovers_of

_DTYPES = {  # by the format's names
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PICKLED = re.compile(r"GLOBAL (\S+)")  # in what torch says of a pickle with something else than tensors


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

    The same tensors and description give the same bytes. (The library's own writer puts metadata in any order, replaces
    our locked temporary file by one of its own, and ends the process where memory is short.)

    CheckpointError if it cannot be written (no space left, say).
    """
    metadata = {"kind": kind, "description": json.dumps(description)}
    # The largest numbers first, so that each tensor lies at a multiple of its numbers' size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    try:
        remove_leftovers_of(path)
        with atomic_write(path) as temporary, temporary.open("r+b") as file:
            file.write(_header(dict(ordered), metadata))
            for _, tensor in ordered:
                file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Its length and, in JSON, what lies where behind it."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        table[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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
    except CheckpointError:
        raise
    except Exception as error:  # whatever the system, safetensors, torch and json say of a damaged file
        raise CheckpointError(f"{path}: cannot be read: {first_line(error)}") from error


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights by name in a file of someone else's: safetensors by its ending, or else what `torch.save` wrote.

    Of a pickle only what tensors are made of is read, and no code is run. What training scripts put around the weights,
    a dict with `state_dict` and `module.` before each name, is taken off.

    CheckpointError if the file is missing, damaged or holds anything but tensors.
    """
    try:
        if Path(path).suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the system, safetensors, torch and pickle say of a damaged file
        raise CheckpointError(f"{path}: cannot be read as weights: {_weights_fault(error)}") from error
    if isinstance(loaded, dict):
        loaded = loaded.get("state_dict", loaded)
    if not isinstance(loaded, dict) or not all(isinstance(each, Tensor) for each in loaded.values()):
        raise CheckpointError(f"{path}: does not hold weights by name")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def _weights_fault(error: Exception) -> str:
    """What is wrong with a file, in one line; of torch's about a pickle, the first tells how to run the code in it."""
    found = _PICKLED.search(str(error))
    if found is not None:
        return (
            f"it holds {found[1]}, too, and only tensors are taken from a pickle; where you trust it, write its "
            "weights alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE)"
        )
    line = first_line(error)
    return "it is damaged, or of another kind" if line.startswith("Weights only") else line


def check_weights(
    path: str | os.PathLike[str], kind: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], hint: str
) -> None:
    """Compare the weights of a file with those of a net, by name and shape.

    kind: which net it is; hint: which file it takes. CheckpointError, naming the file and a weight, if they differ.
    """
    wanted, given = ({name: list(each.shape) for name, each in weights.items()} for weights in (expected, found))
    for name in [*wanted, *given]:
        if wanted.get(name) != given.get(name):
            raise CheckpointError(
                f"{path}: is not {kind}: weight {name} must be {wanted.get(name)}, got {given.get(name)}; {hint}"
            )


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
