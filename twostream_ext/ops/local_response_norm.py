# SPDX-License-Identifier: BSD-3-Clause
"""Local response normalisation across channels: after conv1 and conv2 of CNN-M (paper, section 3 and figure 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from twostream_ext import _C
from twostream_ext.ops._autograd import Gradient
from twostream_ext.ops._door import FeatureMaps
from twostream_ext.ops._operator import Operator
from twostream_ext.ops._registration import register_kernel


def local_response_norm(
    x: FeatureMaps,
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
        beta: any power; CNN-M's, 0.75 with windows of 5 channels, has loops of its own and is the fast one.
        k: what is added to the mean of the squares.
        out: fill and return this tensor, like `x` in shape and dtype; it must not overlap `x`.

    Returns:
        A tensor like `x`: of its shape and dtype, and of its memory format where that is contiguous or channels-last.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
        RuntimeError: `out` is given and a gradient is asked for; or the gradient is differentiated again; or one is
            asked for in forward mode.
    """
    return _operator.call(x, size, alpha, beta, k, out=out)


def _readable(x: Tensor) -> Tensor:
    """Give `x` in a layout that the kernels read: contiguous or channels-last."""
    if x.dim() < 3:
        raise ValueError(
            f"local_response_norm: x must be of at least 3 dimensions, [N, C, ...], got {list(x.shape)} {x.dtype}"
        )
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def _like(tensor: Tensor, x: Tensor) -> Tensor:
    """Give `tensor` in the layout of `x`; one of another shape or dtype is left to the checks of `_C`."""
    if tensor.stride() == x.stride() or tensor.shape != x.shape:
        return tensor
    return torch.empty_like(x, dtype=tensor.dtype).copy_(tensor)


def _allocate(x: Tensor) -> Tensor:
    return torch.empty_like(_readable(x))


def _fill(x: Tensor, size: int, alpha: float, beta: float, k: float, *, out: Tensor) -> None:
    values = _readable(x)
    if values is x and out.stride() == x.stride():
        _C.local_response_norm(x, size, alpha, beta, k, out)
        return
    _C.check_apart("local_response_norm", x, "x", out)  # the kernel would see copies
    if out.stride() == values.stride() or out.shape != x.shape or out.dtype != x.dtype:
        _C.local_response_norm(values, size, alpha, beta, k, out)
    else:
        result = torch.empty_like(values)
        _C.local_response_norm(values, size, alpha, beta, k, result)
        out.copy_(result)


def _backward(
    gradient: Tensor, needed: tuple[bool], x: Tensor, size: int, alpha: float, beta: float, k: float
) -> tuple[Tensor]:
    return (torch.ops.twostream.local_response_norm_backward(gradient, x, size, alpha, beta, k),)


def _allocate_backward(grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return torch.empty_like(_readable(x))


def _compute_backward(grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    values = _readable(x)
    out = torch.empty_like(values)
    _C.local_response_norm_backward(_like(grad, values), values, size, alpha, beta, k, out)
    return out


register_kernel("local_response_norm_backward", _compute_backward, _allocate_backward)
_operator: Operator[Tensor] = Operator(
    local_response_norm,
    allocate=_allocate,
    fill=_fill,
    gradient=Gradient(of=("x",), backward=_backward, kept=("x",)),
)
