# SPDX-License-Identifier: BSD-3-Clause
"""A step for a pipeline of MMAction2 that crops, flips, decodes and stacks raw flow images at once.

In place of its RandomCrop, Flip, Normalize and FormatShape for flow. A picture of x displacements that is mirrored as
bytes, 255 - x, has 128 where 127 stood still; here values are mirrored after they are decoded, so still stays still.

    train_pipeline = [
        dict(type="SampleFrames", clip_len=1, frame_interval=1, num_clips=1),
        dict(type="RawFrameDecode"),
        dict(type="FlowStack", size=224, length=5),
        dict(type="PackActionInputs"),
    ]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from twostream_ext import ops


@TRANSFORMS.register_module()
class FlowStack(BaseTransform):
    """`imgs`, each field's x and y, uint8, to stacks of displacements, float32 [N, 2L, size, size].

    They are pictures [H, W] in turn, as MMAction2 1.0 reads them, or [H, W, 2] of both, as later versions do.

    bound: displacements that the bytes 0 and 255 stand for, in pixels, as denseflow was told. flip_ratio: 0 at test.
    """

    def __init__(self, size: int, length: int, bound: float = 20.0, flip_ratio: float = 0.5) -> None:
        self.size, self.length, self.bound, self.flip_ratio = size, length, bound, flip_ratio

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        pictures = np.stack(results["imgs"])
        planes = pictures if pictures.ndim == 3 else pictures.transpose(0, 3, 1, 2)
        height, width = planes.shape[-2:]
        fields = planes.reshape(-1, self.length, 2, height, width).transpose(0, 1, 3, 4, 2)  # [N, L, H, W, 2]
        count = len(fields)
        seed = int(np.random.randint(2**31))  # noqa: NPY002  as MMEngine seeds its workers
        window = ops.random_windows(np.array([[height, width]]), self.size, flip=self.flip_ratio, seed=seed)
        lo = np.full((count, self.length, 2), -self.bound, np.float32)
        step = np.full_like(lo, 2 * self.bound / 255)
        stacks = ops.flow_stack(fields, window.expand(count, -1).contiguous(), self.size, lo=lo, step=step)
        return {**results, "imgs": stacks.numpy(), "flip": bool(window[0, 2]), "input_shape": tuple(stacks.shape)}
