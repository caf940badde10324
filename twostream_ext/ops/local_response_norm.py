# SPDX-License-Identifier: BSD-3-Clause
"""Local response normalisation across channels: after conv1 and conv2 of CNN-M (paper, section 3 and figure 1)."""

from __future__ import annotations

from typing import Any

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration


def local_response_norm(
    x: torch.Tensor,
    size: int = 5,
    alpha: float = 5e-4,
    beta: float = 0.75,
    k: float = 2.0,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Divide each value by (k + alpha / size * the sum of squares of `size` neighbouring channels) ** beta.

    The same as `torch.nn.functional.local_response_norm`, computed in float32 for every dtype. The window of channel c
    holds the channels c - size // 2 to c + (size - 1) // 2 that exist. The defaults are those of CNN-M. It must read
    and write every value once, 8 bytes for a float32, so its limit is a copy (benchmarks/bench_local_response_norm.py
    measures both); a fresh result costs several times as much as `out`, in page faults. The gradient (first order) is
    computed from `x` alone, nothing else is kept for it. Autocast leaves the dtype alone.

    Args:
        x: float32, float16 or bfloat16 `[N, C, ...]`, at least 3 dimensions, any strides. Contiguous and channels-last
            tensors are read as they lie, others are copied first.
        size: channels in a window, positive; may exceed C.
        alpha: factor of the mean of the squares: it is divided by `size`.
        beta: any power; 0.75, 0.5 and 1 are the fast ones.
        k: what is added to the mean of the squares.
        out: fill and return this tensor, like `x` in shape and dtype; it must not overlap `x`.

    Returns:
        A tensor like `x`: of its shape and dtype, and of its memory format where that is contiguous or channels-last.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
        RuntimeError: `out` is given and a gradient is asked for; or the gradient is differentiated again.
    """
    values = registration.to_tensor(x)
    if out is not None:
        target = registration.to_tensor(out)
        if torch.is_grad_enabled() and (values.requires_grad or target.requires_grad):
            raise RuntimeError(
                "local_response_norm: out must be left out where a gradient is computed, got an input that requires it"
            )
        torch.ops.twostream.local_response_norm.out(values, size, alpha, beta, k, out=target)
        return out
    result: torch.Tensor
    if torch.is_grad_enabled() and values.requires_grad:
        result = _LocalResponseNorm.apply(values, size, alpha, beta, k)  # type: ignore[no-untyped-call]
    else:
        result = torch.ops.twostream.local_response_norm(values, size, alpha, beta, k)
    return result


class _LocalResponseNorm(torch.autograd.Function):
    """The operator with its gradient; used where one is needed, for it makes a call dearer."""

    @staticmethod
    def forward(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
        result: torch.Tensor = torch.ops.twostream.local_response_norm(x, size, alpha, beta, k)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, *ctx.constants = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (x,) = ctx.saved_tensors
        gradient = _Gradient.apply if torch.is_grad_enabled() else torch.ops.twostream.local_response_norm_backward
        result: torch.Tensor = gradient(grad, x, *ctx.constants)  # type: ignore[no-untyped-call]
        return result, None, None, None, None


class _Gradient(torch.autograd.Function):
    """The gradient where autograd watches it: `once_differentiable` would overlook that it depends on `x` too."""

    @staticmethod
    def forward(grad: torch.Tensor, x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
        result: torch.Tensor = torch.ops.twostream.local_response_norm_backward(grad, x, size, alpha, beta, k)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, ...]:
        raise RuntimeError("local_response_norm: its gradient cannot be differentiated, it is of first order only")


def _readable(x: torch.Tensor) -> torch.Tensor:
    """Give `x` in a layout that the kernels read: contiguous or channels-last."""
    if x.dim() < 3:
        raise ValueError(
            f"local_response_norm: x must be of at least 3 dimensions, [N, C, ...], got {list(x.shape)} {x.dtype}"
        )
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def _like(tensor: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Give `tensor` in the layout of `x`; one of another shape or dtype is left to the checks of `_C`."""
    if tensor.stride() == x.stride() or tensor.shape != x.shape:
        return tensor
    return torch.empty_like(x, dtype=tensor.dtype).copy_(tensor)


def _allocate(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    return torch.empty_like(_readable(x))


def _compute(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    values = _readable(x)
    out = torch.empty_like(values)
    _C.local_response_norm(values, size, alpha, beta, k, out)
    return out


def _fill(x: torch.Tensor, size: int, alpha: float, beta: float, k: float, *, out: torch.Tensor) -> None:
    values = _readable(x)
    if out.stride() == values.stride() or out.shape != values.shape or out.dtype != values.dtype:
        _C.local_response_norm(values, size, alpha, beta, k, out)
    else:
        out.copy_(_compute(values, size, alpha, beta, k))


def _allocate_backward(
    grad: torch.Tensor, x: torch.Tensor, size: int, alpha: float, beta: float, k: float
) -> torch.Tensor:
    return torch.empty_like(_readable(x))


def _compute_backward(
    grad: torch.Tensor, x: torch.Tensor, size: int, alpha: float, beta: float, k: float
) -> torch.Tensor:
    values = _readable(x)
    out = torch.empty_like(values)
    _C.local_response_norm_backward(_like(grad, values), values, size, alpha, beta, k, out)
    return out


registration.register(
    "local_response_norm(Tensor x, SymInt size, float alpha, float beta, float k) -> Tensor", _compute, _allocate
)
registration.register(
    "local_response_norm.out(Tensor x, SymInt size, float alpha, float beta, float k, *, Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
registration.register(
    "local_response_norm_backward(Tensor grad, Tensor x, SymInt size, float alpha, float beta, float k) -> Tensor",
    _compute_backward,
    _allocate_backward,
)
