# SPDX-License-Identifier: BSD-3-Clause
"""Fusion against NumPy in float64 and scikit-learn itself."""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import sklearn.svm
import torch
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import LinearSVC
from torch import Tensor

from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.models import (
    SVMFusion,
    accuracy,
    choose_cost,
    choose_weights,
    fuse_average,
    fuse_weighted,
    top1,
    wilson_interval,
)

FUSION = sys.modules[SVMFusion.__module__]


def two_streams(seed: int, videos: int = 120, side: int = 3, noise: float = 1.0) -> tuple[list[Tensor], Tensor]:
    """Classes are pairs (i, j); one stream sees only i, the other only j."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, side * side, videos)
    streams = []
    classes = np.arange(side * side)
    for groups in (classes // side, classes % side):
        right = groups[None] == groups[labels][:, None]
        logits = 3.0 * right + noise * random.normal(size=(videos, side * side))
        streams.append(torch.from_numpy(logits).float().softmax(1))
    return streams, torch.from_numpy(labels)


def features_reference(scores: list[Tensor]) -> np.ndarray:
    parts = [s.numpy().astype(np.float64) for s in scores]
    return np.concatenate([p / np.sqrt((p**2).sum(1, keepdims=True)) for p in parts], axis=1)


def test_average_is_the_mean_of_the_probabilities() -> None:
    scores, _ = two_streams(0)
    expected = np.mean([s.numpy().astype(np.float64) for s in scores], axis=0)
    np.testing.assert_allclose(fuse_average(scores).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("weights", [[0.2, 0.8], [1, 3], [0, 5.0], [2, 2]])
def test_weights_count_as_they_are_to_each_other(weights: list[float]) -> None:
    scores, _ = two_streams(0)
    expected = np.average([s.numpy().astype(np.float64) for s in scores], axis=0, weights=weights)
    np.testing.assert_allclose(fuse_weighted(scores, weights).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "weights are 1, expected one for each of 2 nets"),
        ([0, 0], "weights must be 0 or more and not all 0, got 0 0"),
        ([-0.1, 1], "not all 0, got -0.1 1"),
        ([float("nan"), 1], "not all 0, got nan 1"),
        ([float("inf"), 1], "not all 0, got inf 1"),
    ],
)
def test_weights_that_cannot_be(weights: list[float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fuse_weighted(two_streams(0)[0], weights)


def test_weights_are_chosen_that_tell_most_videos_right() -> None:
    """Tried one by one in NumPy; of as good ones the likeliest."""
    (first, second), labels = two_streams(0, noise=2.0)
    scores = [first.roll(1, 0), second]  # one stream speaks of the video before
    tried = []
    for step in range(21):
        fused = np.average([s.numpy().astype(np.float64) for s in scores], axis=0, weights=[step, 20 - step])
        likelihood = np.log(fused[np.arange(len(labels)), labels]).mean()
        tried.append(((fused.argmax(1) == labels.numpy()).mean(), likelihood, step / 20))
    weights = choose_weights(scores, labels)
    assert weights[0] == pytest.approx(max(tried)[2])
    assert sum(weights) == pytest.approx(1)
    assert choose_weights(scores[::-1], labels) == weights[::-1]
    assert len(choose_weights([*scores, first], labels)) == 3
    assert top1(fuse_weighted(scores, weights), labels) > top1(fuse_average(scores), labels)


def judging_machine(cost: float, scores: list[torch.Tensor], labels: torch.Tensor) -> LinearSVC:
    machine = LinearSVC(multi_class="crammer_singer", C=cost, random_state=0, max_iter=100_000, dual=True)
    with warnings.catch_warnings():  # up to scikit-learn 1.7 at random, whether it has converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        return machine.fit(features_reference(scores), labels.numpy())


def test_the_cost_is_chosen_by_videos_that_the_machine_did_not_learn_from() -> None:
    train, train_labels = two_streams(1, 60, noise=2.0)
    held_out, labels = two_streams(2, 60, noise=2.0)
    right = {}
    for cost in (0.01, 0.1, 1.0, 10.0, 100.0):
        judge = judging_machine(cost, train, train_labels)
        right[cost] = (judge.predict(features_reference(held_out)) == labels.numpy()).mean()
    assert len(set(right.values())) > 1
    best = [cost for cost in right if right[cost] == max(right.values())]
    assert choose_cost(train, train_labels, held_out, labels) == min(best, key=lambda cost: max(cost, 1 / cost))


@pytest.mark.parametrize("cost", [0.1, 1.0, 10.0])
def test_svm_predicts_what_scikit_learn_predicts(cost: float) -> None:
    train, train_labels = two_streams(1)
    test, _ = two_streams(2)
    judge = judging_machine(cost, train, train_labels)
    expected = judge.predict(features_reference(test))
    assert SVMFusion(C=cost).fit(train, train_labels).predict(test).tolist() == expected.tolist()


def test_fusion_beats_either_stream() -> None:
    train, train_labels = two_streams(3, 300, noise=0.5)
    test, labels = two_streams(4, 300, noise=0.5)
    single = max(top1(stream, labels) for stream in test)
    assert top1(fuse_average(test), labels) > single + 0.3
    assert top1(SVMFusion().fit(train, train_labels).predict(test), labels) > single + 0.3


@pytest.mark.parametrize("rounds", [3, 7])
def test_a_machine_that_has_not_converged_is_told(monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """And no other, whatever an older scikit-learn says: see `judging_machine`."""
    train, labels = two_streams(3, 300, noise=0.5)
    told = []

    class Machine:
        def __init__(self, **settings: object) -> None:
            self.n_iter_, self.coef_ = rounds, np.zeros((2, 4))
            self.intercept_, self.classes_ = np.zeros(2), np.arange(2)
            assert settings["max_iter"] == 7

        def fit(self, *data: object) -> None:
            told.append(len(data))
            warnings.warn("Liblinear failed to converge", ConvergenceWarning, stacklevel=1)

    monkeypatch.setattr(FUSION, "_ITERATIONS", 7)
    monkeypatch.setattr(sklearn.svm, "LinearSVC", Machine)
    expectation = pytest.warns(ConvergenceWarning, match="not converged in 7 rounds") if rounds == 7 else nullcontext()
    with expectation:
        SVMFusion().fit(train, labels)
    assert told == [2]


def test_each_stream_is_normalised_on_its_own() -> None:
    """Scaling one stream's rows changes nothing; with joint normalisation it would."""
    train, labels = two_streams(5)
    test, _ = two_streams(6)
    plain = SVMFusion().fit(train, labels).predict(test)
    scaled = SVMFusion().fit([train[0] * 8, train[1]], labels).predict([test[0] * 8, test[1]])
    assert torch.equal(plain, scaled)


