# SPDX-License-Identifier: BSD-3-Clause
"""Fusion of the two streams (section 2 of the paper): averaging, or a linear SVM."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.models.measures import Accuracy, accuracy
from twostream_ext.noted import check_noted
from twostream_ext.optional_packages import need_packages
from twostream_ext.tensor_files import read_tensors, take_tensor, write_tensors

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

FUSIONS = ("average", "svm", "weighted", "svm_chosen")
"""Ways to fuse, by the names that they have in results; the paper's two first."""

_KIND = "twostream svm fusion 1"
_ITERATIONS = 100_000  # of the solver; far above what it needs on softmax scores


def fuse_average(scores: Sequence[Tensor]) -> Tensor:
    """Mean of the softmax scores of several streams: [N, C] each -> [N, C]."""
    _check_scores(scores)
    return torch.stack(list(scores)).mean(0)


def fuse_weighted(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted mean of the softmax scores of several streams: [N, C] each -> [N, C].

    weights: one a stream, 0 or more and not all 0; only what they are to each other counts.
    """
    _check_scores(scores)
    if len(weights) != len(scores):
        raise SettingsError(f"weights are {len(weights)}, expected one for each of {len(scores)} nets")
    if not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise SettingsError(f"weights must be 0 or more and not all 0, got {' '.join(f'{each:g}' for each in weights)}")
    shares = torch.tensor(weights, dtype=scores[0].dtype, device=scores[0].device) / sum(weights)
    return torch.einsum("s,snc->nc", shares, torch.stack(list(scores)))


class SVMFusion:
    """Multi-class linear SVM (Crammer & Singer 2001) on the stacked scores of the streams.

    Each stream's softmax scores [N, C] are divided by their L2 norm, video by video, before they
    are stacked to [N, streams * C].

    C: the SVM's C. The paper does not state its value; 1 is LIBLINEAR's default.
    """

    def __init__(self, C: float = 1.0) -> None:  # noqa: N803  named as in scikit-learn
        if not C > 0:
            raise SettingsError(f"SVMFusion: C must be above 0, got {C}")
        self.C = C
        self.made_from: dict[str, Any] = {}
        """Plain values that tell what it was fitted on, kept in its file, for whoever wants to know whether it fits."""
        self._weights: npt.NDArray[np.float64] | None = None  # [classes, streams * C]
        self._intercepts: npt.NDArray[np.float64]  # [classes]
        self._classes: npt.NDArray[np.int64]  # [classes]

    def fit(self, scores: Sequence[Tensor], labels: Tensor) -> SVMFusion:
        """Learn from the scores [N, C] of each stream on the training videos, labels int [N]."""
        features = _stacked(scores)
        if labels.shape != (len(features),):
            raise SettingsError(
                f"SVMFusion.fit: labels must be [{len(features)}], one for each row of scores, got {list(labels.shape)}"
            )
        if not (labels != labels[:1]).any():
            raise SettingsError("SVMFusion.fit: labels must be of two classes or more")
        machine = _fitted(features, labels.cpu().numpy(), self.C)
        weights, intercepts = machine.coef_, machine.intercept_
        if len(weights) == 1:  # two classes come as one difference
            weights = np.concatenate([np.zeros_like(weights), weights])
            intercepts = np.append(0.0, intercepts)
        self._weights = weights.astype(np.float64)
        self._intercepts = intercepts.astype(np.float64)
        self._classes = machine.classes_.astype(np.int64)
        return self

    def predict(self, scores: Sequence[Tensor]) -> Tensor:
        """Classes int64 [N] of videos with the scores [N, C] of the same streams in that order."""
        features = _stacked(scores)
        if self._weights is None:
            raise SettingsError("SVMFusion.predict: call fit or load first")
        if features.shape[1] != self._weights.shape[1]:
            raise SettingsError(
                f"SVMFusion.predict: fitted on {self._weights.shape[1]} stacked scores a video, got {features.shape[1]}"
            )
        decisions = features @ self._weights.T + self._intercepts
        return torch.from_numpy(self._classes[decisions.argmax(1)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted machine to a safetensors file, whole or not at all."""
        if self._weights is None:
            raise SettingsError("SVMFusion.save: call fit first")
        tensors = {
            "weights": torch.from_numpy(self._weights),
            "intercepts": torch.from_numpy(self._intercepts),
            "classes": torch.from_numpy(self._classes),
        }
        write_tensors(path, _KIND, tensors, {"C": self.C, "made_from": self.made_from})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SVMFusion:
        """What `save` wrote; CheckpointError if the file is missing, damaged or another."""
        file = read_tensors(path, _KIND)
        noted = check_noted(
            path, {"made_from": {}, **file.description}, {"C": float, "made_from": dict[str, Any]}, CheckpointError
        )
        if not noted["C"] > 0:
            raise CheckpointError(f"{path}: C must be above 0, got {noted['C']}")
        fusion = cls(C=noted["C"])
        fusion.made_from = noted["made_from"]  # 0.1.0 did not note it
        weights = take_tensor(path, file, "weights", torch.float64, (None, None))
        if not weights.numel():
            raise CheckpointError(f"{path}: weights are {list(weights.shape)}: there are none")
        fusion._weights = weights.numpy()
        fusion._intercepts = take_tensor(path, file, "intercepts", torch.float64, (len(weights),)).numpy()
        fusion._classes = take_tensor(path, file, "classes", torch.int64, (len(weights),)).numpy()
        return fusion


def _fitted(features: npt.NDArray[np.float64], labels: npt.NDArray[Any], cost: float) -> LinearSVC:
    need_packages("fusion by an SVM", "train", ("sklearn",))
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    machine = LinearSVC(multi_class="crammer_singer", C=cost, random_state=0, max_iter=_ITERATIONS, dual=True)
    with warnings.catch_warnings():
        # Up to scikit-learn 1.7 the number of rounds is memory that nobody wrote, and may look like too many.
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(features, labels)
    if machine.n_iter_ == _ITERATIONS:
        warnings.warn(f"SVMFusion.fit: not converged in {_ITERATIONS} rounds", ConvergenceWarning, stacklevel=3)
    return machine


def fused_accuracies(
    streams: Mapping[str, Tensor],
    labels: Tensor,
    *,
    svm: SVMFusion | None = None,
    weights: Sequence[float] | None = None,
    svm_chosen: SVMFusion | None = None,
) -> dict[str, Accuracy]:
    """Those of each stream by its name, of their "average", and of the other `FUSIONS` that are given."""
    scores = list(streams.values())
    results = {**streams, "average": fuse_average(scores)}
    if svm is not None:
        results["svm"] = svm.predict(scores)
    if weights is not None:
        results["weighted"] = fuse_weighted(scores, weights)
    if svm_chosen is not None:
        results["svm_chosen"] = svm_chosen.predict(scores)
    return {name: accuracy(result, labels) for name, result in results.items()}


def _stacked(scores: Sequence[Tensor]) -> npt.NDArray[np.float64]:
    """float64 [N, streams * C]: each stream's rows with L2 norm 1, side by side."""
    _check_scores(scores)
    normalised = [torch.nn.functional.normalize(s.detach().cpu().double(), dim=1) for s in scores]
    return torch.cat(normalised, dim=1).numpy()


def _check_scores(scores: Sequence[Tensor]) -> None:
    if isinstance(scores, Tensor) or not scores:
        raise SettingsError("scores must be a list with the scores [N, C] of each stream")
    shapes = [list(s.shape) for s in scores]
    if scores[0].ndim != 2 or any(shape != shapes[0] for shape in shapes):
        raise SettingsError(
            "scores of the streams must all be [N, C] for the same videos and classes, got "
            + " and ".join(map(str, shapes))
        )
    if not all(torch.isfinite(s).all() for s in scores):
        raise SettingsError("scores must be finite, got a NaN or an infinity")
