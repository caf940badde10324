# SPDX-License-Identifier: BSD-3-Clause
"""Local response normalisation with the constants of CNN-M."""

from __future__ import annotations

from torch import Tensor, nn

from twostream_ext import ops

SIZE = 5  # channels in one sum
ALPHA = 5e-4  # divided by SIZE, as Caffe and PyTorch do: 1e-4 for each square
BETA = 0.75
K = 2.0


def local_response_norm(x: Tensor) -> Tensor:
    """Divide each value by (2 + 1e-4 * the sum of squares of 5 neighbouring channels) ** 0.75.

    `x` is float32, float16 or bfloat16 [N, C, H, W]; channels beyond the first and last count as zero. The constants
    are those of the released VGG_CNN_M_2048. Differentiable, once.
    """
    return ops.local_response_norm(x, SIZE, ALPHA, BETA, K)


class LocalResponseNorm(nn.Module):
    """`local_response_norm` as a layer without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x)