def test_two_classes_and_labels_that_do_not_count_from_zero() -> None:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 2, (60,), generator=generator) * 3 + 2  # 2 or 5
    logits = torch.randn(60, 6, generator=generator)
    logits[torch.arange(60), labels] += 4
    scores = [logits.softmax(1), logits.flip(1).softmax(1)]
    expected = judging_machine(1.0, scores, labels).predict(features_reference(scores))
    predicted = SVMFusion().fit(scores, labels).predict(scores)
    assert predicted.tolist() == expected.tolist()
    assert set(predicted.tolist()) == {2, 5}


def test_a_saved_machine_predicts_the_same(tmp_path: Path) -> None:
    train, labels = two_streams(8)
    test, _ = two_streams(9)
    fusion = SVMFusion(C=2.0).fit(train, labels)
    fusion.save(tmp_path / "svm.safetensors")
    again = SVMFusion.load(tmp_path / "svm.safetensors")
    assert again.C == 2.0
    assert torch.equal(again.predict(test), fusion.predict(test))
    assert [path.name for path in tmp_path.iterdir()] == ["svm.safetensors"]


def test_fitting_is_deterministic() -> None:
    train, labels = two_streams(10)
    np.random.seed(1)  # noqa: NPY002  scikit-learn would use it
    first = SVMFusion().fit(train, labels)
    np.random.seed(2)  # noqa: NPY002
    second = SVMFusion().fit(train, labels)
    assert np.array_equal(first._weights, second._weights)  # type: ignore[arg-type]


def test_top1_counts() -> None:
    scores = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.2, 0.8]])
    labels = torch.tensor([0, 1, 1, 0])
    assert top1(scores, labels) == 0.5
    assert top1(torch.tensor([0, 1, 1, 1]), labels) == 0.75


