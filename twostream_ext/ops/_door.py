# SPDX-License-Identifier: BSD-3-Clause
"""The door: what callers give, made into what the registered operators take, or refused.

Every argument of every public function is of one of the kinds in `KINDS`, named by its annotation. Tensors pass as they
are. An array of another library comes through DLPack, and only such an array pays for being looked at first: torch ends
the process at a negative stride and writes to memory that is read-only.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

import torch
import torch.utils.dlpack

from twostream_ext import _C
from twostream_ext.ops.flow_batch import FlowBatch

# What an argument may be. Wherever a tensor is taken, an array of another library is too.
Batch: TypeAlias = torch.Tensor | Sequence[torch.Tensor]
Flow: TypeAlias = Batch | FlowBatch  # displacements or codes, [N, L, H, W, 2] or N of [L, H_i, W_i, 2]
Codes: TypeAlias = Batch  # uint8, of the same shapes
Frames: TypeAlias = Batch  # [N, H, W, 3] or N of [H_i, W_i, 3]
GreyFrames: TypeAlias = Batch  # [N, H, W] or N of [H_i, W_i]
Displacements: TypeAlias = Batch  # [N, H, W, 2] or N of [H_i, W_i, 2]
GreyClip: TypeAlias = torch.Tensor  # [T, H, W]
FeatureMaps: TypeAlias = torch.Tensor  # [N, C, ...]
Windows: TypeAlias = torch.Tensor  # int32 [N, 3] or [N, K, 3]
PerField: TypeAlias = torch.Tensor  # float32 [N, L, 2]
AffineMaps: TypeAlias = torch.Tensor  # float32 [N, L, 2, 3]
PerFrame: TypeAlias = torch.Tensor  # float32 [N, 3]
Sizes: TypeAlias = torch.Tensor | Sequence[Sequence[int]]  # integers [N, 2]
Size: TypeAlias = int | Sequence[int]  # of a window
Colour: TypeAlias = Sequence[float]  # three numbers
Counter: TypeAlias = int  # from 0 to 2**63 - 1

_LARGEST_SIDE = 2**31 - 1
_UNCHANGING = ("jax", "jaxlib")  # their arrays never change, but the capsules do not say so
_ON_THE_HOST_OR_CUDA = (1, 2, 3, 13)  # DLPack's kDLCPU, kDLCUDA, kDLCUDAHost, kDLCUDAManaged


class Kind(NamedTuple):
    """How one kind of argument is described to torch, and how it comes in."""

    schema: str
    """The type in the language of torch's operator schemas."""
    take: Callable[[str, str, Any], Any]
    """From the operator's name, the argument's name and the value given."""
    exact: str = ""
    """A type whose own values, the usual ones, come in without a call of `take`, and ..."""
    ready: str = "{}"
    """... what becomes of such a value, as an expression."""


def take_array(operator: str, argument: str, value: Any) -> torch.Tensor:
    """Take a tensor as it is, and an array of another library through DLPack: to read, never to write."""
    if isinstance(value, torch.Tensor):
        return value
    return _import_array(operator, argument, value, writable=False)


def take_contiguous(operator: str, argument: str, value: Any) -> torch.Tensor:
    """Take a small array (windows, ranges, means) in the layout that the kernels read."""
    return take_array(operator, argument, value).contiguous()


def take_batch(operator: str, argument: str, value: Any) -> list[torch.Tensor]:
    """Take one tensor of N samples, or N tensors, as a list."""
    if isinstance(value, torch.Tensor):
        return [value]
    if not isinstance(value, (list, tuple)):
        return [_import_array(operator, argument, value, writable=False)]
    if not value:
        raise ValueError(f"{operator}: {argument} must be a tensor or a list of at least one tensor, got an empty list")
    return [
        each if isinstance(each, torch.Tensor) else take_array(operator, f"{argument}[{place}]", each)
        for place, each in enumerate(value)
    ]


