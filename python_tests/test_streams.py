# SPDX-License-Identifier: BSD-3-Clause
"""The spatial and temporal nets: sizes, heads, settings."""

from __future__ import annotations

import pytest
import torch

from twostream_ext.errors import SettingsError
from twostream_ext.models import (
    UCF101_LIKE_HMDB51,
    NetSettings,
    SpatialNet,
    StreamNet,
    TemporalNet,
    add_classes,
    build_net,
    copy_backbone,
    freeze_backbone,
)


def parameters(net: StreamNet) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def by_hand(in_channels: int, classes: int) -> int:
    """Weights and biases of the released prototxt, layer by layer."""
    layers = [
        (in_channels * 7 * 7, 96),
        (96 * 5 * 5, 256),
        (256 * 3 * 3, 512),
        (512 * 3 * 3, 512),
        (512 * 3 * 3, 512),
        (512 * 6 * 6, 4096),
        (4096, 2048),
        (2048, classes),
    ]
    return sum((fan_in + 1) * units for fan_in, units in layers)


def test_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        counts = [
            parameters(SpatialNet(101)),
            parameters(TemporalNet(101, length=10)),
            parameters(SpatialNet(1000)),
        ]
    assert counts == [by_hand(3, 101), by_hand(20, 101), by_hand(3, 1000)]
    assert [round(count / 1e6, 2) for count in counts] == [90.63, 90.71, 92.47]


def test_defaults_are_the_paper_s() -> None:
    with torch.device("meta"):
        spatial, temporal = SpatialNet(101), TemporalNet(101)
    assert spatial.settings == NetSettings("spatial", {"default": 101}, "cnn_m_2048", 0.5, 1.0, 224, 3, False)
    assert temporal.settings == NetSettings(
        "temporal", {"default": 101}, "cnn_m_2048", 0.9, 1.0, 224, channels=20, takes_flow=True, length=10
    )
    assert temporal.backbone.conv1.weight.shape == (96, 20, 7, 7)
    assert hasattr(spatial.backbone, "norm2")
    assert not hasattr(temporal.backbone, "norm2")
    assert (temporal.backbone.drop6.p, temporal.backbone.drop7.p) == (0.9, 0.9)
    assert (spatial.backbone.drop6.p, spatial.backbone.drop7.p) == (0.5, 0.5)


@pytest.mark.parametrize("length", [1, 5])
def test_a_small_temporal_net_gives_one_score_for_each_class(length: int) -> None:
    net = TemporalNet(7, length=length, width=0.1, input_size=64)
    assert net(torch.randn(3, 2 * length, 64, 64)).shape == (3, 7)


def test_the_first_loss_is_that_of_a_guess() -> None:
    torch.manual_seed(0)
    net = SpatialNet(12, width=0.25, input_size=64)
    loss = torch.nn.functional.cross_entropy(net(torch.randn(24, 3, 64, 64)), torch.arange(24) % 12)
    assert loss.item() == pytest.approx(torch.tensor(12.0).log().item(), abs=0.3)


def test_each_data_set_has_its_head_on_one_backbone() -> None:
    net = TemporalNet({"ucf101": 101, "hmdb51": 51}, length=2, width=0.05, input_size=64).eval()
    x = torch.randn(2, 4, 64, 64)
    hidden = net.backbone(x)
    for name, classes in (("ucf101", 101), ("hmdb51", 51)):
        scores = net(x, name)
        assert scores.shape == (2, classes)
        head = net.fc8[name]
        torch.testing.assert_close(scores, hidden @ head.weight.T + head.bias)
    both = net(x)
    assert list(both) == ["ucf101", "hmdb51"]
    assert all(torch.equal(both[name], net(x, name)) for name in both)
    with pytest.raises(SettingsError, match="got 'kinetics'"):
        net(x, "kinetics")


@pytest.mark.parametrize(
    "net",
    [
        SpatialNet(5, width=0.05, input_size=64, dropout=0.3),
        TemporalNet({"a": 2, "b": 3}, length=4, width=0.05, input_size=70, bidirectional=True),
    ],
)
def test_a_net_can_be_built_again_from_its_settings(net: StreamNet) -> None:
    again = build_net(net.settings)
    assert again.settings == net.settings
    again.load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 0}, "classes must be at least 1"),
        ({"classes": {}}, "classes must be at least 1"),
        ({"classes": 3, "pretrained": True}, r"come from a file: use load_pretrained\(net, path\)"),
        ({"classes": 3, "backbone": "resnet18", "width": 0.5}, "'resnet18': width must be 1 for nets of timm, got 0.5"),
        ({"classes": 3, "length": 0}, "length must be at least 1.*got 0"),
        ({"classes": 3, "length": 5, "bidirectional": True}, "even for a bi-directional.*got 5"),
        ({"classes": 3, "input_size": 32}, "input_size must be at least"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TemporalNet(**wrong)  # type: ignore[arg-type]


def test_a_net_of_any_stream_is_built_from_its_settings() -> None:
    net = build_net(
        NetSettings("difference", {"default": 2}, "cnn_m_2048", 0.5, 0.05, 64, channels=9, takes_flow=False)
    )
    assert hasattr(net.backbone, "norm2")
    assert net(torch.randn(1, 9, 64, 64)).shape == (1, 2)


# ---- ways to train: last layer only, from another net, classes added -----------------------------------------------


def sgd_steps(net: StreamNet, steps: int = 3) -> None:
    """As the paper trains: momentum and weight decay, over all parameters that the net shows."""
    torch.manual_seed(4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.randn(4, 3, 60, 60)), torch.arange(4) % 3).backward()
        optimizer.step()


