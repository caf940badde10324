# SPDX-License-Identifier: BSD-3-Clause
"""Calls of operators made from bytes: a sound call, of which some arguments become what nobody should give."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from operators import CASES

_CASES = list(CASES.values())
_NUMBERS = (0, -1, 1, 3, 2**31 - 1, 2**31, 2**62, -(2**63), 2**64, 10**30)
_VALUES = (
    *(
        None,
        True,
        False,
        "",
        "x",
        b"x",
        [],
        (),
        {},
        object,
        torch,
        slice(None),
        1j,
        [[]],
        [None],
        "float32",
        np.dtype("f4"),
    ),
    *(
        float("nan"),
        float("inf"),
        -0.5,
        1e300,
        np.float32(2),
        np.int64(3),
        np.array(3),
        torch.tensor(3),
        (2, 3),
        [1, 2, 3],
    ),
    *(torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int32, torch.float64, torch.complex64),
)
_DTYPES = (
    *(torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int32, torch.int64),
    *(torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn),
)
_MOST = 1 << 14  # elements of a tensor that is changed, and so maybe copied
_LOOPS = ("iterations", "warps", "scales")  # asked for in earnest they take as long as they take


class Choices:
    """Bytes as a series of choices; when they are used up, always the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, count: int) -> int:
        if count < 2 or self._at >= len(self._data):
            return 0
        width = 1 if count <= 256 else 4
        value = int.from_bytes(self._data[self._at : self._at + width], "little")
        self._at += width
        return value % count

    def of(self, values: Any) -> Any:
        return values[self.below(len(values))]


def call_operator(data: bytes) -> Any:
    """The call that some bytes stand for. An error of the operator carries its name in `operator`."""
    choices = Choices(data)
    case = _CASES[choices.below(256 * 256) % len(_CASES)]
    arguments = {**case.tensors, **case.options}
    for _ in range(choices.below(4)):
        name = choices.of(sorted(arguments))
        arguments[name] = _changed(choices, name, arguments[name])
    try:
        out = _output(choices, case, arguments) if choices.below(3) == 2 else None
        return case._replace(tensors={}, options=arguments)(**({} if out is None else {"out": out}))
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        error.operator = case.operator  # type: ignore[attr-defined]
        raise


def _output(choices: Choices, case: Any, arguments: dict[str, Any]) -> Any:
    """What a sound call fills, a part of it changed."""
    result = case()
    if isinstance(result, torch.Tensor):
        return _changed(choices, "out", result)
    parts = list(result)
    if parts:
        at = choices.below(len(parts))
        parts[at] = _changed(choices, "out", parts[at])
    return type(result)(*parts) if hasattr(result, "_fields") else parts


def _changed(choices: Choices, name: str, value: Any) -> Any:
    if isinstance(value, list) and value:
        return _changed_list(choices, name, value)
    if isinstance(value, torch.Tensor) and _is_left(value):
        return value
    if isinstance(value, torch.Tensor) and choices.below(8):
        changed = _TENSOR_CHANGES[choices.below(len(_TENSOR_CHANGES))]
        try:
            return changed(choices, value)
        except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError):
            return value  # that cannot be done to this one
    if isinstance(value, int | float) and choices.below(4):
        return (
            choices.of((0, -1, 1, 2, 40)) if name in _LOOPS else choices.of((*_NUMBERS, value + 1, value / 2, -value))
        )
    if isinstance(value, tuple) and choices.below(4):
        return tuple(choices.of((*_NUMBERS, *value)) for _ in range(1 + choices.below(3)))
    return choices.of(_VALUES)


def _is_left(value: torch.Tensor) -> bool:
    """What is not changed further: torch itself loops or crashes where some of its odder kinds are mixed."""
    return value.is_nested or value.is_quantized or value.layout != torch.strided or value.numel() > _MOST


def _changed_list(choices: Choices, name: str, value: list[Any]) -> Any:
    kind = choices.below(6)
    if kind == 0:
        return value[1:]
    if kind == 1:
        return value * 2
    if kind == 2:
        return tuple(value)
    at = choices.below(len(value))
    return [*value[:at], _changed(choices, name, value[at]), *value[at + 1 :]]


def _with_strides(choices: Choices, value: torch.Tensor) -> torch.Tensor:
    """A view with strides that may overlap, of memory that is there."""
    sides = [choices.below(5) for _ in range(value.dim())]
    strides = [choices.below(4) for _ in range(value.dim())]
    needed = 1 + sum(max(side - 1, 0) * stride for side, stride in zip(sides, strides, strict=True))
    return torch.zeros(needed, dtype=value.dtype).as_strided(sides, strides)


def _other_shape(choices: Choices, value: torch.Tensor) -> torch.Tensor:
    return torch.zeros([choices.below(6) for _ in range(choices.below(7))], dtype=value.dtype)


def _special_values(choices: Choices, value: torch.Tensor) -> torch.Tensor:
    special = (0, 1, -1, float("nan"), float("inf"), -float("inf"), 3e38, 1e-40, 2**31 - 1, -(2**31), 2**62)
    filled = value.clone()
    filled.view(-1)[choices.below(max(filled.numel(), 1)) :: 1 + choices.below(3)] = choices.of(special)
    return filled


def _reversed_array(choices: Choices, value: torch.Tensor) -> Any:
    array = value.numpy()
    return np.flip(array, choices.below(max(array.ndim, 1)))


def _read_only_array(choices: Choices, value: torch.Tensor) -> Any:
    array = value.numpy().copy()
    array.flags.writeable = False
    return array


def _other_array(choices: Choices, value: torch.Tensor) -> Any:
    kinds = ("f8", ">f4", "O", "S3", "U2", "M8[s]", "u2", "c8", "?", "f2", "u1", "f4")
    return np.zeros(tuple(value.shape), choices.of(kinds))


_TENSOR_CHANGES: tuple[Any, ...] = (
    lambda choices, value: value.to(choices.of(_DTYPES)),
    lambda choices, value: value.transpose(choices.below(value.dim()), choices.below(value.dim())),
    lambda choices, value: value.unsqueeze(choices.below(value.dim() + 1)),
    lambda choices, value: value.select(choices.below(value.dim()), 0),
    lambda choices, value: value.narrow(dim := choices.below(value.dim()), 0, choices.below(value.shape[dim] + 1)),
    lambda choices, value: value.repeat_interleave(1 + choices.below(3), choices.below(value.dim())),
    lambda choices, value: value[..., :: 1 + choices.below(3)],
    lambda choices, value: value[:1].expand(choices.of((1, 3, 1 << 20, 1 << 40)), *value.shape[1:]),
    _with_strides,
    _other_shape,
    _special_values,
    _special_values,
    lambda choices, value: value.clone().requires_grad_(),
    lambda choices, value: value.to("meta"),
    lambda choices, value: value.to_sparse(),
    lambda choices, value: value.conj(),
    lambda choices, value: torch.complex(value.float(), value.float()).conj().imag,  # negated when it is read
    lambda choices, value: torch.nn.Parameter(value),
    lambda choices, value: value.tolist(),
    lambda choices, value: list(value),
    lambda choices, value: value.numpy(),
    _reversed_array,
    _read_only_array,
    _other_array,
    lambda choices, value: torch.nested.nested_tensor(list(value)),
    lambda choices, value: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.quint8),
)