def take_sizes(operator: str, argument: str, value: Any) -> torch.Tensor:
    """Take sizes as a contiguous int64 tensor; integers of other widths and lists of numbers are taken too."""
    if type(value) is torch.Tensor and value.dtype is torch.int64 and value.dim() == 2:
        return value.contiguous()
    if isinstance(value, (list, tuple)):
        try:
            tensor = torch.as_tensor(value, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{operator}: {argument} must be integers [N, 2], got {value!r:.80}") from None
    else:
        tensor = take_array(operator, argument, value)
    if tensor.dim() != 2:
        raise ValueError(f"{operator}: {argument} must be of shape [N, 2], got {tuple(tensor.shape)}")
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise TypeError(f"{operator}: {argument} must be integers, got {tensor.dtype}")
    return tensor.to(torch.int64).contiguous()


def take_size(operator: str, argument: str, value: Any) -> tuple[int, int]:
    """Take a window's size as (height, width); one number means a square."""
    if type(value) is int and 0 < value <= _LARGEST_SIDE:  # nearly always
        return value, value
    try:
        pair = tuple(value)
    except TypeError:
        pair = (value, value)
    if len(pair) != 2 or not all(_is_whole(each) and 0 < each <= _LARGEST_SIDE for each in pair):
        raise ValueError(f"{operator}: {argument} must be a positive number or (height, width), got {value!r:.80}")
    return int(pair[0]), int(pair[1])


def take_float(operator: str, argument: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"{operator}: {argument} must be a number, got {value!r:.80}")
    return float(value)


def take_int(operator: str, argument: str, value: Any) -> int:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if not _is_whole(value):
        raise TypeError(f"{operator}: {argument} must be a whole number, got {value!r:.80}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{operator}: {argument} must be a number of 64 bits, got {value}")
    return int(value)


def take_counter(operator: str, argument: str, value: Any) -> int:
    if type(value) is int and 0 <= value < 2**63:
        return value
    if not _is_whole(value):
        raise TypeError(f"{operator}: {argument} must be a whole number, got {value!r:.80}")
    if not 0 <= value < 2**63:
        raise ValueError(f"{operator}: {argument} must be from 0 to 2**63 - 1, got {value}")
    return int(value)


def take_bool(operator: str, argument: str, value: Any) -> NoReturn:
    """Refuse what is neither: `True` and `False` come in as they are."""
    raise TypeError(f"{operator}: {argument} must be True or False, got {value!r:.80}")


def take_dtype(operator: str, argument: str, value: Any) -> NoReturn:
    """Refuse what is no dtype; which ones a result may have is checked where it is allocated."""
    raise TypeError(f"{operator}: {argument} must be float32, float16 or bfloat16, got {value!r:.80}")


def take_colour(operator: str, argument: str, value: Any) -> tuple[float, ...]:
    """Take the numbers of the three colours; how many there are is checked with the frames."""
    try:
        return tuple(map(float, value))
    except (TypeError, ValueError):
        raise TypeError(f"{operator}: {argument} must be three numbers, got {value!r:.80}") from None


def take_output(operator: str, argument: str, value: Any) -> torch.Tensor:
    """Take an array to write into."""
    if isinstance(value, torch.Tensor):
        return value
    return _import_array(operator, argument, value, writable=True)


def take_outputs(operator: str, argument: str, value: Any) -> list[torch.Tensor]:
    """Take a batch to write into."""
    if not isinstance(value, (list, tuple)):
        return [take_output(operator, argument, value)]
    if not value:
        raise ValueError(f"{operator}: {argument} must be a tensor or a list of at least one tensor, got an empty list")
    return [take_output(operator, f"{argument}[{place}]", each) for place, each in enumerate(value)]


KINDS = {
    "Flow": Kind("Tensor[]", take_batch, "_Tensor", "[{}]"),
    "Codes": Kind("Tensor[]", take_batch, "_Tensor", "[{}]"),
    "Frames": Kind("Tensor[]", take_batch, "_Tensor", "[{}]"),
    "GreyFrames": Kind("Tensor[]", take_batch, "_Tensor", "[{}]"),
    "Displacements": Kind("Tensor[]", take_batch, "_Tensor", "[{}]"),
    "GreyClip": Kind("Tensor", take_array, "_Tensor"),
    "FeatureMaps": Kind("Tensor", take_array, "_Tensor"),
    "Windows": Kind("Tensor", take_contiguous, "_Tensor", "{}.contiguous()"),
    "PerField": Kind("Tensor", take_contiguous, "_Tensor", "{}.contiguous()"),
    "AffineMaps": Kind("Tensor", take_contiguous, "_Tensor", "{}.contiguous()"),
    "PerFrame": Kind("Tensor", take_contiguous, "_Tensor", "{}.contiguous()"),
    "Sizes": Kind("Tensor", take_sizes),
    "Size": Kind("SymInt[]", take_size),
    "Colour": Kind("float[]", take_colour),
    "float": Kind("float", take_float, "float"),
    "int": Kind("SymInt", take_int),
    "Counter": Kind("int", take_counter),
    "bool": Kind("bool", take_bool, "bool"),
    "torch.dtype": Kind("ScalarType", take_dtype, "_dtype"),
}


class _ReversedError(Exception):
    """An array has a negative stride."""


class _Watched:
    """An array on its way into torch: its capsule is looked at before torch gets it."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.read_only = False

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.array.__dlpack_device__()
        return device

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.array.__dlpack__(**options)
        self.read_only, is_reversed = _C.inspect_capsule(capsule)
        if is_reversed:
            raise _ReversedError
        return capsule


def _import_array(operator: str, argument: str, array: Any, *, writable: bool) -> torch.Tensor:
    """Take an array through DLPack, without a copy where that is possible or where it is to be written."""
    if not hasattr(array, "__dlpack__"):
        wanted = "a tensor or an array that supports DLPack"
        raise TypeError(f"{operator}: {argument} must be {wanted}, got {type(array).__name__}")
    device_type, _ = array.__dlpack_device__()
    if int(device_type) not in _ON_THE_HOST_OR_CUDA:
        wanted = "on the CPU or on a CUDA device"
        raise ValueError(f"{operator}: {argument} must be {wanted}, got DLPack's device type {int(device_type)}")
    if writable and type(array).__module__.partition(".")[0] in _UNCHANGING:
        wanted = "an array to write into"
        raise ValueError(f"{operator}: {argument} must be {wanted}, got one of JAX, whose arrays never change")
    watched = _Watched(array)
    try:
        tensor = torch.utils.dlpack.from_dlpack(watched)
    except (_ReversedError, BufferError) as error:
        # Some libraries cannot export what is read-only, and say so by a BufferError.
        problem = "one with a negative stride" if isinstance(error, _ReversedError) else f"one that says: {error}"
        if writable or not hasattr(array, "copy"):
            wanted = "an array to write into" if writable else "an array that can be read"
            raise ValueError(f"{operator}: {argument} must be {wanted}, got {problem}") from None
        return _import_copy(operator, argument, array)
    if writable and watched.read_only:
        raise ValueError(f"{operator}: {argument} must be an array to write into, got one that is read-only")
    return tensor


def _import_copy(operator: str, argument: str, array: Any) -> torch.Tensor:
    try:
        return torch.utils.dlpack.from_dlpack(array.copy())
    except BufferError as error:
        raise TypeError(f"{operator}: {argument} must be an array of numbers, got one that says: {error}") from None


def _is_whole(value: Any) -> bool:
    return isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)
