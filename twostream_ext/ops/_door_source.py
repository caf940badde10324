# SPDX-License-Identifier: BSD-3-Clause
"""The source of an operator's door: the function that converts its arguments, chooses what to call and calls it.

It is written for each operator, as `dataclasses` writes `__init__`: a loop over descriptions would cost as much as the
whole call does. That of an operator `mean(flow: Flow, *, lo: PerField | None)` without a gradient reads

    def mean(flow, lo, out=None):
        _first = flow
        if isinstance(_first, _FlowBatch):
            flow = _first.fields
            if lo is None: lo = _first.lo
        flow = [flow] if type(flow) is _Tensor else _take_flow('mean', 'flow', flow)
        lo = None if lo is None else lo.contiguous() if type(lo) is _Tensor else _take_lo('mean', 'lo', lo)
        _follows = _strays = False
        if _is_grad_enabled():
            for _tensor in flow:
                if _tensor.requires_grad: _strays = True
            if lo is not None and lo.requires_grad: _strays = True
        _is_special = _forward_ad._current_level >= 0 or _is_transformed()
        if out is None:
            if _strays or _is_special: _check_derivatives([flow, lo], [])
            return _default(flow, lo)
        _target = out if type(out) is _Tensor else _take_out(out)['out']
        if _follows or _strays or _target.requires_grad or _is_special: _check_derivatives([flow, lo], [_target])
        _fill(flow, lo, out=_target)
        return out
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from twostream_ext.ops._door import KINDS


class Parameter(NamedTuple):
    """One argument of an operator."""

    name: str
    kind: str
    """A key of `KINDS`: its annotation."""
    optional: bool
    """May be None."""
    default: Any
    """`inspect.Parameter.empty` where it must be given."""

    @property
    def schema(self) -> str:
        """In torch's language. A list that is not given is an empty one: torch looks into no list that may be None."""
        return f"{KINDS[self.kind].schema}{'?' if self.optional and not self.is_list else ''} {self.name}"

    @property
    def is_tensor(self) -> bool:
        """A tensor, or a list of tensors."""
        return KINDS[self.kind].schema.startswith("Tensor")

    @property
    def is_list(self) -> bool:
        return KINDS[self.kind].schema == "Tensor[]"


def listed(parameters: Sequence[Parameter]) -> str | None:
    """Give the name of the argument that is a list of tensors: an operator with derivatives takes one at most."""
    names = [each.name for each in parameters if each.is_list]
    if len(names) > 1:
        raise TypeError(f"{' and '.join(names)} are lists of tensors, expected one at most where there are derivatives")
    return names[0] if names else None


def write_door(
    name: str, parameters: Sequence[Parameter], outputs: dict[str, str], of: Sequence[str], filled: Sequence[str]
) -> str:
    """Write the door.

    Args:
        name: of the operator.
        parameters: its arguments.
        outputs: the schemas of its results by their names.
        of: the arguments that have a derivative.
        filled: the arguments of the `.out` form.
    """
    body = [
        f"_first = {parameters[0].name}",
        *_unpacking(parameters),
        *(f"{each.name} = {_conversion(name, each)}" for each in parameters),
        "_follows = _strays = False",
        "if _is_grad_enabled():",
        *_looking(parameters, of),
        "_is_special = _forward_ad._current_level >= 0 or _is_transformed()",
        "if out is None:",
        *_allocating(parameters, outputs, of),
        *_filling(parameters, outputs, filled),
        "return out",
    ]
    lines = [
        f"def {name}({', '.join(each.name for each in parameters)}, out=None):",
        "    try:",
        *(f"        {line}" for line in body),
        "    except (RuntimeError, MemoryError) as _error:",
        f"        _add_name({name!r}, _error)",
        "        raise",
    ]
    return "\n".join(lines)


def _unpacking(parameters: Sequence[Parameter]) -> Iterator[str]:
    """Take from a FlowBatch the tables that were not given; its means, where means are to be subtracted."""
    if parameters[0].kind == "Flow":
        names = [each.name for each in parameters]
        yield "if isinstance(_first, _FlowBatch):"
        yield f"    {names[0]} = _first.fields"
        for table in ("lo", "step"):
            if table in names:
                yield f"    if {table} is None: {table} = _first.{table}"
        if "mean" in names:
            yield "    if mean is None and subtract_mean is True: mean = _first.mean"


def _conversion(operator: str, parameter: Parameter) -> str:
    name, kind = parameter.name, KINDS[parameter.kind]
    expression = f"_take_{name}({operator!r}, {name!r}, {name})"
    if kind.exact:
        expression = f"{kind.ready.format(name)} if type({name}) is {kind.exact} else {expression}"
    if parameter.optional:
        expression = f"{'[]' if parameter.is_list else None} if {name} is None else {expression}"
    return expression


def _looking(parameters: Sequence[Parameter], of: Sequence[str]) -> Iterator[str]:
    """Tell whether autograd follows arguments that have a derivative, and others."""
    for each in parameters:
        found = f"{'_follows' if each.name in of else '_strays'} = True"
        if each.is_list:
            yield f"    for _tensor in {each.name}:"
            yield f"        if _tensor.requires_grad: {found}"
        elif each.is_tensor:
            given = f"{each.name} is not None and " if each.optional else ""
            yield f"    if {given}{each.name}.requires_grad: {found}"


def _allocating(parameters: Sequence[Parameter], outputs: dict[str, str], of: Sequence[str]) -> Iterator[str]:
    names = ", ".join(each.name for each in parameters)
    yield f"    if _strays or _is_special: _check_derivatives([{names}], [])"
    if of:
        last = listed(parameters)
        others = [each.name for each in parameters if each.name != last]
        arguments = ", ".join([*others, *([] if last is None else [f"*{last}"])])
        yield f"    if _is_special: return _transformed.apply({arguments})"
        yield f"    if _follows: return _differentiable.apply({arguments})"
    yield (
        f"    return _mirror(_default({names}), _first)"
        if "Tensor[]" in outputs.values()
        else f"    return _default({names})"
    )


def _filling(parameters: Sequence[Parameter], outputs: dict[str, str], filled: Sequence[str]) -> Iterator[str]:
    names, given = ", ".join(each.name for each in parameters), ", ".join(filled)
    if list(outputs.values()) != ["Tensor"]:
        yield "_targets = _take_out(out)"
        yield f"_check_derivatives([{names}], list(_targets.values()))"
        yield f"_fill({given}, **_targets)"
        return
    yield "_target = out if type(out) is _Tensor else _take_out(out)['out']"
    for each in parameters:
        if each.kind == "Size" and each.name not in filled:
            yield f"if _target.shape[-2:] != {each.name}: _check_size({each.name}, _target)"
    yield f"if _follows or _strays or _target.requires_grad or _is_special: _check_derivatives([{names}], [_target])"
    yield f"_fill({given}, out=_target)"
