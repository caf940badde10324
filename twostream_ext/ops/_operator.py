# SPDX-License-Identifier: BSD-3-Clause
"""Operators: what each takes is written once, in its public function's signature, and everything else follows from it.

Each operator exists twice under `torch.ops.twostream`: `<name>`, which allocates its result, and `<name>.out`, which
fills given tensors. A batch of samples is always a list: of one tensor `[N, ...]`, or of N tensors of different sizes.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.autograd import forward_ad

from twostream_ext.ops._autograd import Gradient, has_tangent, is_followed, make_functions
from twostream_ext.ops._door import KINDS, take_output, take_outputs
from twostream_ext.ops._door_source import Parameter, listed, write_door
from twostream_ext.ops._registration import SCHEMAS, check_devices, flat, register
from twostream_ext.ops.flow_batch import FlowBatch

Result = TypeVar("Result")
Helper = Callable[..., Any]

OPERATORS: dict[str, Operator[Any]] = {}
"""All operators that have a public function, by name."""


class Operator(Generic[Result]):
    """The operator behind a public function, under the function's name, and the door to it."""

    def __init__(
        self,
        function: Callable[..., Result],
        *,
        allocate: Helper,
        fill: Helper,
        gradient: Gradient | None = None,
        result: Callable[..., Result] | None = None,
    ) -> None:
        """Register the operator.

        Args:
            function: the public function; its annotations are keys of `KINDS` in _door.py, `out` aside.
            allocate: gives the result, or a tuple of them, unfilled. Takes arguments by name.
            fill: runs the kernel. Takes arguments by name, and the results as keyword-only ones, by whose names they
                are known. Arguments that it does not name are left out of the `.out` form; if a window's size is
                among them, that is the height and width of the result.
            gradient: the derivatives; without it, autograd is refused. One list of tensors at most is then taken.
            result: puts several results together.
        """
        self.function = function
        self.name: str = function.__name__
        self.parameters = _parameters(function)
        self.outputs = _outputs(fill)
        self.gradient = gradient
        self._result = result
        self._places = {each.name: place for place, each in enumerate(self.parameters)}
        of_fill = self._pick(fill)
        self._register(allocate, fill, of_fill)
        self.call: Callable[..., Result] = self._write_door(of_fill)
        """The door: takes the arguments in the order of the public function, and `out`."""
        OPERATORS[self.name] = self

    def _write_door(self, of_fill: Helper) -> Callable[..., Result]:
        names = [each.name for each in self.parameters]
        known: dict[str, Any] = {
            "_Tensor": torch.Tensor,
            "_dtype": torch.dtype,
            "_FlowBatch": FlowBatch,
            "_forward_ad": forward_ad,
            "_is_grad_enabled": torch.is_grad_enabled,
            "_is_transformed": torch._C._are_functorch_transforms_active,
            "_default": self.default,
            "_fill": self.out,
            "_check_derivatives": self._check_derivatives,
            "_check_size": self._check_size,
            "_take_out": self._take_outputs,
            "_mirror": self._mirror,
            "_add_name": _add_name,
            **{f"_take_{each.name}": KINDS[each.kind].take for each in self.parameters},
        }
        if self.gradient is not None:
            tensors = [each.name for each in self.parameters if each.is_tensor]
            functions = make_functions(self.name, self.default, names, tensors, listed(self.parameters), self.gradient)
            known["_differentiable"], known["_transformed"] = functions
        of = () if self.gradient is None else self.gradient.of
        source = write_door(self.name, self.parameters, self.outputs, of, of_fill(names))
        exec(compile(source, f"<the door of {self.name}>", "exec"), known)
        written: Callable[..., Result] = known[self.name]
        return written

    @property
    def _mirrors(self) -> bool:
        """Whether lists come back for lists."""
        return "Tensor[]" in self.outputs.values()

    def _take_outputs(self, out: Any) -> dict[str, Any]:
        """Give the tensors to fill by the names of the results."""
        if len(self.outputs) == 1:
            take = take_outputs if self._mirrors else take_output
            return {"out": take(self.name, "out", out)}
        if not isinstance(out, tuple) or len(out) != len(self.outputs):
            wanted = f"the tuple ({', '.join(self.outputs)})"
            raise TypeError(f"{self.name}: out must be {wanted}, got {type(out).__name__}")
        targets = {}
        for (name, schema), part in zip(self.outputs.items(), out, strict=True):
            take = take_outputs if schema == "Tensor[]" else take_output
            targets[name] = take(self.name, f"out.{name}", part)
        return targets

    def _check_size(self, size: tuple[int, int], out: torch.Tensor) -> None:
        """Refuse a size that is not that of `out`; too few dimensions of `out` are refused later, with all of them."""
        if out.dim() > 3:
            wanted = f"the height and width of out, {list(out.shape)}"
            raise ValueError(f"{self.name}: size must be {wanted}, got {size[0]}x{size[1]}")

    def _check_derivatives(self, values: list[Any], targets: list[Any]) -> None:
        """Fail where a derivative would be lost in silence."""
        of = () if self.gradient is None else self.gradient.of
        has_forward = self.gradient is not None and self.gradient.forward is not None
        for tensor in flat(targets):
            if is_followed(tensor) or has_tangent(tensor):
                raise RuntimeError(f"{self.name}: out= cannot be given when a gradient is required")
        for parameter, value in zip(self.parameters, values, strict=True):
            for tensor in flat([value]) if parameter.is_tensor and value is not None else ():
                backward, forward = is_followed(tensor), has_tangent(tensor)
                if targets and (backward or forward):
                    raise RuntimeError(f"{self.name}: out= cannot be given when a gradient is required")
                if backward and parameter.name not in of:
                    remedy = "detach it or use torch.no_grad()"
                    raise RuntimeError(f"{self.name}: no gradient is computed for {parameter.name}; {remedy}")
                if forward and not (parameter.name in of and has_forward):
                    wanted = "no forward-mode derivative is computed"
                    raise RuntimeError(f"{self.name}: {wanted} for {parameter.name}; detach it")

    def _mirror(self, result: Any, first: Any) -> Result:
        """Give lists of results where the first argument was a list, and tensors where it was a tensor."""
        parts = [result] if len(self.outputs) == 1 else result
        if not isinstance(first, (list, tuple, FlowBatch)):
            parts = [part[0] if isinstance(part, list) else part for part in parts]
        mirrored: Result = self._result(*parts) if self._result is not None else parts[0]
        return mirrored

    def _pick(self, helper: Helper) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
        """Give what selects a helper's arguments from all of the operator's; `*others` stands for those not named."""
        chosen: list[int] = []
        for each in inspect.signature(helper).parameters.values():
            if each.kind is inspect.Parameter.VAR_POSITIONAL:
                chosen += [place for place in self._places.values() if place not in chosen]
            elif each.kind is not inspect.Parameter.KEYWORD_ONLY:
                chosen.append(self._places[each.name])
        return _picker(chosen)

    def _register(self, allocate: Helper, fill: Helper, of_fill: Helper) -> None:
        name, of_allocate = self.name, self._pick(allocate)
        names = tuple(each.name for each in self.parameters)
        filled_names = of_fill(names)
        outputs = tuple(self.outputs)

        def compute(*given: Any) -> Any:
            result = allocate(*of_allocate(given))
            fill(*of_fill(given), out=result)
            return result

        def compute_several(*given: Any) -> Any:
            results = allocate(*of_allocate(given))
            fill(*of_fill(given), **dict(zip(outputs, results, strict=True)))
            return results

        def fake(*given: Any) -> Any:
            check_devices(name, names, given)
            return allocate(*of_allocate(given))

        def fake_fill(*given: Any, **targets: Any) -> None:
            check_devices(name, (*filled_names, *targets), (*given, *targets.values()))

        every = ", ".join(each.schema for each in self.parameters)
        filled = ", ".join(each.schema for each in of_fill(self.parameters))
        written = ", ".join(
            f"{schema.replace('Tensor', f'Tensor({letter}!)')} {output}"
            for letter, (output, schema) in zip("abcd", self.outputs.items(), strict=False)
        )
        results = ", ".join(f"{schema} {output}" for output, schema in self.outputs.items())
        returned = self.outputs["out"] if len(outputs) == 1 else f"({results})"
        register(f"{name}({every}) -> {returned}", compute if len(outputs) == 1 else compute_several, fake)
        register(f"{name}.out({filled}, *, {written}) -> ()", fill, fake_fill)
        packet = getattr(torch.ops.twostream, name)
        self.default, self.out = packet.default, packet.out


def _add_name(name: str, error: Exception) -> None:
    """Let what torch says of an argument, or of memory that is not there, name the operator that it came from."""
    if name not in str(error):
        error.args = (f"{name}: {error}",)


def _parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Read an operator's parameters from its public function."""
    parameters = []
    for each in inspect.signature(function).parameters.values():
        if each.name != "out":
            kind = each.annotation.removesuffix(" | None")
            parameters.append(Parameter(each.name, kind, kind != each.annotation, each.default))
    return tuple(parameters)


def _outputs(fill: Helper) -> dict[str, str]:
    """Read the results' names and schemas from the keyword-only parameters of `fill`."""
    parameters = inspect.signature(fill).parameters.values()
    return {each.name: SCHEMAS[each.annotation] for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(places) == 1:
        return lambda values: (values[places[0]],)
    return operator.itemgetter(*places)
