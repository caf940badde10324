# SPDX-License-Identifier: BSD-3-Clause
"""Nets that make vectors of windows of a video: ours, timm's, I3D."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twostream_ext import ops
from twostream_ext.data import InputBatch
from twostream_ext.engine.evaluate import inputs_per_pass
from twostream_ext.engine.origin import net_digest, tensor_digest
from twostream_ext.engine.predictor import Pixels
from twostream_ext.engine.streams import find_stream
from twostream_ext.engine.streams.stream import crop_windows
from twostream_ext.errors import SettingsError
from twostream_ext.extraction import code_fields, quantize_fields
from twostream_ext.flow import DIRECTIONS, ClipFlow, CodedFlow, FlowClip, FlowInMemory, FlowSettings
from twostream_ext.media import FrameBatch, FrameClip, FramesInMemory, code_frame
from twostream_ext.models import (
    I3D,
    I3D_BOUND,
    I3D_FEWEST_FRAMES,
    I3D_KINDS,
    I3D_SIZE,
    StreamNet,
)

_MANY = 1 << 10  # frames of a clip that is only counted
_MIDDLE = (127.5, 127.5, 127.5)  # brings 0 .. 255 to [-1, 1]


class Sight(NamedTuple):
    """What nets see of a video."""

    method: str
    """How flow is estimated."""
    smallest_side: int
    """Of the frames, in pixels."""
    quality: int
    """Of the JPEGs of frames and flow that nets of ours see."""


class Stretch(NamedTuple):
    """Neighbouring frames of a video."""

    frames: list[Pixels]
    """Those that are new: of the first stretch all, of the others all but the last of the stretch before."""
    flow: ClipFlow | None
    """From the last of the stretch before, if there is one, over all frames; None where it is not wanted, or there is
    one frame."""


class WindowNet(ABC):
    """A net, and how the vector of a window is made of the items of its frames: pictures, or the vectors of inputs."""

    name: str
    digest: str  # of every bit of its weights
    takes_flow: bool
    takes_backward: bool = False
    input_size: int  # side in pixels
    least: int
    """Frames that an item is made of."""

    @property
    def fewest(self) -> int:
        """Frames of a video that has items."""
        return max(self.least, 2) if self.takes_flow else self.least

    @abstractmethod
    def items(self, stretches: Iterable[Stretch], crops: int) -> Iterator[Tensor]:
        """The items of a video in order, of its frames 0 .. `least` - 1, 1 .. `least`, and so on; none if it has fewer
        frames."""

    @abstractmethod
    def vectors(self, items: Sequence[Tensor], crops: int) -> Tensor:
        """Those of one window, float32 [crops, D] on the CPU, of the items that lie in it."""

    def check_window(self, window: int) -> None:
        """SettingsError if a window of so many frames is too short."""
        if window < self.least:
            raise SettingsError(f"window is {window} frames, {self.name} needs at least {self.least}")


class StreamWindows(WindowNet):
    """A net of ours: the mean of a layer over all frames, or all stacks of flow, that lie in a window.

    Frames and fields are coded as in a store, so that the net sees what it has learnt on. An input is seen once, in
    however many windows it lies.
    """

    def __init__(self, net: StreamNet, layer: str, sight: Sight) -> None:
        net.check_layer(layer)
        self.name = f"{net.settings.stream} net"
        self.digest = net_digest(net)
        self._stream = find_stream(net.settings.stream)
        self.takes_flow = self._stream.reads == "flow"
        self.takes_backward = net.settings.bidirectional
        self.input_size = net.settings.input_size
        self._net = net
        self._layer = layer
        self._inputs = self._stream.inputs(net.settings)
        self._settings = FlowSettings(
            method=sight.method,
            smallest_side=sight.smallest_side,
            codec="jpeg",
            quality=sight.quality,
            directions=DIRECTIONS if self.takes_backward else DIRECTIONS[:1],
        )
        self._quality = sight.quality
        self.least = _MANY - self._inputs.count(self._blank_clip(_MANY)) + 1

    def items(self, stretches: Iterable[Stretch], crops: int) -> Iterator[Tensor]:
        kept: list[Any] = []  # JPEGs of frames, or fields by direction, of which inputs can still be made
        for stretch in stretches:
            kept += self._coded_fields(stretch) if self.takes_flow else self._coded_frames(stretch)
            places = len(kept) + self.takes_flow - self.least + 1
            if places > 0:
                clip = self._clip(kept, stretch.frames[0])
                yield from self._vectors(clip, places, crops).unbind()
                kept = kept[places:]

    def vectors(self, items: Sequence[Tensor], crops: int) -> Tensor:
        return torch.stack(list(items)).mean(0)

    def _coded_frames(self, stretch: Stretch) -> list[bytes]:
        return [code_frame(pixels.rgb, self._quality) for pixels in stretch.frames]

    def _coded_fields(self, stretch: Stretch) -> list[dict[str, CodedFlow]]:
        if stretch.flow is None:
            return []
        coded = code_fields(quantize_fields(stretch.flow, self._settings), self._settings)
        return [
            {name: _field(fields, number) for name, fields in coded.items() if name in self._settings.directions}
            for number in range(len(stretch.flow.forward))
        ]

    def _clip(self, kept: Sequence[Any], pixels: Pixels) -> FlowClip | FrameClip:
        """What is kept, as a video of its own."""
        size = (pixels.rgb.shape[0], pixels.rgb.shape[1])
        if not self.takes_flow:
            return FramesInMemory(self.name, kept, fps=1.0, size=size, source_size=size)
        fields = {name: [field[name] for field in kept] for name in self._settings.directions}
        return FlowInMemory(self.name, fields, settings=self._settings, fps=1.0, source_size=size)

    def _blank_clip(self, count: int) -> FlowClip | FrameClip:
        """A clip of so many frames whose inputs can be counted, and nothing else."""
        pixels = Pixels(0.0, np.empty((1, 1, 3), np.uint8), np.empty((1, 1), np.uint8), (1, 1))
        blank = CodedFlow((1, 1), [], np.empty((1, 3, 2), np.float32))
        field = dict.fromkeys(self._settings.directions, blank)
        return self._clip([field] * (count - 1) if self.takes_flow else [b""] * count, pixels)

    @torch.no_grad()
    def _vectors(self, clip: FlowClip | FrameClip, places: int, crops: int) -> Tensor:
        """Of all inputs of a clip, float32 [places, crops, D] on the CPU."""
        batch = self._inputs.read([clip] * places, range(places), threads=1)
        return _pass_by_pass(self._net, batch, crops, self._layer)


class ImageWindows(WindowNet):
    """An image net of timm: the mean of its features over all frames of a window. Frames are taken as they are."""

    takes_flow = False
    least = 1

    def __init__(self, name: str, net: StreamNet) -> None:
        self.name = name
        self.digest = tensor_digest(net.backbone.state_dict())
        self.input_size = net.settings.input_size
        self._net = net

    def items(self, stretches: Iterable[Stretch], crops: int) -> Iterator[Tensor]:
        for stretch in stretches:
            yield from self._vectors(stretch.frames, crops).unbind()

    def vectors(self, items: Sequence[Tensor], crops: int) -> Tensor:
        return torch.stack(list(items)).mean(0)

    @torch.no_grad()
    def _vectors(self, frames: Sequence[Pixels], crops: int) -> Tensor:
        return _pass_by_pass(self._net, FrameBatch.pack([pixels.rgb for pixels in frames]), crops, "fc7")


class I3DWindows(WindowNet):
    """I3D of RGB or of flow: a window is one input; its items are its frames, or its fields in pixels.

    There are as many fields as frames: each leads to the next frame, and the last frame has the one before it again.
    """

    input_size = I3D_SIZE
    least = 1

    def __init__(self, kind: str, net: I3D, layer: str, device: torch.device) -> None:
        if layer not in ("fc7", "scores"):
            raise SettingsError(f"layer is {layer!r}, {kind} has fc7 (its 1024 features) and scores")
        self.name = kind
        self.digest = tensor_digest(net.state_dict())
        self.takes_flow = I3D_KINDS[kind].takes_flow
        self._net = net.to(device)
        self._layer = layer
        self._device = device

    def check_window(self, window: int) -> None:
        if window < I3D_FEWEST_FRAMES:
            raise SettingsError(f"window is {window} frames, {self.name} needs at least {I3D_FEWEST_FRAMES}")

    def items(self, stretches: Iterable[Stretch], crops: int) -> Iterator[Tensor]:
        last: Tensor | None = None
        for stretch in stretches:
            if not self.takes_flow:
                yield from (torch.from_numpy(pixels.rgb) for pixels in stretch.frames)
            elif stretch.flow is not None:
                yield from stretch.flow.forward.unbind()
                last = stretch.flow.forward[-1]
        if last is not None:
            yield last

    @torch.no_grad()
    def vectors(self, items: Sequence[Tensor], crops: int) -> Tensor:
        inputs = self._cut(torch.stack(list(items)).to(self._device), crops)
        step = 1 if self._device.type == "cpu" else crops  # memory of the first layers
        return torch.cat([self._activations(inputs[first : first + step]) for first in range(0, crops, step)]).cpu()

    def _cut(self, pictures: Tensor, crops: int) -> Tensor:
        """Float32 [crops, channels, T, 224, 224] in [-1, 1] of pictures [T, H, W, channels]."""
        sizes = torch.tensor([pictures.shape[1:3]], dtype=torch.int64, device=self._device)
        windows = crop_windows(sizes, I3D_SIZE, crops)
        if self.takes_flow:
            stack = ops.flow_stack(pictures[None], windows, I3D_SIZE)[0]
            fields = stack.view(crops, len(pictures), 2, I3D_SIZE, I3D_SIZE).transpose(1, 2)
            return fields.clamp(-I3D_BOUND, I3D_BOUND) / I3D_BOUND
        alike = windows.expand(len(pictures), -1, -1).contiguous()
        return ops.crop_frames(pictures, alike, I3D_SIZE, mean=_MIDDLE, std=_MIDDLE).permute(1, 2, 0, 3, 4)

    def _activations(self, inputs: Tensor) -> Tensor:
        found: Tensor = self._net.features(inputs) if self._layer == "fc7" else self._net(inputs).softmax(1)
        return found


def _field(fields: CodedFlow, number: int) -> CodedFlow:
    """One of several."""
    planes = list(fields.planes)[2 * number : 2 * number + 2]
    camera = None if fields.camera is None else fields.camera[number : number + 1]
    return CodedFlow(fields.size, planes, fields.ranges[number : number + 1], camera)


def _pass_by_pass(net: StreamNet, batch: InputBatch, crops: int, layer: str) -> Tensor:
    """A layer for the windows of all inputs of a batch, float32 [N, crops, D] on the CPU."""
    stream = find_stream(net.settings.stream)
    batch = batch.to(next(net.parameters()).device)
    step = inputs_per_pass(net.settings, crops, batch.device)
    found = []
    for first in range(0, len(batch), step):
        views = stream.views(batch.part(first, first + step), settings=net.settings, crops=crops)
        activations = net.activations(views.flatten(0, 1), layer)
        found.append(activations.view(len(views), crops, -1).cpu())
    return torch.cat(found)