@pytest.mark.parametrize("count", [1, 2, 7, 100, 3783])
def test_the_interval_is_wilson_s(count: int) -> None:
    for right in {0, 1, count // 3, count - 1, count}:
        expected = binomtest(right, count).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson_interval(right, count), expected, atol=1e-6)


def test_the_two_accuracies_are_told_apart() -> None:
    """Classes of 40, 8 and 2 videos and one with none; against scikit-learn and SciPy."""
    labels = np.repeat([0, 1, 3], [40, 8, 2])
    predicted = labels.copy()
    predicted[[3, 5, 41, 42, 43, 49]] = [1, 1, 0, 0, 3, 0]
    found = accuracy(torch.from_numpy(predicted), torch.from_numpy(labels))
    assert found.top1 == pytest.approx(44 / 50)
    assert found.mean_class == pytest.approx(balanced_accuracy_score(labels, predicted))
    np.testing.assert_allclose(found.interval, binomtest(44, 50).proportion_ci(method="wilson"), atol=1e-6)
    shares, counts = np.array([38 / 40, 5 / 8, 1 / 2]), [40, 8, 2]
    ends = np.array([binomtest(r, n).proportion_ci(method="wilson") for r, n in zip((38, 5, 1), counts, strict=True)])
    low, high = (np.sqrt(((shares - ends[:, side]) ** 2).sum()) / 3 for side in (0, 1))
    np.testing.assert_allclose(found.mean_class_interval, (shares.mean() - low, shares.mean() + high), atol=1e-6)
    one_hot = torch.eye(4)[torch.from_numpy(predicted)]
    assert accuracy(one_hot, torch.from_numpy(labels)) == found


def test_the_mean_class_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Classes of other sizes and difficulty, drawn 1,000 times."""
    random = np.random.default_rng(0)
    truths, counts = np.array([0.95, 0.8, 0.6, 0.3]), np.array([40, 25, 10, 8])
    labels = torch.from_numpy(np.repeat(np.arange(4), counts))
    held = 0
    for _ in range(1000):
        right = torch.from_numpy(random.random(len(labels)) < np.repeat(truths, counts))
        low, high = accuracy(torch.where(right, labels, labels + 1), labels).mean_class_interval
        held += low <= truths.mean() <= high
    assert 0.93 < held / 1000 < 0.98


def test_wrong_shapes_are_named() -> None:
    good = torch.full((4, 3), 1 / 3)
    with pytest.raises(SettingsError, match=r"got \[4, 3\] and \[4, 2\]"):
        fuse_average([good, good[:, :2]])
    with pytest.raises(SettingsError, match=r"got \[4, 3\] and \[3, 3\]"):
        SVMFusion().fit([good, good[:3]], torch.arange(4))
    with pytest.raises(SettingsError, match=r"labels must be \[4\].*got \[3\]"):
        SVMFusion().fit([good, good], torch.arange(3))
    with pytest.raises(SettingsError, match="two classes or more"):
        SVMFusion().fit([good, good], torch.zeros(4, dtype=torch.int64))
    with pytest.raises(SettingsError, match="a list with the scores"):
        fuse_average([])
    with pytest.raises(SettingsError, match="must be finite"):
        fuse_average([good, good * float("nan")])
    with pytest.raises(SettingsError, match="same videos, at least one"):
        top1(good, torch.arange(3))
    with pytest.raises(SettingsError, match="3 of 2 videos cannot be right"):
        wilson_interval(3, 2)
    with pytest.raises(SettingsError, match="C must be above 0, got 0"):
        SVMFusion(C=0)


def test_predict_wants_a_fitted_machine_and_as_many_scores() -> None:
    scores, labels = two_streams(11)
    with pytest.raises(SettingsError, match="call fit or load first"):
        SVMFusion().predict(scores)
    fusion = SVMFusion().fit(scores, labels)
    with pytest.raises(SettingsError, match="fitted on 18 stacked scores a video, got 9"):
        fusion.predict(scores[:1])


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing\.safetensors: cannot be read"):
        SVMFusion.load(tmp_path / "missing.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"noise" * 100)
    with pytest.raises(CheckpointError, match=r"noise\.safetensors: cannot be read"):
        SVMFusion.load(tmp_path / "noise.safetensors")
