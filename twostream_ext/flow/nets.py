# SPDX-License-Identifier: BSD-3-Clause
"""Estimators that need no code of a user's: nets of other packages with weights in a file, and a GPU's own engine."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from twostream_ext.devices import find_device, parse_device
from twostream_ext.errors import CheckpointError, SettingsError
from twostream_ext.flow.net_libraries import LIBRARIES, Fields, check_net, files_text, import_library, split_name

_SHOWN_DIGITS = 8  # of the digest, as in the names of torchvision's and ptlflow's files


@dataclass(frozen=True)
class NetEstimator:
    """An estimator made by `net_estimator`. It can be pickled, and may be called by many threads at once."""

    name: str
    """As it was given, "torchvision:raft_small"."""
    weights: Path | None
    digest: str
    """SHA-256 of the file, in hexadecimal; empty if there is none."""
    device: str

    @property
    def noted_name(self) -> str:
        """What a store notes as its method: other weights are another."""
        return f"{self.name}@{self.digest[:_SHOWN_DIGITS]}" if self.digest else self.name

    @property
    def parameters(self) -> dict[str, str]:
        """What the files made with it note beside the name."""
        return {} if self.weights is None else {"weights": self.weights.name, "sha256": self.digest}

    def find_device(self) -> torch.device:
        """Where it computes in this process; SettingsError if that is not there."""
        device = find_device(self.device, own_kernels=False)
        if LIBRARIES[split_name(self.name)[0]].needs_gpu and device.type != "cuda":
            raise SettingsError(f"estimator {self.name} needs a GPU, and device {self.device!r} is none here")
        return device

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Frames uint8 RGB [T, H, W, 3], T >= 2, to fields float32 [T - 1, H, W, 2], (x, y) in pixels."""
        device = self.find_device()
        with _gpu_turn if device.type == "cuda" else nullcontext(), _borrowed(self, device) as fields:
            with torch.inference_mode():
                made: npt.NDArray[np.float32] = fields(torch.from_numpy(np.array(frames, order="C"))).numpy()
            return made


def is_net(estimator: object) -> bool:
    """Whether that is the name of a net, or of what else `net_estimator` takes, and not "module:function"."""
    return isinstance(estimator, str) and split_name(estimator)[0] in LIBRARIES


def net_estimator(name: str, weights: str | os.PathLike[str] | None = None, *, device: str = "auto") -> NetEstimator:
    """An estimator for `extract`, or to be called: frames uint8 RGB [T, H, W, 3] to float32 [T - 1, H, W, 2].

    name: "torchvision:raft_small" or "torchvision:raft_large"; "ptlflow:NAME" of any net of ptlflow that takes two
        frames ("rapidflow", "neuflow2", "sea_raft_s", ...); "nvidia-of:slow", "nvidia-of:medium" or "nvidia-of:fast",
        the optical flow engine of NVIDIA's GPUs by torch-nvidia-of-sdk.
    weights: the net's own, in a file of torch (`.pth`, Lightning's `.ckpt`) or safetensors. Nothing is fetched, and no
        code in the file is run. NVIDIA's engine takes none.
    device: "auto" (a GPU, if torch finds one), "cpu", "cuda" or "cuda:N".

    RAFT of torchvision takes sides of 128 pixels at least that are multiples of 8: other frames are padded by their
    border, and the fields are cut. On the CPU each thread that calls the estimator works on one pair at a time; on a
    GPU one thread at a time, on as many pairs as half a gigabyte of correlations allows.

    SettingsError if there is no such net, its package cannot be imported or no weights are given; CheckpointError,
    naming the file, if it is missing, damaged or of another net, or holds more than tensors.
    """
    key, _ = split_name(name)
    if key not in LIBRARIES:
        raise SettingsError(f"estimator is {name!r}, expected one of {', '.join(f'{each}:NAME' for each in LIBRARIES)}")
    parse_device("cpu" if device == "auto" else device)
    package = import_library(name)
    check_net(name, package)
    if LIBRARIES[key].files is None:
        if weights is not None:
            raise SettingsError(f"estimator_weights is {str(weights)!r}, but {name} takes none")
        return NetEstimator(name, None, "", device)
    if weights is None:
        raise SettingsError(f"estimator_weights is missing: {files_text(name, package)}")
    given = Path(weights)
    if not given.exists():
        raise CheckpointError(f"{given}: no such file; {files_text(name, package)}")
    digest = _digest(given)
    LIBRARIES[key].load(package, name, given, torch.device("cpu"))  # now, and not when files are being written
    return NetEstimator(name, given.absolute(), digest, device)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


_gpu_turn = threading.Lock()

# Nets that nobody is calling, of the estimator that was called last: one is loaded for each call that finds none.
_idle: dict[NetEstimator, list[Fields]] = {}
_idle_lock = threading.Lock()


@contextmanager
def _borrowed(estimator: NetEstimator, device: torch.device) -> Iterator[Fields]:
    """A net of one's own for the time of a call."""
    with _idle_lock:
        if estimator not in _idle:
            _idle.clear()
        idle = _idle.setdefault(estimator, [])
        fields = idle.pop() if idle else None
    fields = fields or _load(estimator, device)
    yield fields
    with _idle_lock:
        idle.append(fields)


def _load(estimator: NetEstimator, device: torch.device) -> Fields:
    """CheckpointError if the file is not the one that it was."""
    if estimator.weights is not None and _digest(estimator.weights) != estimator.digest:
        raise CheckpointError(f"{estimator.weights}: is another file than when the extraction was begun")
    package = import_library(estimator.name)
    return LIBRARIES[split_name(estimator.name)[0]].load(package, estimator.name, estimator.weights, device)
