# SPDX-License-Identifier: BSD-3-Clause
"""Stacks of optical-flow fields: what the temporal ConvNet sees (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration
from twostream_ext.ops.mean_flow import allocate_per_field

_SAMPLE_DIMENSIONS = 4  # [L, H, W, 2]


def flow_stack(
    flow: registration.Arrays,
    windows: torch.Tensor,
    size: int | Sequence[int],
    *,
    lo: torch.Tensor | None = None,
    step: torch.Tensor | None = None,
    subtract_mean: bool = False,
    mean: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crop, flip, decode and stack L flow fields into 2L channels (paper, equation 1).

    Channel 2k is the x displacement of field k, channel 2k + 1 its y (0-based). A flipped window is mirrored left-right
    and its x displacements change sign, in float, so that still stays still.

    Args:
        flow: displacements in pixels, `[N, L, H, W, 2]` with any strides, or N tensors `[L, H_i, W_i, 2]`; uint8 codes,
            float32, float16 or bfloat16.
        windows: int32 `[N, 3]` or `[N, K, 3]` of (top, left, flip). Outside its field, a window is an error on the CPU
            and is clamped on CUDA, where looking would synchronise.
        size: height and width of a window.
        lo, step: float32 `[N, L, 2]`, for uint8 codes: displacement = lo + step * code.
        subtract_mean: subtract from each field the mean displacement of the WHOLE field (section 3.1).
        mean: float32 `[N, L, 2]`, the means in pixels, where they are known already; implies `subtract_mean`.
        dtype: float32, float16 or bfloat16, of the result.
        channels_last: give the result in the channels-last memory format.
        out: fill and return this tensor; `dtype` and `channels_last` are then its own.

    Returns:
        `[N, 2L, h, w]`, or `[N, K, 2L, h, w]` for windows `[N, K, 3]`.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
    """
    fields = registration.to_list(flow)
    windows = registration.to_tensor(windows).contiguous()
    lo, step, mean = (registration.to_contiguous(each) for each in (lo, step, mean))
    registration.refuse_gradient("flow_stack", [*fields, lo, step, mean])
    if out is not None:
        torch.ops.twostream.flow_stack.out(
            fields, windows, lo, step, subtract_mean, mean, out=registration.to_tensor(out)
        )
        return out
    pair = registration.to_pair("flow_stack", size)
    result: torch.Tensor = torch.ops.twostream.flow_stack(
        fields, windows, pair, lo, step, subtract_mean, mean, dtype, channels_last
    )
    return result


def _allocate(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    length = flow[0].shape[-4]
    count = registration.batch_size(flow, _SAMPLE_DIMENSIONS)
    return registration.allocate_stack(flow[0], count, windows, 2 * length, size, dtype, channels_last)


def _fill(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    *,
    out: torch.Tensor,
) -> None:
    if subtract_mean and mean is None:
        mean = allocate_per_field(flow)
        _C.mean_flow(flow, lo, step, mean)
    _C.flow_stack(flow, windows, lo, step, mean, out)


def _compute(
    flow: list[torch.Tensor],
    windows: torch.Tensor,
    size: Sequence[int],
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    subtract_mean: bool,
    mean: torch.Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    _check_flow(flow)
    out = _allocate(flow, windows, size, lo, step, subtract_mean, mean, dtype, channels_last)
    _fill(flow, windows, lo, step, subtract_mean, mean, out=out)
    return out


def _check_flow(flow: list[torch.Tensor]) -> None:
    """Before the result is allocated: its shape needs the dimensions of the first field."""
    if not flow or flow[0].dim() < _SAMPLE_DIMENSIONS:
        got = tuple(flow[0].shape) if flow else "an empty list"
        raise ValueError(f"flow_stack: flow must be [N, L, H, W, 2] or a list of [L, H, W, 2], got {got}")


registration.register(
    "flow_stack(Tensor[] flow, Tensor windows, SymInt[] size, Tensor? lo, Tensor? step, bool subtract_mean,"
    " Tensor? mean, ScalarType dtype, bool channels_last) -> Tensor",
    _compute,
    _allocate,
)
registration.register(
    "flow_stack.out(Tensor[] flow, Tensor windows, Tensor? lo, Tensor? step, bool subtract_mean, Tensor? mean, *,"
    " Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
