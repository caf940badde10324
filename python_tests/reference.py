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


def bilinear(field, x, y):
    """field [H, W, 2] at positions inside it: the four neighbours weighted, those of weight 0 left out."""
    total = np.zeros((*x.shape, 2))
    for rows, weight_y in ((np.floor(y), 1 - y % 1), (np.floor(y) + 1, y % 1)):
        for columns, weight_x in ((np.floor(x), 1 - x % 1), (np.floor(x) + 1, x % 1)):
            weight = weight_x * weight_y
            counts = weight > 0
            total[counts] += weight[counts, None] * field[rows[counts].astype(int), columns[counts].astype(int)]
    return total


def trajectory_stack(displacements, windows, size, subtract_mean=False, bidirectional=False):
    """The paper's equation 2, and how far float32 may be from it: two arrays [N, K, 2L, h, w] and [N, K, 2L, 1, 1].

    displacements: list of N float64 arrays [L, H, W, 2]; windows int [N, K, 3].
    """
    height, width = size
    batch, bounds = [], []
    for fields, places in zip(displacements, windows, strict=True):
        length, rows, columns, _ = fields.shape
        for top, left, flip in places:
            channels, errors = [], []
            for k, field in enumerate(fields):
                if k == 0 or (bidirectional and k == length // 2):
                    y, x = np.mgrid[top : top + height, left : left + width].astype(np.float64)
                    moved = 0.0
                d = bilinear(field, x, y)
                value = d - field.mean(axis=(0, 1)) if subtract_mean else d
                channels.extend(np.moveaxis(value[:, ::-1] * [-1.0, 1.0] if flip else value, -1, 0))
                slope = sum(np.abs(np.diff(field, axis=axis)).max(initial=0) for axis in (0, 1))
                error = moved * slope + 1e-6 * (np.abs(field).max() + 1)
                errors += [error, error]
                moved += error + 1e-7 * (rows + columns)
                x = np.clip(x + d[..., 0], 0, columns - 1)
                y = np.clip(y + d[..., 1], 0, rows - 1)
            batch.append(channels)
            bounds.append(errors)
    batch, bounds = np.array(batch), np.array(bounds)
    leading = (len(displacements), len(windows[0]))
    return batch.reshape(*leading, *batch.shape[1:]), bounds.reshape(*leading, -1, 1, 1)


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
