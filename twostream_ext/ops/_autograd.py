# SPDX-License-Identifier: BSD-3-Clause
"""Derivatives of operators: one autograd.Function for each, made from the functions that compute them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch.autograd import forward_ad

from twostream_ext.ops._registration import flat

Helper = Callable[..., Any]


class Outline(NamedTuple):
    """What a derivative may know of a tensor whose values it does not need."""

    shape: torch.Size
    dtype: torch.dtype


class Gradient(NamedTuple):
    """The derivatives of an operator with one result.

    Both functions name those of the operator's arguments that they need.
    """

    of: tuple[str, ...]
    """The arguments that have a derivative."""
    backward: Helper
    """From (gradient of the result, whether each of `of` is needed, *arguments): the gradients, in the order of `of`.
    Of the tensors that are not in `kept` it gets the outline alone, so that their memory may be freed."""
    kept: tuple[str, ...] = ()
    """The tensors whose values `backward` reads."""
    forward: Helper | None = None
    """From (tangents by the names of `of`, *arguments): the tangent of the result. None: forward mode is refused."""


def is_followed(tensor: torch.Tensor) -> bool:
    """Tell whether reverse-mode differentiation follows a tensor, at whatever level of torch.func's transforms."""
    if not torch.is_grad_enabled():
        return False
    if torch._C._are_functorch_transforms_active():
        while not tensor.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad


def has_tangent(tensor: torch.Tensor) -> bool:
    """Tell whether forward-mode differentiation follows a tensor."""
    if forward_ad._current_level < 0:
        return False
    dual = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return dual.tangent is not None


