# SPDX-License-Identifier: BSD-3-Clause
"""Several data sets on one backbone: the loss by hand, the sets joined, each head tested on its own videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs

from twostream_ext.data import FlowStacks, Video, VideoSet, join_video_sets, read_batches
from twostream_ext.engine import TrainSettings, evaluate, summed_loss, train
from twostream_ext.errors import SettingsError
from twostream_ext.flow import FlowStore
from twostream_ext.models import TemporalNet

CLASSES = {"small": 2, "large": 3}


def cross_entropy(scores: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(scores).sum()) - scores[label])


def test_the_loss_is_the_sum_of_the_heads_each_over_its_own_videos() -> None:
    random = np.random.default_rng(1)
    scores = {name: random.normal(size=(6, count)) for name, count in CLASSES.items()}
    labels = [4, 0, 2, 1, 3, 2]  # small has 0 and 1, large 2, 3 and 4
    expected = sum(
        cross_entropy(scores["small"][n], label) if label < 2 else cross_entropy(scores["large"][n], label - 2)
        for n, label in enumerate(labels)
    )
    heads = {name: torch.tensor(values, requires_grad=True) for name, values in scores.items()}
    loss = summed_loss(heads, torch.tensor(labels), CLASSES)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    for name, own in (("small", [1, 3]), ("large", [0, 2, 4, 5])):
        touched = heads[name].grad.abs().sum(1) > 0
        assert touched.nonzero().flatten().tolist() == own


def test_a_head_without_videos_in_the_batch_has_gradients_of_zero() -> None:
    heads = {name: torch.randn(2, count, requires_grad=True) for name, count in CLASSES.items()}
    summed_loss(heads, torch.tensor([3, 4]), CLASSES).backward()
    assert torch.equal(heads["small"].grad, torch.zeros(2, 2))


def test_one_head_has_the_plain_loss() -> None:
    scores, labels = torch.randn(5, 4), torch.tensor([3, 0, 1, 1, 2])
    expected = sum(cross_entropy(scores[n].double().numpy(), int(label)) for n, label in enumerate(labels))
    assert summed_loss(scores, labels, {"default": 4}).item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_runs.make_store(tmp_path_factory.mktemp("store"))


def test_joined_sets_read_from_their_own_stores_and_count_classes_through(store: Path, tmp_path: Path) -> None:
    other = training_runs.make_store(tmp_path)
    first = VideoSet([Video("c0/a.avi", "c0/a", 0), Video("c1/a.avi", "c1/a", 1)], flow=FlowStore.open(store))
    second = VideoSet([Video("c2/b.avi", "c2/b", 2)], flow=FlowStore.open(other))
    joined = join_video_sets({"large": second, "small": first}, CLASSES)
    assert [(video.name, video.label) for video in joined.videos] == [
        ("small/c0/a", 0),
        ("small/c1/a", 1),
        ("large/c2/b", 4),
    ]
    clip = joined.flow_store()["large/c2/b"]
    assert torch.equal(clip.read(1, 2).codes, FlowStore.open(other)["c2/b"].read(1, 2).codes)
    store = joined.flow_store()
    batches = read_batches(store, joined.videos, FlowStacks(2), batch_size=9, iterations=3, seed=0, workers=1)
    assert {int(label) for _, labels in batches for label in labels} == {0, 1, 4}
    with pytest.raises(SettingsError, match="no frame store was given"):
        joined.frame_store()


def test_sets_that_cannot_be_joined() -> None:
    with pytest.raises(SettingsError, match="data sets are small, expected small, large"):
        join_video_sets({"small": VideoSet([])}, CLASSES)
    with pytest.raises(SettingsError, match="without '/'"):
        join_video_sets({"a/b": VideoSet([])}, {"a/b": 2})


def test_each_data_set_is_tested_with_its_own_head(store: Path, tmp_path: Path) -> None:
    net = training_runs.new_net({"small": 1, "large": 3})
    settings = TrainSettings(iterations=2, batch_size=4)
    train(net, training_runs.two_sets(store), settings=settings, out_dir=tmp_path, workers=0)
    videos = training_runs.video_set(store)
    scores = evaluate(net, videos, frames=2, crops=1, dataset="large")
    assert scores.shape == (6, 3)
    alone = TemporalNet(3, length=2, width=0.05, input_size=57)
    alone.backbone.load_state_dict(net.backbone.state_dict())
    alone.fc8["default"].load_state_dict(net.fc8["large"].state_dict())
    torch.testing.assert_close(scores, evaluate(alone, videos, frames=2, crops=1))
    with pytest.raises(SettingsError, match="dataset must be one of small, large, got None"):
        evaluate(net, videos)
    with pytest.raises(SettingsError, match="dataset must be one of default, got 'large'"):
        evaluate(alone, videos, dataset="large")


def test_videos_of_more_classes_than_the_net_has(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the net has {'default': 2} classes, the videos have more"):
        train(training_runs.new_net(2), training_runs.video_set(store), settings=TrainSettings(1), out_dir=tmp_path)
