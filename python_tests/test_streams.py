# SPDX-License-Identifier: BSD-3-Clause
"""The spatial and temporal nets: sizes, heads, settings."""

from __future__ import annotations

import pytest
import torch

from twostream_ext.errors import SettingsError
from twostream_ext.models import NetSettings, SpatialNet, StreamNet, TemporalNet, build_net


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
    assert spatial.settings == NetSettings("spatial", {"default": 101}, "cnn_m_2048", 0.5, 1.0, 224)
    assert temporal.settings == NetSettings("temporal", {"default": 101}, "cnn_m_2048", 0.9, 1.0, 224, 10, False)
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
    assert type(again) is type(net)
    assert again.settings == net.settings
    again.load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 0}, "classes must be at least 1"),
        ({"classes": {}}, "classes must be at least 1"),
        ({"classes": 3, "backbone": "vgg"}, "backbone must be one of cnn_m_2048, got 'vgg'"),
        ({"classes": 3, "length": 0}, "length must be at least 1.*got 0"),
        ({"classes": 3, "length": 5, "bidirectional": True}, "even for a bi-directional.*got 5"),
        ({"classes": 3, "input_size": 32}, "input_size must be at least"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TemporalNet(**wrong)  # type: ignore[arg-type]


def test_an_unknown_stream_is_refused() -> None:
    with pytest.raises(SettingsError, match="stream must be spatial or temporal, got 'audio'"):
        build_net(NetSettings("audio", {"default": 2}, "cnn_m_2048", 0.5, 1.0, 64))
