# SPDX-License-Identifier: BSD-3-Clause
"""Local response normalisation of CNN-M; the one place to change for a kernel of our own."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor, nn

SIZE = 5  # channels in one sum
ALPHA = 5e-4  # divided by SIZE, as Caffe and PyTorch do: 1e-4 for each square
BETA = 0.75
K = 2.0


def local_response_norm(x: Tensor) -> Tensor:
    """Divide each value by (2 + 1e-4 * the sum of squares of 5 neighbouring channels) ** 0.75.

    `x` is float [N, C, H, W]; channels beyond the first and last count as zero. The constants are
    those of the released VGG_CNN_M_2048. Differentiable.
    """
    if x.is_cuda:
        return functional.local_response_norm(x, SIZE, ALPHA, BETA, K)
    # On the CPU that call takes as long as conv1; a banded 1x1 convolution gives the same sums 4 to
    # 8 times faster, and d ** -0.75 is r * sqrt(r) with r = 1 / sqrt(d).
    channels = x.shape[1]
    band = x.new_full((channels, channels), ALPHA / SIZE).tril(SIZE // 2).triu(-(SIZE // 2))
    denominator = functional.conv2d(x * x, band[:, :, None, None], x.new_full((channels,), K))
    root = denominator.rsqrt()
    return x * (root * root.sqrt())


class LocalResponseNorm(nn.Module):
    """`local_response_norm` as a layer without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x)
