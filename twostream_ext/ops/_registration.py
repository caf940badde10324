# SPDX-License-Identifier: BSD-3-Clause
"""Registering operators with torch.

They are defined in Python over the functions of `_C`, by `define` and `impl`: `custom_op` would cost several times as
much a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

Helper = Callable[..., Any]

# Operators live as long as this object does.
library = torch.library.Library("twostream", "DEF")  # type: ignore[no-untyped-call]

SCHEMAS = {
    "Tensor": "Tensor",
    "Tensor | None": "Tensor?",
    "list[Tensor]": "Tensor[]",
    "Sequence[float]": "float[]",
    "int": "SymInt",
    "float": "float",
    "bool": "bool",
}
"""What the annotations of functions that run kernels are in the language of torch's schemas."""


def register(schema: str, implementation: Helper, fake: Helper) -> None:
    """Define `twostream::<schema>` with one implementation for CPU and CUDA tensors and one for fake tensors."""
    full_name = schema[: schema.index("(")]
    name = full_name.removesuffix(".out")

    def refuse_vmap(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(f"{name}: torch.vmap is not supported; give a batch of samples")

    def refuse_elsewhere(*given: Any, **targets: Any) -> NoReturn:
        operator = getattr(getattr(torch.ops.twostream, name), "default" if name == full_name else "out")
        for argument, value in zip(operator._schema.arguments, (*given, *targets.values()), strict=True):
            for tensor in flat([value]):
                if isinstance(tensor, torch.Tensor) and not _is_plain(tensor):
                    wanted = "dense, on the CPU or on a CUDA device"
                    got = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
                    raise ValueError(f"{name}: {argument.name} must be {wanted}, got {got}")
        raise ValueError(f"{name}: no argument lies on the CPU or on a CUDA device")

    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    for backend in ("CPU", "CUDA"):
        library.impl(full_name, implementation, backend)  # type: ignore[no-untyped-call]
    library.impl(full_name, refuse_elsewhere, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    library.impl(full_name, refuse_vmap, "FuncTorchBatched")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"twostream::{full_name}", fake, lib=library)


def register_kernel(name: str, implementation: Helper, fake: Helper) -> None:
    """Register an operator without a public function, say a gradient: its schema is the implementation's signature."""
    signature = inspect.signature(implementation)
    written, marker = [], ""
    for each in signature.parameters.values():
        kind = SCHEMAS[each.annotation]
        if each.kind is inspect.Parameter.KEYWORD_ONLY:
            marker, kind = "*, ", kind.replace("Tensor", "Tensor(a!)")
        written.append(f"{marker}{kind} {each.name}")
    register(f"{name}({', '.join(written)}) -> {_returned(signature.return_annotation)}", implementation, fake)


def _returned(annotation: str) -> str:
    if annotation == "None":
        return "()"
    if annotation.startswith("tuple["):
        parts = annotation.removeprefix("tuple[").removesuffix("]").split(", ")
        return f"({', '.join(SCHEMAS[part] for part in parts)})"
    return SCHEMAS[annotation]


def nothing(*_: Any, **__: Any) -> None:
    """The fake kernel of what fills given tensors: it returns nothing."""


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.device.type in ("cpu", "cuda") and tensor.layout is torch.strided and not tensor.is_quantized


def check_devices(name: str, names: Sequence[str], given: Sequence[Any]) -> None:
    """Refuse tensors of several devices: torch sends them to the fake kernel if one of the devices is `meta`."""
    first_argument, first = "", None
    for argument, value in zip(names, given, strict=True):
        for tensor in flat([value]):
            if not isinstance(tensor, torch.Tensor):
                continue
            if first is None:
                first_argument, first = argument, tensor.device
            elif tensor.device != first:
                wanted = f"on the device of {first_argument}, {first}"
                raise ValueError(f"{name}: {argument} must be {wanted}, got {tensor.device}")


def flat(values: Sequence[Any]) -> list[Any]:
    """Lay lists among the values flat."""
    return [each for value in values for each in (value if isinstance(value, list) else [value])]
