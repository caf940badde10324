# SPDX-License-Identifier: BSD-3-Clause
"""The backbones by name: the paper's, timm's, and those that a user registers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from twostream_ext.errors import SettingsError
from twostream_ext.models.backbone_settings import BackboneSettings
from twostream_ext.models.cnn_m_2048 import CNN_M_2048, make_cnn_m_2048
from twostream_ext.models.timm_backbone import NoTimmNetError, TimmBackbone

MakeBackbone = Callable[[BackboneSettings], nn.Module]

_registered: dict[str, MakeBackbone] = {}


def register_backbone(name: str, make: MakeBackbone) -> None:
    """Let nets be built on a backbone of that name: `TemporalNet(101, backbone=name)`, `twostream train --backbone`.

    ```python
    class Small(torch.nn.Sequential):
        hidden = 64

        def __init__(self, settings):
            super().__init__(
                torch.nn.Conv2d(settings.channels, 64, 7, stride=4),
                torch.nn.ReLU(),
                torch.nn.AdaptiveAvgPool2d(1),
                torch.nn.Flatten(),
                torch.nn.Dropout(settings.dropout),
            )

    twostream_ext.models.register_backbone("small", Small)
    ```

    make: called with `BackboneSettings`, returns the module. It must

    - have `hidden`, an int: the size of its last hidden layer;
    - map float [N, channels, input_size, input_size] to [N, hidden]; the linear classifiers above it are not its own;
    - be restored by its `state_dict` alone: a file of the net holds that and the name, and whoever reads the file must
      have registered the name before;
    - take its random first weights from torch's global generator, so that the seed of a run decides them.

    It should raise SettingsError, one line that names itself, for settings that it cannot have: an input too small, a
    width other than 1 where it has no widths, `pretrained` where it knows of no weights. What it does with flow is its
    own choice: CNN-M-2048 leaves out its second normalisation there, and timm's nets, which bring frames to the
    normalisation that they were trained on, leave flow as it is and make pretrained weights take it by averaging their
    first layer over RGB (cross-modality). Dropout that is to go on above a frozen backbone is an `nn.Dropout`.

    It may offer its first layers by themselves, so that a test does not compute them for each of the ten windows of an
    input, which share most of their pixels: `stem(x)`, of inputs of any size, which gives of a part of an input that
    part of its maps (no padding, nothing that depends on the place); `stem_stride`, how many pixels a step in them is;
    and `above_stem(maps)`, the other layers. It may offer a layer before its last as `full6(x)`, float [N, D], for
    `twostream features --layer fc6`.

    A name registered again stands for the newer backbone, as when a notebook's cell is run twice. It hides the net of
    timm that has the same name, if there is one. SettingsError for the name of the paper's backbone.
    """
    if name == CNN_M_2048:
        raise SettingsError(f"register_backbone: {CNN_M_2048!r} is the name of the paper's backbone; take another")
    _registered[name] = make


def backbone_names() -> list[str]:
    """The names registered here; those of timm's nets go without saying."""
    return list(_registered)


def find_backbone(name: str) -> MakeBackbone:
    """What makes the backbone of that name; any name that is not registered is timm's to know, when it is made."""
    return _registered.get(name) or partial(_make_timm_backbone, name)


def _make_timm_backbone(name: str, settings: BackboneSettings) -> TimmBackbone:
    try:
        return TimmBackbone(name, settings)
    except NoTimmNetError as error:
        raise SettingsError(
            f"backbone {name!r} is not registered (registered: {', '.join(_registered)}), and timm, which is asked for "
            f"all others, {error}; for a net of your own, call register_backbone({name!r}, ...) first"
        ) from error


_registered[CNN_M_2048] = make_cnn_m_2048
