# SPDX-License-Identifier: BSD-3-Clause
"""The operators once more, in float64 NumPy, written from the formulas and not from the kernels."""

from __future__ import annotations

import itertools

import numpy as np


def mapped(camera, x, y):
    """What a map [2, 3] says at places: [..., 2]."""
    return np.stack([x, y, np.ones(x.shape)], axis=-1) @ camera.astype(np.float64).T


def flow_stack(displacements, windows, size, subtract_mean=False, camera=None):
    """displacements: list of N float64 arrays [L, H, W, 2]; windows int [N, K, 3]; camera [N, L, 2, 3] or None
    -> [N, K, 2L, h, w].
    """
    height, width = size
    batch = []
    for number, (given, places) in enumerate(zip(displacements, windows, strict=True)):
        fields = given - given.mean(axis=(1, 2), keepdims=True) if subtract_mean else given
        if camera is not None:
            y, x = np.mgrid[: given.shape[1], : given.shape[2]]
            fields = np.stack([field - mapped(map, x, y) for field, map in zip(given, camera[number], strict=True)])
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


def trajectory_stack(displacements, windows, size, subtract_mean=False, bidirectional=False, camera=None):
    """The paper's equation 2, and how far float32 may be from it: two arrays [N, K, 2L, h, w] and [N, K, 2L, 1, 1].

    displacements: list of N float64 arrays [L, H, W, 2]; windows int [N, K, 3]; camera [N, L, 2, 3] or None.
    """
    height, width = size
    batch, bounds = [], []
    for number, (fields, places) in enumerate(zip(displacements, windows, strict=True)):
        length, rows, columns, _ = fields.shape
        for top, left, flip in places:
            channels, errors = [], []
            for k, field in enumerate(fields):
                if k == 0 or (bidirectional and k == length // 2):
                    y, x = np.mgrid[top : top + height, left : left + width].astype(np.float64)
                    moved = 0.0
                d = bilinear(field, x, y)
                value = d - field.mean(axis=(0, 1)) if subtract_mean else d
                map_slope, map_size = 0.0, 0.0
                if camera is not None:
                    value = d - mapped(camera[number][k], x, y)
                    map_slope = np.abs(camera[number][k][:, :2]).sum()
                    map_size = map_slope * (rows + columns) + np.abs(camera[number][k][:, 2]).max()
                channels.extend(np.moveaxis(value[:, ::-1] * [-1.0, 1.0] if flip else value, -1, 0))
                slope = sum(np.abs(np.diff(field, axis=axis)).max(initial=0) for axis in (0, 1))
                error = moved * slope + 1e-6 * (np.abs(field).max() + 1)
                errors += [error + moved * map_slope + 1e-6 * map_size] * 2
                moved += error + 1e-7 * (rows + columns)
                x = np.clip(x + d[..., 0], 0, columns - 1)
                y = np.clip(y + d[..., 1], 0, rows - 1)
            batch.append(channels)
            bounds.append(errors)
    batch, bounds = np.array(batch), np.array(bounds)
    leading = (len(displacements), len(windows[0]))
    return batch.reshape(*leading, *batch.shape[1:]), bounds.reshape(*leading, -1, 1, 1)


def camera_motion(field, rounds):
    """One field [H, W, 2] of float64 -> the map [2, 3]: least squares, again and again, each with new weights."""
    height, width, _ = field.shape
    step = 1
    while ((height - 1) // step + 1) * (-(-((width - 1) // step + 1) // 8) * 8) > 4096:
        step += 1 + step // 8

    def pixels(every):
        """Places [rows, columns, 3] between 0 and 1, and displacements there."""
        rows = np.arange((height - 1) % every // 2, height, every)
        columns = np.arange((width - 1) % every // 2, width, every)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        return np.stack([x / max(width - 1, 1), y / max(height - 1, 1), np.ones(x.shape)], axis=-1), field[y, x]

    def fit(places, values, weights):
        roots = np.sqrt(weights)[..., None]
        return np.linalg.lstsq((roots * places).reshape(-1, 3), (roots * values).reshape(-1, 2), rcond=1e-6)[0]

    places, values = pixels(step)
    parts = [(slice(None), slice(None))]
    rows, columns = places.shape[:2]
    if rows >= 32 and columns >= 32:
        down, right = ([length * part // 4 for part in range(5)] for length in (rows, columns))
        parts += [
            (slice(top, bottom), slice(left, last))
            for top, bottom in itertools.pairwise(down)
            for left, last in itertools.pairwise(right)
        ]
    starts = [fit(places[part], values[part], np.ones(places[part].shape[:2])) for part in parts]
    penalties = [np.sqrt(np.linalg.norm(values - places @ start, axis=-1))[::4].mean() for start in starts]
    fitted, scale = starts[np.argmin(penalties)], max(min(penalties) ** 4, 1e-6)
    for number in range(rounds):
        if number == rounds - 1:
            (places, values), scale = pixels(1), 8 * scale
        squared = ((values - places @ fitted) ** 2).sum(-1)
        weights = (1 / (1 + squared / scale)) ** 2
        fitted = fit(places, values, weights)
        scale = max(1.5 * (weights * squared).sum() / weights.sum(), 1e-6)
    slopes = fitted[:2] / np.array([[max(width - 1, 1)], [max(height - 1, 1)]])
    return np.concatenate([slopes, fitted[2:]]).T


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


def resize(image, shape, scale_y, scale_x):
    """Bilinear, pixels as squares: position (place + 1/2) * scale - 1/2 of each pixel of the result."""
    height, width = image.shape[:2]
    y = np.clip((np.arange(shape[0]) + 0.5) * scale_y - 0.5, 0, height - 1)
    x = np.clip((np.arange(shape[1]) + 0.5) * scale_x - 0.5, 0, width - 1)
    top, left = np.minimum(y.astype(int), max(height - 2, 0)), np.minimum(x.astype(int), max(width - 2, 0))
    down, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    v, u = (y - top)[:, None], (x - left)[None]
    rows = [(1 - u) * image[r][:, left] + u * image[r][:, right] for r in (top, down)]
    return (1 - v) * rows[0] + v * rows[1]


def cubic(image, y, x):
    """Cubic convolution (a = -0.75) at positions; the image is 0 outside."""
    a = -0.75
    padded = np.pad(image, 5)
    y, x = np.clip(y, -2, image.shape[0] + 1), np.clip(x, -2, image.shape[1] + 1)
    total = np.zeros(y.shape)
    for down in range(-1, 3):
        for right in range(-1, 3):
            weight = 1.0
            for position, step in ((y, down), (x, right)):
                d = np.abs(position - np.floor(position) - step)
                near = (a + 2) * d**3 - (a + 3) * d**2 + 1
                far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
                weight = weight * np.where(d <= 1, near, far)
            total += weight * padded[np.floor(y).astype(int) + down + 5, np.floor(x).astype(int) + right + 5]
    return total


def median(plane, side):
    padded = np.pad(plane, side // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return np.median(windows, axis=(2, 3))


def tvl1_flow(
    prev,
    next,
    *,
    tau=0.25,
    lambda_=0.15,
    theta=0.3,
    scales=5,
    scale_step=0.8,
    finest_scale=0,
    warps=5,
    iterations=300,
    side=0,
    every=30,
    init=None,
):
    """One pair of grey frames [H, W]: Zach, Pock and Bischof's two steps, all iterations of them -> [H, W, 2]."""
    pyramid = [(prev.astype(float), next.astype(float))]
    flows = [np.zeros((*prev.shape, 2)) if init is None else init.astype(float)]
    while len(pyramid) < scales:
        shape = [int(np.rint(length * scale_step)) for length in pyramid[-1][0].shape]
        if min(shape) < 16:
            break
        pyramid.append(tuple(resize(image, shape, 1 / scale_step, 1 / scale_step) for image in pyramid[-1]))
        smaller = [resize(flows[-1][..., c], shape, 1 / scale_step, 1 / scale_step) for c in (0, 1)]
        flows.append(np.stack(smaller, axis=-1) * scale_step)
    flow = flows[-1]
    finest = min(finest_scale, len(pyramid) - 1)
    for level, (previous, following) in reversed(list(enumerate(pyramid))):
        height, width = previous.shape
        if flow.shape[:2] != previous.shape:
            ratio = flow.shape[0] / height, flow.shape[1] / width
            flow = np.stack([resize(flow[..., c], previous.shape, *ratio) for c in (0, 1)], axis=-1) / scale_step
        if level < finest:
            continue
        edge = np.pad(following, 1, mode="edge")
        slope = [(edge[1:-1, 2:] - edge[1:-1, :-2]) / 2, (edge[2:, 1:-1] - edge[:-2, 1:-1]) / 2]
        y, x = np.mgrid[:height, :width]
        dual = np.zeros((2, 2, height, width))  # of each component: along x, along y
        for _ in range(warps):
            place = y + flow[..., 1], x + flow[..., 0]
            warped, along_x, along_y = (cubic(image, *place) for image in (following, *slope))
            squares = along_x**2 + along_y**2
            constant = warped - along_x * flow[..., 0] - along_y * flow[..., 1] - previous
            for iteration in range(iterations):
                if side and iteration % every == 0:
                    flow = np.stack([median(flow[..., c], side) for c in (0, 1)], axis=-1)
                residual = constant + along_x * flow[..., 0] + along_y * flow[..., 1]
                bound = lambda_ * theta
                with np.errstate(divide="ignore", invalid="ignore"):
                    exact = np.where(squares > np.finfo(np.float32).eps, -residual / squares, 0.0)
                length = np.clip(exact, -bound, bound)
                updated = np.empty_like(flow)
                for c, along in ((0, along_x), (1, along_y)):
                    p = dual[c]
                    divergence = np.diff(p[0], axis=1, prepend=0) + np.diff(p[1], axis=0, prepend=0)
                    updated[..., c] = flow[..., c] + length * along + theta * divergence
                flow = updated
                for c in (0, 1):
                    gradient = np.stack(
                        [
                            np.diff(flow[..., c], axis=1, append=flow[:, -1:, c]),
                            np.diff(flow[..., c], axis=0, append=flow[-1:, :, c]),
                        ]
                    )
                    norm = np.sqrt((gradient**2).sum(0))
                    dual[c] = (dual[c] + tau / theta * gradient) / (1 + tau / theta * norm)
    return flow