def make_functions(
    name: str, default: Helper, names: Sequence[str], lists: Sequence[str], gradient: Gradient
) -> tuple[Any, Any]:
    """Make the autograd.Function of an operator, and the one for where torch.func or forward mode are at work.

    Both take the lengths of the lists among the arguments, then the other arguments, then the lists' tensors. The
    second costs several times as much a call, and torch.compile refuses it. torch.compile also demands that they close
    over nothing but functions, strings, numbers and tuples.

    Args:
        name: of the operator.
        default: the registered operator.
        names: of its arguments.
        lists: the names of those that are lists of tensors.
        gradient: the derivatives.
    """
    lists = tuple(lists)
    of, backward_rule, forward_rule = gradient.of, gradient.backward, gradient.forward
    of_backward = tuple(inspect.signature(backward_rule).parameters)[2:]
    of_forward = () if forward_rule is None else tuple(inspect.signature(forward_rule).parameters)[1:]
    kept = tuple(gradient.kept)
    told = tuple(each for each in of_backward if each not in kept)
    laid = (*lists, *[each for each in names if each not in lists])
    singles = len(names) - len(lists)
    in_order = laid == tuple(names)
    told_places, kept_places = (tuple([laid.index(each) for each in some]) for some in (told, kept))
    order = tuple([laid.index(each) for each in names])

    def restored(lengths: tuple[int, ...], arguments: Sequence[Any]) -> list[Any]:
        """Give the arguments in the order of `laid`, lists put together."""
        values, place = [], singles
        for length in lengths:
            values.append(list(arguments[place : place + length]))
            place += length
        values += arguments[:singles]
        return values

    def places(lengths: tuple[int, ...], wanted: str) -> slice:
        """Give where an argument lies in a call of the Function."""
        place = laid.index(wanted)
        if place >= len(lists):
            begin = 1 + place - len(lists)
            return slice(begin, begin + 1)
        begin = 1 + singles + sum(lengths[:place])
        return slice(begin, begin + lengths[place])

    def remember(ctx: Any, lengths: tuple[int, ...], values: list[Any]) -> None:
        ctx.lengths = lengths
        ctx.outlines = [_outline(values[place]) for place in told_places]
        ctx.save_for_backward(*flat([values[place] for place in kept_places]))

    def backward(ctx: Any, result_gradient: torch.Tensor) -> Any:
        lengths, outlines, count = ctx.lengths, ctx.outlines, len(ctx.needs_input_grad)
        needed = tuple([any(ctx.needs_input_grad[places(lengths, each)]) for each in of])

        def compute(result_gradient: torch.Tensor, *saved: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            named = dict(zip(told, outlines, strict=True))
            first = 0
            for each in kept:
                if each in lists:
                    length = lengths[lists.index(each)]
                    named[each] = list(saved[first : first + length])
                    first += length
                else:
                    named[each] = saved[first]
                    first += 1
            found = backward_rule(result_gradient, needed, *[named[each] for each in of_backward])
            results: list[torch.Tensor | None] = [None] * count
            for each, value in zip(of, found, strict=True):
                if value is not None:
                    results[places(lengths, each)] = value if isinstance(value, list) else [value]
            return tuple(results)

        if forward_ad._current_level >= 0:
            return _OnceInForwardMode.apply(name, compute, result_gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        if torch.is_grad_enabled():
            return _Once.apply(name, compute, result_gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return compute(result_gradient, *ctx.saved_tensors)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, lengths: tuple[int, ...], *arguments: Any) -> Any:
            values = restored(lengths, arguments)
            remember(ctx, lengths, values)
            return default(*values) if in_order else default(*[values[place] for place in order])

    class Transformed(torch.autograd.Function):
        @staticmethod
        def forward(lengths: tuple[int, ...], *arguments: Any) -> Any:
            values = restored(lengths, arguments)
            return default(*[values[place] for place in order])

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            lengths, *arguments = inputs
            remember(ctx, lengths, restored(lengths, arguments))
            ctx.others = [None if isinstance(each, torch.Tensor) else (each,) for each in arguments]
            ctx.save_for_forward(*[each for each in arguments if isinstance(each, torch.Tensor)])

        @staticmethod
        def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> Any:
            if forward_rule is None:
                raise RuntimeError(f"{name}: no forward-mode derivative is computed; detach the arguments")
            tensors = iter(ctx.saved_tensors)
            arguments = [next(tensors) if other is None else other[0] for other in ctx.others]
            values = dict(zip(laid, restored(ctx.lengths, arguments), strict=True))
            given = dict(zip(laid, restored(ctx.lengths, tangents), strict=True))
            completed = {each: _completed(given[each], values[each]) for each in of}
            return forward_rule(completed, *[values[each] for each in of_forward])

        @staticmethod
        def vmap(*_: Any) -> NoReturn:
            raise RuntimeError(f"{name}: torch.vmap is not supported; give a batch of samples")

    Differentiable.backward = Transformed.backward = staticmethod(backward)  # type: ignore[method-assign]
    return Differentiable, Transformed


class _Once(torch.autograd.Function):
    """Computes a gradient where autograd watches, and refuses to be differentiated.

    `once_differentiable` would overlook that a gradient depends on more than the gradient of the result.
    """

    @staticmethod
    def forward(name: str, compute: Helper, *tensors: torch.Tensor) -> Any:
        return compute(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> NoReturn:
        raise RuntimeError(f"{ctx.name}: its gradient cannot be differentiated, it is of first order only")

    @staticmethod
    def vmap(info: Any, in_dims: Any, name: str, *_: Any) -> NoReturn:
        raise RuntimeError(f"{name}: torch.vmap is not supported; give a batch of samples")


class _OnceInForwardMode(_Once):
    """The same where forward mode is on: torch.compile refuses every Function that has one."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        raise RuntimeError(f"{ctx.name}: its gradient cannot be differentiated, it is of first order only")


def _outline(value: Any) -> Any:
    if isinstance(value, list):
        return [_outline(each) for each in value]
    return Outline(value.shape, value.dtype) if isinstance(value, torch.Tensor) else value


def _completed(tangent: Any, value: Any) -> Any:
    """Give zeros for the tangents that are missing in a list of which some are there; None where all are missing."""
    if not isinstance(tangent, list):
        return tangent
    if all(each is None for each in tangent):
        return None
    return [torch.zeros_like(one) if each is None else each for each, one in zip(tangent, value, strict=True)]
