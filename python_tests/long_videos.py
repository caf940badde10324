# SPDX-License-Identifier: BSD-3-Clause
"""Long generated videos, and `twostream predict` on them in a process of its own: answers, speed and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from made_runs import make_run
from videos import Frame, texture

from twostream_ext import engine

SIZE = (72, 96)
FPS = 25
_SCENE = (40, 400)  # frames: how long one lasts
_REACH = 160  # pixels that a scene can move within
_SURER = {"spatial": 100.0, "temporal": 1000.0}  # factors of the weights of the last layer

# In place of `ffmpeg -i VIDEO -f rawvideo -pix_fmt yuv420p -`, which not every machine has.
_PIPE = """
import sys
import av

with av.open(sys.argv[1]) as container:
    for frame in container.decode(video=0):
        sys.stdout.buffer.write(frame.to_ndarray(format="yuv420p").tobytes())
"""


class Measured(NamedTuple):
    """One call of the command."""

    frames: int
    frames_per_second: float  # as it says
    seconds: float  # of its process, imports and all
    processor_seconds: float  # of the same, which others on the machine change less
    megabytes: list[float]  # resident memory, sampled at equal times from the first answers on


def make_model(folder: Path, recipe: engine.Recipe) -> None:
    """A run whose nets have their first weights, but are sure of themselves, each window of another class."""
    make_run(folder, ["a", "b", "c", "d"], 4, recipe=recipe)
    for stream, factor in _SURER.items():
        _change(folder / stream / engine.MODEL_FILE, lambda layer, factor=factor: layer.weight.mul_(factor))
    predictor = engine.Predictor(engine.load_run(folder), window=0.6, fps=FPS)
    predictions = [window.prediction for window in predictor.windows(_scenes(600, seed=1))]
    for stream in _SURER:
        usual = torch.stack([each.scores[stream] for each in predictions]).log().mean(0)
        _change(folder / stream / engine.MODEL_FILE, lambda layer, usual=usual: layer.bias.sub_(usual))


def _change(path: Path, change: Callable[[torch.nn.Linear], object]) -> None:
    """Change the last layer of a net in a file."""
    net, classes = engine.load_model(path)
    (layer,) = net.fc8.values()
    with torch.no_grad():
        change(layer)
    (names,) = classes.values()
    engine.save_model(path, net, names)


def make_video(path: Path, frames: int, *, fps: int = FPS, seed: int = 0) -> None:
    """Scenes of 40 to 400 frames, each a texture that moves its own way, in H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "23"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in _scenes(frames, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def _scenes(frames: int, seed: int) -> Iterator[Frame]:
    random = np.random.default_rng(seed)
    textures = [texture(SIZE[0] + _REACH, SIZE[1] + _REACH, seed=number) for number in range(8)]
    while frames > 0:
        picture = textures[random.integers(len(textures))]
        speed = random.uniform(-3, 3, 2)
        place = random.uniform(0, _REACH, 2)
        for _ in range(min(frames, random.integers(*_SCENE))):
            speed = np.where((place + speed < 0) | (place + speed > _REACH), -speed, speed)
            place = place + speed
            top, left = np.clip(np.rint(place).astype(int), 0, _REACH)
            yield np.ascontiguousarray(picture[top : top + SIZE[0], left : left + SIZE[1]])
            frames -= 1


def predict_file(video: Path, model: Path, out: Path, options: Sequence[str], *, every: float) -> Measured:
    """every: seconds between two looks at the memory."""
    return _measured([str(video)], model, out, options, every, None)


def predict_pipe(
    video: Path, model: Path, out: Path, options: Sequence[str], *, every: float, fps: int = FPS
) -> Measured:
    """The same frames from standard input."""
    command = [sys.executable, "-c", _PIPE, str(video)]
    given = ["-", "--pixels", "yuv420p", "--size", f"{SIZE[1]}x{SIZE[0]}", "--fps", str(fps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as source:
        measured = _measured(given, model, out, options, every, source)
    assert source.returncode == 0
    return measured


def _measured(
    given: Sequence[str],
    model: Path,
    out: Path,
    options: Sequence[str],
    every: float,
    source: subprocess.Popen[bytes] | None,
) -> Measured:
    command = [sys.executable, "-m", "twostream_ext", "predict", *given, "--model", str(model), "--out", str(out)]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, *options], stdin=None if source is None else source.stdout, stdout=subprocess.PIPE, text=True
    ) as process:
        if source is not None and source.stdout is not None:
            source.stdout.close()  # the command alone reads it
        megabytes, processor_seconds = [], 0.0
        while process.poll() is None:
            if any(out.parent.glob(f".{out.name}.*")):  # the nets are there
                megabytes.append(_resident(process.pid))
            processor_seconds = _processor_seconds(process.pid) or processor_seconds
            time.sleep(every)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    words = said.splitlines()[-1].split()  # 1500 frames, 61.2 frames/s
    seconds = time.perf_counter() - began
    return Measured(int(words[0]), float(words[2]), seconds, processor_seconds, [each for each in megabytes if each])


def _resident(process: int) -> float:
    """MB; 0 of a process that has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS")), 0.0)


def _processor_seconds(process: int) -> float:
    """Of all its threads so far; 0 of a process that has just ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