def test_training_the_last_layer_only_changes_only_the_head() -> None:
    torch.manual_seed(0)
    net = SpatialNet(3, width=0.05, input_size=60)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    freeze_backbone(net)
    sgd_steps(net.train())
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc8.default.weight", "fc8.default.bias"}
    net.requires_grad_(True)
    sgd_steps(net.train())
    assert all(not torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_dropout_stays_active_above_a_frozen_backbone_in_training_only() -> None:
    net = SpatialNet(3, width=0.25, input_size=60, dropout=0.5).train()
    freeze_backbone(net)
    x = torch.randn(1, 3, 60, 60)
    for again in (net, net.eval().train()):
        assert not torch.equal(again(x), again(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    freeze_backbone(net)
    assert torch.equal(net(x), net(x))


def test_a_net_can_start_from_the_backbone_of_another() -> None:
    hmdb = TemporalNet(51, length=2, width=0.05, input_size=60, dropout=0.5)
    ucf = TemporalNet(101, length=2, width=0.05, input_size=60)
    head = {name: tensor.clone() for name, tensor in hmdb.fc8.state_dict().items()}
    copy_backbone(ucf, hmdb)
    assert all(torch.equal(a, b) for a, b in zip(hmdb.backbone.parameters(), ucf.backbone.parameters(), strict=True))
    assert all(torch.equal(tensor, head[name]) for name, tensor in hmdb.fc8.state_dict().items())
    assert hmdb.backbone.drop6.p == 0.5
    with torch.no_grad():
        ucf.backbone.conv1.bias.add_(1)
    assert not torch.equal(hmdb.backbone.conv1.bias, ucf.backbone.conv1.bias)


def test_a_mean_image_goes_with_the_backbone() -> None:
    source, target = (SpatialNet(3, width=0.05, input_size=60) for _ in range(2))
    source.backbone.mean_image = torch.randn(3, 60, 60)
    copy_backbone(source, target)
    x = torch.randn(2, 3, 60, 60)
    assert target.settings == source.settings
    assert torch.equal(target.eval().backbone(x), source.eval().backbone(x))
    assert target.backbone.mean_image is not source.backbone.mean_image
    copy_backbone(SpatialNet(3, width=0.05, input_size=60), target)
    assert target.backbone.mean_image is None


def test_a_backbone_of_another_shape_is_refused() -> None:
    source = TemporalNet(3, length=2, width=0.05, input_size=60)
    for other, name in [
        (TemporalNet(3, length=3, width=0.05, input_size=60), "length, got 2 and 3"),
        (TemporalNet(3, length=2, width=0.06, input_size=60), "width, got 0.05 and 0.06"),
        (SpatialNet(3, width=0.05, input_size=60), "stream, got temporal and spatial"),
    ]:
        with pytest.raises(SettingsError, match=f"copy_backbone: source and target must have the same {name}"):
            copy_backbone(source, other)


def test_classes_are_added_behind_those_of_the_first_data_set() -> None:
    added = add_classes(["dive", "golf"], ["Archery", "Diving", "Surfing"], leave_out=["Diving"])
    assert added.names == ["dive", "golf", "Archery", "Surfing"]
    assert added.labels == [2, None, 3]


def test_of_ucf101_the_78_classes_are_left_that_hmdb51_does_not_have() -> None:
    # fmt: off
    hmdb51 = [
        "brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive", "draw_sword", "dribble",
        "drink", "eat", "fall_floor", "fencing", "flic_flac", "golf", "handstand", "hit", "hug", "jump", "kick",
        "kick_ball", "kiss", "laugh", "pick", "pour", "pullup", "punch", "push", "pushup", "ride_bike", "ride_horse",
        "run", "shake_hands", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault",
        "stand", "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk", "wave",
    ]
    # fmt: on
    others = [f"other{number}" for number in range(78)]
    added = add_classes(hmdb51, [*UCF101_LIKE_HMDB51, *others], leave_out=UCF101_LIKE_HMDB51)
    assert set(UCF101_LIKE_HMDB51.values()) <= set(hmdb51)
    assert added.names == [*hmdb51, *others]
    assert len(added.names) == 51 + 78
    assert added.labels == [None] * (101 - 78) + list(range(51, 129))


def test_classes_that_cannot_be_added_are_named() -> None:
    with pytest.raises(SettingsError, match="leave_out has 'Golf', which is not a class of the second data set"):
        add_classes(["dive"], ["Archery"], leave_out=["Golf"])
    with pytest.raises(SettingsError, match="class 'dive' comes twice; leave out the second"):
        add_classes(["dive", "golf"], ["Archery", "dive"])
