# SPDX-License-Identifier: BSD-3-Clause
"""The operators once more, in float64 NumPy, written from the formulas and not from the kernels."""

from __future__ import annotations

import numpy as np


def flow_stack(displacements, windows, size, subtract_mean=False):
    """displacements: list of N float64 arrays [L, H, W, 2]; windows int [N, K, 3] -> [N, K, 2L, h, w]."""
    height, width = size
    batch = []
    for given, places in zip(displacements, windows, strict=True):
        fields = given - given.mean(axis=(1, 2), keepdims=True) if subtract_mean else given
        stacks = []
        for top, left, flip in places:
            crop = fields[:, top : top + height, left : left + width, :]
            if flip:
                crop = crop[:, :, ::-1, :] * np.array([-1.0, 1.0])
            stacks.append(crop.transpose(0, 3, 1, 2).reshape(-1, height, width))
        batch.append(stacks)
    return np.array(batch)


def crop_frames(frames, windows, size, mean, std, shift):
    """frames: list of N arrays [H, W, 3]; shift [N, 3] -> [N, K, 3, h, w]."""
    height, width = size
    batch = []
    for frame, places, moved in zip(frames, windows, shift, strict=True):
        normal = (frame.astype(np.float64) - np.asarray(mean) + moved) / np.asarray(std)
        crops = []
        for top, left, flip in places:
            crop = normal[top : top + height, left : left + width]
            crops.append((crop[:, ::-1] if flip else crop).transpose(2, 0, 1))
        batch.append(crops)
    return np.array(batch)


def dequantize(codes, lo, step):
    """codes [L, H, W, 2], lo and step [L, 2]."""
    return lo[:, None, None, :].astype(np.float64) + step[:, None, None, :].astype(np.float64) * codes


def philox(counter, key):
    """Philox4x32-10 in Python integers (Salmon et al. 2011)."""
    mask = 0xFFFFFFFF
    c = [counter & mask, counter >> 32 & mask, 0, 0]
    k = [key & mask, key >> 32 & mask]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & mask, p0 >> 32 ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def response_window(channels, size):
    """Entry [c, j] tells whether channel j is in the window of channel c: c - size // 2 to c + (size - 1) // 2."""
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    return (offset >= -(size // 2)) & (offset <= (size - 1) // 2)


def local_response_norm(x, size, alpha, beta, k):
    """x: [N, C, ...] of any dtype -> float64."""
    x = x.astype(np.float64)
    out = np.empty_like(x)
    for channel, window in enumerate(response_window(x.shape[1], size)):
        out[:, channel] = x[:, channel] / (k + alpha * (x[:, window] ** 2).sum(1) / size) ** beta
    return out
