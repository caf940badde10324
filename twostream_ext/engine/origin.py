# SPDX-License-Identifier: BSD-3-Clause
"""What a kept result was made from, by content: a net, scores or a machine that no longer fits is seen by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from twostream_ext.data import ClipSource, Video, VideoSet
from twostream_ext.engine.streams import find_stream
from twostream_ext.models import NetSettings, StreamNet

Origin = Mapping[str, Any]
"""Plain values by what they are of, "videos" say: a digest or a setting each."""
NOTHING: Origin = MappingProxyType({})
"""What is noted in files of 0.1.0, and of what was not made from videos."""

_SINCE_0_1_0 = {"input": "stack", "subtract": "mean"}
"""Settings of nets that digests did not have, with what nets had then: left out, so that those noted before hold."""

_WORDS = {
    "videos": "other videos, classes or another order of them",
    "data": "other flow or frames of the videos",
    "net": "another net",
    "nets": "other nets",
    "scores": "other scores",
}


def video_digest(videos: Sequence[Video]) -> str:
    """Of names and classes, in their order."""
    return _digest([(video.name, video.label) for video in videos])


def data_digest(store: ClipSource[Any], videos: Sequence[Video]) -> str:
    """Of what a store holds of the videos, by the checksums in its files; FlowStoreError if one is missing."""
    return _digest([store.peek(video.name).fingerprint for video in videos])


def weights_digest(settings: NetSettings, weights: Mapping[str, Tensor]) -> str:
    """Of a net, by its settings and every bit of its weights."""
    told = {name: value for name, value in asdict(settings).items() if _SINCE_0_1_0.get(name) != value}
    return _digest(told, weights)


def net_digest(net: StreamNet) -> str:
    """`weights_digest` of a net that is there."""
    return weights_digest(net.settings, net.state_dict())


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of named tensors, every bit of them."""
    return _digest(None, tensors)


def videos_origin(stream: str, videos: VideoSet) -> dict[str, Any]:
    """What a net of a stream makes of these videos is made from: them, and what its store holds of them."""
    store = find_stream(stream).store(videos)
    return {"videos": video_digest(videos.videos), "data": data_digest(store, videos.videos)}


def unlike(noted: Origin, wanted: Origin) -> str | None:
    """What something was made from that is not as wanted, in words; None if it fits, as far as it is noted."""
    for name, value in wanted.items():
        if name in noted and noted[name] != value:
            return _WORDS.get(name) or f"{name} {noted[name]}, not {value}"
    return None


def _digest(plain: Any, tensors: Mapping[str, Tensor] | None = None) -> str:
    found = hashlib.sha256(json.dumps(plain).encode())
    for name, tensor in sorted((tensors or {}).items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
