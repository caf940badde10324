# SPDX-License-Identifier: BSD-3-Clause
"""The rows of the paper's tables 1 to 4 as plain data: which nets are trained on what, and the paper's number.

Accuracies are fractions. Table 4's rows of other authors are left out, as are those of video classes that the paper
takes from elsewhere: nothing here would train them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Training:
    """What one net is trained on, and how its input is made."""

    stream: Literal["spatial", "temporal"]
    on: Literal["own", "other", "added", "multi_task", "images"] = "own"
    """The training videos of the row's own data set; all videos of the other data set; both in one softmax, the other's
    classes added; both with a softmax each; single images, from which spatial nets start."""
    start: Training | None = None
    """Fine-tuned from the layers of this net, all but the last."""
    last_layer: bool = False
    """Only the last layer is trained."""
    dropout: float | None = None
    """None: the recipe's."""
    input: Literal["stack", "trajectory"] = "stack"
    length: int = 10
    bidirectional: bool = False
    subtract: Literal["none", "mean", "affine"] = "mean"

    @property
    def needs_other(self) -> bool:
        """Whether it learns from the other data set, alone or beside its own."""
        return self.on in ("other", "added", "multi_task")


@dataclass(frozen=True)
class Row:
    """One number of a table."""

    text: str
    nets: tuple[Training, ...]
    paper: float
    """Top-1 there."""
    fusion: Literal["average", "svm"] | None = None
    """Of the nets, where there are two."""
    own: Literal["first", "second"] = "first"
    """The data set that is tested; the other one helps."""

    def trainings(self) -> list[Training]:
        """All that the row needs, those that its nets start from too."""
        found = []
        for net in self.nets:
            training: Training | None = net
            while training is not None:
                found.append(training)
                training = training.start
        return found


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    name: str
    title: str
    rows: tuple[Row, ...]
    splits: int = 1
    """Accuracies are the mean over so many splits, from the first."""


IMAGES = Training("spatial", on="images")


def _spatial(text: str, dropout: float, paper: float, start: Training | None = None, last_layer: bool = False) -> Row:
    return Row(f"{text}, dropout {dropout}", (Training("spatial", "own", start, last_layer, dropout),), paper)


TABLE_1A = Table(
    "table1a",
    "spatial net",
    (
        _spatial("from scratch", 0.5, 0.425),
        _spatial("from scratch", 0.9, 0.523),
        _spatial("pre-trained, all layers fine-tuned", 0.5, 0.708, IMAGES),
        _spatial("pre-trained, all layers fine-tuned", 0.9, 0.728, IMAGES),
        _spatial("pre-trained, last layer only", 0.5, 0.727, IMAGES, last_layer=True),
        _spatial("pre-trained, last layer only", 0.9, 0.599, IMAGES, last_layer=True),
    ),
)

TEMPORAL = Training("temporal")

TABLE_1B = Table(
    "table1b",
    "temporal net from scratch",
    (
        Row("single flow, L=1, mean subtracted", (Training("temporal", length=1),), 0.739),
        Row("stack, L=5, mean subtracted", (Training("temporal", length=5),), 0.804),
        Row("stack, L=10", (Training("temporal", subtract="none"),), 0.799),
        Row("stack, L=10, mean subtracted", (TEMPORAL,), 0.810),
        Row("trajectory, L=10", (Training("temporal", input="trajectory", subtract="none"),), 0.796),
        Row("trajectory, L=10, mean subtracted", (Training("temporal", input="trajectory"),), 0.802),
        Row("bi-directional stack, L=10, mean subtracted", (Training("temporal", bidirectional=True),), 0.812),
    ),
)

MULTI_TASK = Training("temporal", on="multi_task")

TABLE_2 = Table(
    "table2",
    "temporal net on a small data set, with the help of a large one",
    (
        Row("small data set alone", (TEMPORAL,), 0.466),
        Row(
            "trained on the large one, fine-tuned", (Training("temporal", start=Training("temporal", "other")),), 0.490
        ),
        Row("classes of the large one added", (Training("temporal", on="added"),), 0.528),
        Row("multi-task", (MULTI_TASK,), 0.554),
    ),
)

SPATIAL = Training("spatial", start=IMAGES, last_layer=True, dropout=0.5)
_BIDIRECTIONAL = Training("temporal", bidirectional=True)

TABLE_3 = Table(
    "table3",
    "two streams",
    (
        Row("bi-directional, average", (SPATIAL, _BIDIRECTIONAL), 0.856, "average"),
        Row("uni-directional, average", (SPATIAL, TEMPORAL), 0.859, "average"),
        Row("uni-directional, multi-task, average", (SPATIAL, MULTI_TASK), 0.862, "average"),
        Row("uni-directional, multi-task, SVM", (SPATIAL, MULTI_TASK), 0.870, "svm"),
    ),
)


def _final(own: Literal["first", "second"], papers: tuple[float, float, float, float]) -> tuple[Row, ...]:
    spatial, temporal, average, svm = papers
    return (
        Row("spatial stream", (SPATIAL,), spatial, own=own),
        Row("temporal stream", (MULTI_TASK,), temporal, own=own),
        Row("two streams, average", (SPATIAL, MULTI_TASK), average, "average", own),
        Row("two streams, SVM", (SPATIAL, MULTI_TASK), svm, "svm", own),
    )


TABLE_4 = Table(
    "table4",
    "two streams, mean of three splits",
    _final("first", (0.730, 0.837, 0.869, 0.880)) + _final("second", (0.405, 0.546, 0.580, 0.594)),
    splits=3,
)

TABLES = {table.name: table for table in (TABLE_1A, TABLE_1B, TABLE_2, TABLE_3, TABLE_4)}
