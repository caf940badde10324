# SPDX-License-Identifier: BSD-3-Clause
"""Every operator with every dtype it takes, as cases that the tests of safety run through. New operators go here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from strategies import FLOATS, random_values

from twostream_ext import ops

COLOUR = {"mean": [123.0, 117.0, 104.0], "std": [58.0, 57.0, 56.0]}
PIXELS = ("flow", "frames", "codes", "x")  # the arguments that may have any strides


class Case(NamedTuple):
    """A call of an operator: its tensors (or lists of them) by name, and its other arguments."""

    operator: str
    tensors: dict[str, Any]
    options: dict[str, Any]

    def __call__(self, **more: Any) -> Any:
        return getattr(ops, self.operator)(**self.tensors, **self.options, **more)

    def moved(self, move: Callable[[str, torch.Tensor], torch.Tensor]) -> Case:
        """The same call on the tensors that `move(name, tensor)` gives."""
        tensors = {
            name: [move(name, each) for each in value] if isinstance(value, list) else move(name, value)
            for name, value in self.tensors.items()
        }
        return self._replace(tensors=tensors)

    def to(self, device: torch.device) -> Case:
        return self.moved(lambda _, tensor: tensor.to(device))


def flattened(result: Any) -> list[torch.Tensor]:
    """The tensors of a result: of one, of a list, of a named tuple that holds either."""
    if not isinstance(result, (list, tuple)):
        return [result]
    return [tensor for part in result for tensor in flattened(part)]


def like(result: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A result of the same structure, each tensor replaced by `make(tensor)`: what `out` takes."""
    if isinstance(result, torch.Tensor):
        return make(result)
    parts = [like(part, make) for part in result]
    return type(result)(*parts) if hasattr(result, "_fields") else parts


def cases(height: int = 9, width: int = 11, crop: tuple[int, int] = (7, 6)) -> dict[str, Case]:
    """All cases, on two samples of two fields, the second of which may be smaller by a row and a column."""
    made: dict[str, Case] = {}

    def add(operator: str, words: str, tensors: dict[str, Any], **options: Any) -> None:
        made[f"{operator} {words}".strip()] = Case(operator, tensors, options)

    extents = [(height, width), (max(height - 1, crop[0]), max(width - 1, crop[1]))]
    windows = torch.tensor(
        [
            [[0, 0, 0], [h - crop[0], w - crop[1], 1], [(h - crop[0]) // 2, (w - crop[1] + 1) // 2, 0]]
            for h, w in extents
        ],
        dtype=torch.int32,
    )
    one_window = windows[:, 1].contiguous()
    lo = random_values((2, 2, 2), torch.float32, 1)
    step = random_values((2, 2, 2), torch.float32, 2).abs() / 50
    mean = random_values((2, 2, 2), torch.float32, 3)
    camera = random_values((2, 2, 2, 3), torch.float32, 4) / 50
    shift = random_values((2, 3), torch.float32, 4)

    for given in (torch.uint8, *FLOATS):
        name = str(given).removeprefix("torch.")
        coding = {"lo": lo, "step": step} if given == torch.uint8 else {}
        flow = random_values((2, 2, height, width, 2), given, 5)
        ragged = [random_values((2, *extent, 2), given, 6) for extent in extents]
        frames = random_values((2, height, width, 3), given, 7)
        for dtype in FLOATS:
            words = f"{name} to {str(dtype).removeprefix('torch.')}"
            for stack, more in (("flow_stack", {}), ("trajectory_stack", {"bidirectional": dtype != torch.float32})):
                tensors = {"flow": flow, "windows": windows, "mean": mean, **coding}
                add(stack, words, tensors, size=crop, dtype=dtype, **more)
            add("crop_frames", words, {"frames": frames, "windows": one_window}, size=crop, dtype=dtype, **COLOUR)
        for stack in ("flow_stack", "trajectory_stack"):
            tensors = {"flow": flow, "windows": windows, "camera": camera, **coding}
            add(stack, f"{name} and a camera", tensors, size=crop)
            tensors = {"flow": ragged, "windows": windows, **coding}
            add(stack, f"ragged {name}", tensors, size=crop, subtract_mean=True, channels_last=True)
        images = [random_values((*extent, 3), given, 8) for extent in extents]
        tensors = {"frames": images, "windows": windows, "shift": shift}
        add("crop_frames", f"ragged {name}", tensors, size=crop, channels_last=True, **COLOUR)
        add("mean_flow", name, {"flow": flow, **coding})
        add("camera_motion", name, {"flow": flow, **coding})
        add("camera_motion", f"ragged {name}", {"flow": ragged, **coding}, iterations=3)
        if given == torch.uint8:
            for dtype in FLOATS:
                tensors = {"codes": flow, "lo": lo, "step": step}
                add("dequantize_flow", f"to {str(dtype).removeprefix('torch.')}", tensors, dtype=dtype)
            add("dequantize_flow", "ragged", {"codes": ragged, "lo": lo, "step": step})
        else:
            add("quantize_flow", name, {"flow": flow})
            add("quantize_flow", f"ragged {name}", {"flow": ragged}, bound=3.0)
            add("local_response_norm", name, {"x": random_values((2, 7, *crop), given, 9)})
    greys = (random_values((2, height, width), torch.uint8, seed) for seed in (10, 11))
    quick = {"scales": 2, "warps": 2, "iterations": 6}
    tensors = dict(zip(("prev", "next"), greys, strict=True))
    add("tvl1_flow", "uint8", tensors, median=3, median_every=2, **quick)
    shades = {name: grey.float() for name, grey in tensors.items()}
    add("tvl1_flow", "float32", {**shades, "init": random_values((2, height, width, 2), torch.float32, 12)}, **quick)
    add("tvl1_clip_flow", "float32", {"clip": shades["next"]}, backward=True, **quick)
    add("tvl1_clip_flow", "uint8", {"clip": tensors["prev"]}, median=3, median_every=2, **quick)
    add("tvl1_clip_flow", "uint8, coarse", {"clip": tensors["prev"]}, finest_scale=1, epsilon=0.0, **quick)
    images = {name: [random_values(extent, torch.uint8, 13) for extent in extents] for name in ("prev", "next")}
    add("tvl1_flow", "ragged", images, **quick)
    sizes = torch.tensor(extents)
    add("random_windows", "", {"sizes": sizes}, size=crop, seed=3)
    add("ten_crop_windows", "", {"sizes": sizes}, size=crop)
    return made


CASES = cases()
EXAMPLES = {case.operator: case for case in CASES.values()}  # one case an operator
