# SPDX-License-Identifier: BSD-3-Clause
"""All the numbers of a run from videos to a two-stream result."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from twostream_ext.engine.paper_tables import Training
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.engine.streams import find_stream
from twostream_ext.errors import SettingsError
from twostream_ext.models import CNN_M_2048, StreamNet, TemporalInput


@dataclass(frozen=True)
class StreamRecipe:
    """How one net is trained; the schedule is the paper's, scaled to `iterations`."""

    iterations: int
    batch_size: int
    learning_rate: float
    dropout: float
    init: str | None = None  # file of the net that it starts from, see `start_from`; None: from scratch
    last_layer: bool = False  # train that alone

    def fine_tuned(self, init: str | os.PathLike[str], *, last_layer: bool) -> StreamRecipe:
        """These numbers for a net that starts from one trained before, which is in a file.

        A quarter of the iterations, as in section 5 of the paper (20,000 after 80,000); and where only the last layer
        is trained, dropout 0.5, as 0.9 loses 13 points there (table 1a).
        """
        return replace(
            self,
            iterations=max(1, self.iterations // 4),
            dropout=0.5 if last_layer else self.dropout,
            init=str(Path(init).resolve()),
            last_layer=last_layer,
        )

    def settings(self, **more: Any) -> TrainSettings:
        """The settings of a training with these numbers; `more`: others that it takes."""
        own = {
            "iterations": self.iterations,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "schedule": "scratch" if self.init is None else "fine_tune",
        }
        return TrainSettings(**{**own, **more})

    def as_json(self) -> dict[str, Any]:
        """Plain values; without where it starts from where that is from scratch, as earlier versions noted it."""
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}


@dataclass(frozen=True)
class Recipe:
    """What `run_pipeline` does, in numbers."""

    smallest_side: int  # of frames and flow fields, in pixels
    input_size: int  # side of the nets' square input, in pixels
    width: float  # of CNN-M-2048; 1 is the paper's; no other backbone is told of it
    length: int  # L, flow fields in a stack
    streams: Mapping[str, StreamRecipe]  # by name
    bidirectional: bool = False  # see `TemporalNet`, as for the next two
    input: str = "stack"
    subtract: str = "mean"
    frames: int = 25  # taken from a test video
    crops: int = 10  # of each
    flow_method: str = "tvl1"
    jpeg_quality: int = 90
    backbone: str = CNN_M_2048  # of both nets; see `register_backbone`
    hold_out: float = 0.0  # share of the training videos that no net trains on: fusion is chosen on them

    @property
    def temporal_input(self) -> TemporalInput:
        """What a temporal net of this recipe takes."""
        return TemporalInput(self.length, self.bidirectional, self.input, self.subtract)

    def numbers(self, stream: str) -> StreamRecipe:
        """Those of a stream by its name; of one that the recipe does not name, those of the one it is trained as.

        SettingsError if there is no such stream.
        """
        return self.streams.get(stream) or self.streams[find_stream(stream).trained_as]

    def with_numbers(self, stream: str, numbers: StreamRecipe) -> Recipe:
        """The same recipe with other numbers for one stream."""
        return replace(self, streams={**self.streams, stream: numbers})

    def of_training(self, training: Training, start: str | os.PathLike[str] | None) -> Recipe:
        """The same recipe with what a row of the paper's tables says itself in place of its own.

        start: file of the net that it is fine-tuned from; None: from scratch.
        """
        numbers = self.numbers(training.stream)
        if start is not None:
            numbers = numbers.fine_tuned(start, last_layer=training.last_layer)
        if training.dropout is not None:
            numbers = replace(numbers, dropout=training.dropout)
        return replace(
            self.with_numbers(training.stream, numbers),
            input=training.input,
            length=training.length,
            bidirectional=training.bidirectional,
            subtract=training.subtract,
        )

    def deciding(self, stream: str) -> dict[str, Any]:
        """What decides a net of one stream: neither the other stream's numbers nor those of test and fusion.

        Plain values. The net that it starts from is left out, to be noted by content and not by where it lies.
        """
        numbers = replace(self.numbers(stream), init=None)
        plain = replace(self, streams={stream: numbers}).as_json()
        return {name: value for name, value in plain.items() if name not in ("frames", "crops", "hold_out")}

    def scaled(self, budget: float) -> Recipe:
        """This recipe with `budget` times the iterations, for nets of sqrt(budget) times the width: as many weights.

        No net becomes wider than the paper's. SettingsError unless `budget` is above 0.
        """
        if not 0 < budget < math.inf:
            raise SettingsError(f"budget must be above 0, got {budget}")
        streams = {
            name: replace(numbers, iterations=max(1, round(budget * numbers.iterations)))
            for name, numbers in self.streams.items()
        }
        width = min(max(1.0, self.width), math.sqrt(budget) * self.width)
        return replace(self, streams=streams, width=width)

    def as_json(self) -> dict[str, Any]:
        """As files of runs have it: plain values, the numbers of each stream under its name."""
        plain = asdict(self)
        del plain["streams"]
        return {**plain, **{name: numbers.as_json() for name, numbers in self.streams.items()}}


RECIPES = {
    # The paper's, from scratch (section 5): days on one GPU.
    "paper": Recipe(
        smallest_side=256,
        input_size=224,
        width=1.0,
        length=10,
        streams={
            "spatial": StreamRecipe(80_000, 256, 1e-2, dropout=0.9),
            "temporal": StreamRecipe(80_000, 256, 1e-2, dropout=0.9),
        },
    ),
    # A quarter of the width and of the pixels, for a hundred videos or so on two processors.
    "small": Recipe(
        smallest_side=128,
        input_size=112,
        width=0.25,
        length=10,
        streams={
            "spatial": StreamRecipe(800, 32, 1e-2, dropout=0.5),
            "temporal": StreamRecipe(3000, 32, 1e-2, dropout=0.5),
        },
    ),
    # For the generated videos of `twostream demo`.
    "demo": Recipe(
        smallest_side=72,
        input_size=64,
        width=0.25,
        length=10,
        streams={
            "spatial": StreamRecipe(900, 32, 1e-2, dropout=0.5),
            "temporal": StreamRecipe(600, 32, 1e-2, dropout=0.5),
        },
        frames=5,
    ),
}


def find_recipe(name: str) -> Recipe:
    """Look up a recipe; SettingsError for an unknown name."""
    if name not in RECIPES:
        raise SettingsError(f"recipe is {name!r}, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def new_net(recipe: Recipe, stream: str, classes: int | Mapping[str, int], *, seed: int) -> StreamNet:
    """The net of one stream, with first weights that the seed decides; the caller's random state is left alone.

    classes: their number, or that of each data set; see `SpatialNet`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return find_stream(stream).new_net(
            classes,
            recipe.temporal_input,
            dropout=recipe.numbers(stream).dropout,
            backbone=recipe.backbone,
            width=recipe.width if recipe.backbone == CNN_M_2048 else 1.0,
            input_size=recipe.input_size,
        )


def default_recipe(device: torch.device) -> str:
    """Name the recipe that suits a device: the paper's needs a GPU."""
    return "paper" if device.type == "cuda" else "small"
