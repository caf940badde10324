# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Sequence

from torch import Tensor

def version() -> str: ...
def cpu_isa() -> str: ...
def cuda_architectures() -> str: ...
def cuda_device_count() -> int: ...
def cuda_driver_version() -> int: ...
def flow_stack(
    flow: Sequence[Tensor],
    windows: Tensor,
    lo: Tensor | None,
    step: Tensor | None,
    mean: Tensor | None,
    out: Tensor,
) -> None: ...
def trajectory_stack(
    flow: Sequence[Tensor],
    windows: Tensor,
    lo: Tensor | None,
    step: Tensor | None,
    mean: Tensor | None,
    bidirectional: bool,
    out: Tensor,
) -> None: ...
def trajectory_stack_backward(
    gradient: Tensor,
    flow: Sequence[Tensor],
    windows: Tensor,
    subtract_mean: bool,
    bidirectional: bool,
    mean_gradient: Tensor,
    flow_gradient: Sequence[Tensor],
    positions: Tensor,
    displacements: Tensor,
    largest: Tensor,
    sums: Tensor,
) -> None: ...
def crop_frames(
    frames: Sequence[Tensor],
    windows: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    shift: Tensor | None,
    out: Tensor,
) -> None: ...
def flow_stack_backward(gradient: Tensor, windows: Tensor, out: Sequence[Tensor]) -> None: ...
def crop_frames_backward(gradient: Tensor, windows: Tensor, std: Sequence[float], out: Sequence[Tensor]) -> None: ...
def mean_flow(flow: Sequence[Tensor], lo: Tensor | None, step: Tensor | None, out: Tensor) -> None: ...
def quantize_flow(
    flow: Sequence[Tensor],
    bound: float | None,
    codes: Sequence[Tensor],
    lo: Tensor,
    step: Tensor,
    mean: Tensor,
) -> None: ...
def dequantize_flow(codes: Sequence[Tensor], lo: Tensor, step: Tensor, out: Sequence[Tensor]) -> None: ...
def random_windows(
    sizes: Tensor, height: int, width: int, flip: float, seed: int, offset: int, out: Tensor
) -> None: ...
def ten_crop_windows(sizes: Tensor, height: int, width: int, out: Tensor) -> None: ...
def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, out: Tensor) -> None: ...
def local_response_norm_backward(
    grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, out: Tensor
) -> None: ...
def tvl1_flow_workspace(frames: Tensor, scales: int, scale_step: float, concurrent_pairs: int) -> int: ...
def tvl1_flow(
    frames: Tensor,
    pairs: Tensor,
    init: Tensor | None,
    tau: float,
    lambda_: float,
    theta: float,
    scales: int,
    scale_step: float,
    warps: int,
    epsilon: float,
    iterations: int,
    median: int,
    median_every: int,
    concurrent_pairs: int,
    share_rows: bool,
    workspace: Tensor,
    out: Tensor,
) -> None: ...
