# SPDX-License-Identifier: BSD-3-Clause
"""Derivatives of operators: one autograd.Function for each, made from the functions that compute them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

import torch
from torch.autograd import forward_ad

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
    name: str, default: Helper, names: Sequence[str], tensors: Sequence[str], listed: str | None, gradient: Gradient
) -> tuple[Any, Any]:
    """Make the autograd.Function of an operator, and the one for where torch.func or forward mode are at work.

    Both take the arguments that are no list of tensors, then the tensors of the one that is, as autograd looks into no
    list. The second costs several times as much a call, and torch.compile refuses it. torch.compile also demands that
    they close over nothing but functions, strings, numbers and tuples.

    Args:
        name: of the operator.
        default: the registered operator.
        names: of its arguments.
        tensors: the names of those that are tensors or lists of them.
        listed: the name of the one that is a list of tensors.
        gradient: the derivatives.
    """
    of, backward_rule, forward_rule = gradient.of, gradient.backward, gradient.forward
    laid = tuple(each for each in names if each != listed) + (() if listed is None else (listed,))
    singles = len(laid) - (listed is not None)
    of_backward = tuple(inspect.signature(backward_rule).parameters)[2:]
    of_forward = () if forward_rule is None else tuple(inspect.signature(forward_rule).parameters)[1:]
    kept = tuple(each for each in laid if each in gradient.kept)  # a list among them is the last
    told = tuple(each for each in of_backward if each not in kept)
    single_kept = len(kept) - (listed in kept)
    called, differentiated, kept_places = (tuple([laid.index(each) for each in some]) for some in (names, of, kept))
    outlined = tuple(
        [(laid.index(each), _outlines if each == listed else _outline if each in tensors else _itself) for each in told]
    )
    known = tuple([(*told, *kept).index(each) for each in of_backward])

    def gathered(arguments: Sequence[Any]) -> Sequence[Any]:
        """Give the arguments in the order of `laid`, the list put together."""
        return arguments if listed is None else [*arguments[:singles], list(arguments[singles:])]

    def remember(ctx: Any, values: Sequence[Any]) -> None:
        ctx.outlines = [outline(values[place]) for place, outline in outlined]
        saved = [values[place] for place in kept_places]
        ctx.save_for_backward(*saved[:single_kept], *(saved[-1] if single_kept < len(saved) else ()))

    def compute(outlines: list[Any], needs: tuple[bool, ...], *tensors: torch.Tensor) -> tuple[Any, ...]:
        """Give the gradients of all arguments from that of the result and the tensors kept."""
        values = [*outlines, *tensors[1:]]
        if single_kept < len(kept):
            first = len(told) + single_kept
            values[first:] = [values[first:]]
        needed = tuple([any(needs[singles:]) if place == singles else needs[place] for place in differentiated])
        found = backward_rule(tensors[0], needed, *[values[place] for place in known])
        results: list[torch.Tensor | None] = [None] * len(needs)
        for place, each in zip(differentiated, found, strict=True):
            if place < singles:
                results[place] = each
            elif each is not None:
                results[singles:] = each
        return tuple(results)

    def backward(ctx: Any, result_gradient: torch.Tensor) -> Any:
        tensors = (result_gradient, *ctx.saved_tensors)
        if forward_ad._current_level >= 0:
            guarded: Any = _OnceInForwardMode
        elif torch.is_grad_enabled():
            guarded = _Once
        else:
            return compute(ctx.outlines, ctx.needs_input_grad, *tensors)
        return guarded.apply(name, partial(compute, ctx.outlines, ctx.needs_input_grad), *tensors)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            values = gathered(arguments)
            remember(ctx, values)
            return default(*[values[place] for place in called])

    class Transformed(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            values = gathered(arguments)
            return default(*[values[place] for place in called])

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            remember(ctx, gathered(inputs))
            ctx.others = [None if isinstance(each, torch.Tensor) else (each,) for each in inputs]
            ctx.save_for_forward(*[each for each in inputs if isinstance(each, torch.Tensor)])

        @staticmethod
        def jvp(ctx: Any, *tangents: torch.Tensor | None) -> Any:
            if forward_rule is None:
                raise RuntimeError(f"{name}: no forward-mode derivative is computed; detach the arguments")
            tensors = iter(ctx.saved_tensors)
            arguments = [next(tensors) if other is None else other[0] for other in ctx.others]
            values = dict(zip(laid, gathered(arguments), strict=True))
            given = dict(zip(laid, gathered(tangents), strict=True))
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


def _outline(tensor: torch.Tensor | None) -> Outline | None:
    return None if tensor is None else Outline(tensor.shape, tensor.dtype)


def _outlines(tensors: Sequence[torch.Tensor]) -> list[Outline]:
    return [Outline(each.shape, each.dtype) for each in tensors]


def _itself(value: Any) -> Any:
    return value


def _completed(tangent: Any, value: Any) -> Any:
    """Give zeros for the tangents that are missing in a list of which some are there; None where all are missing."""
    if not isinstance(tangent, list):
        return tangent
    if all(each is None for each in tangent):
        return None
    return [torch.zeros_like(one) if each is None else each for each, one in zip(tangent, value, strict=True)]
