# SPDX-License-Identifier: BSD-3-Clause
"""The mean displacement of a flow field, which stands for the camera's motion (paper, section 3.1)."""

from __future__ import annotations

import torch

from twostream_ext import _C
from twostream_ext.ops import _registration as registration

_SAMPLE_DIMENSIONS = 4  # [L, H, W, 2]


def mean_flow(
    flow: registration.Flow,
    *,
    lo: torch.Tensor | None = None,
    step: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Average each whole field: one x and one y mean, in pixels.

    Args:
        flow: as for `flow_stack`.
        lo, step: float32 `[N, L, 2]`, for uint8 codes: displacement = lo + step * code.
        out: fill and return this float32 tensor `[N, L, 2]`.

    Returns:
        float32 `[N, L, 2]`. A NaN or an infinity in a field shows in its mean.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or device; names it.
    """
    fields, lo, step, _ = registration.to_fields(flow, lo, step)
    registration.refuse_gradient("mean_flow", *fields, lo, step)
    if out is not None:
        torch.ops.twostream.mean_flow.out(fields, lo, step, out=registration.to_tensor(out))
        return out
    result: torch.Tensor = torch.ops.twostream.mean_flow(fields, lo, step)
    return result


def allocate_per_field(flow: list[torch.Tensor]) -> torch.Tensor:
    """Allocate float32 [N, L, 2] beside a batch of fields."""
    if not flow or flow[0].dim() < _SAMPLE_DIMENSIONS:
        got = tuple(flow[0].shape) if flow else "an empty list"
        raise ValueError(f"twostream: flow must be [N, L, H, W, 2] or a list of [L, H, W, 2], got {got}")
    count = registration.batch_size(flow, _SAMPLE_DIMENSIONS)
    return flow[0].new_empty([count, flow[0].shape[-4], 2], dtype=torch.float32)


def _fill(
    flow: list[torch.Tensor],
    lo: torch.Tensor | None,
    step: torch.Tensor | None,
    *,
    out: torch.Tensor,
) -> None:
    _C.mean_flow(flow, lo, step, out)


def _compute(flow: list[torch.Tensor], lo: torch.Tensor | None, step: torch.Tensor | None) -> torch.Tensor:
    out = allocate_per_field(flow)
    _fill(flow, lo, step, out=out)
    return out


def _allocate(flow: list[torch.Tensor], lo: torch.Tensor | None, step: torch.Tensor | None) -> torch.Tensor:
    return allocate_per_field(flow)


registration.register("mean_flow(Tensor[] flow, Tensor? lo, Tensor? step) -> Tensor", _compute, _allocate)
registration.register(
    "mean_flow.out(Tensor[] flow, Tensor? lo, Tensor? step, *, Tensor(a!) out) -> ()",
    _fill,
    registration.nothing,
)
