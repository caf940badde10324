# SPDX-License-Identifier: BSD-3-Clause
"""Training one net: mini-batch SGD that can be killed at any time and goes on where it was."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor
from tqdm import tqdm

from twostream_ext.data import VideoSet, flow_batches, frame_batches
from twostream_ext.engine.checkpoint import load_checkpoint, save_checkpoint
from twostream_ext.engine.inputs import flow_input, frame_input
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.errors import SettingsError, TwoStreamError
from twostream_ext.models import NetSettings, StreamNet

CHECKPOINT_FILE = "checkpoint.safetensors"
_REPORT_EVERY = 20  # iterations; reading the loss makes a GPU wait for its queue

Item = TypeVar("Item", contravariant=True)


class Prepare(Protocol[Item]):
    """Makes a batch ready for the net: inputs float [N, channels, size, size] and labels int64 [N].

    What it draws at random must depend on `seed` and `iteration` alone.
    """

    def __call__(self, item: Item, *, seed: int, iteration: int) -> tuple[Tensor, Tensor]: ...


class DivergenceError(TwoStreamError):
    """The loss is no longer a finite number."""


def train(
    net: StreamNet,
    videos: VideoSet,
    *,
    settings: TrainSettings,
    out_dir: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    workers: int = 2,
    resume: bool = True,
    progress: bool = True,
) -> None:
    """Train `net` in place on frames or flow stacks of `videos`, as section 5 of the paper does.

    Each sample is a class drawn uniformly, a video of it, and a random frame or stack of that; it is cropped and
    flipped at random (and frames jittered in colour) by our kernels on `device`.

    workers: processes that read batches ahead; 0 reads them here. They change no result.
    For the rest, and the errors, see `train_batches`.
    """
    spatial = net.settings.stream == "spatial"
    prepare = frame_input if spatial else flow_input
    train_batches(
        net,
        partial(_read_batches, net.settings, videos, settings, workers),
        prepare=partial(prepare, size=net.settings.input_size, device=device),
        settings=settings,
        out_dir=out_dir,
        device=device,
        resume=resume,
        progress=progress,
    )


def _read_batches(
    net: NetSettings, videos: VideoSet, settings: TrainSettings, workers: int, start: int
) -> Iterator[Any]:
    common: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "iterations": settings.iterations,
        "start_iteration": start,
        "seed": settings.seed,
        "workers": workers,
    }
    if net.stream == "spatial":
        return frame_batches(videos.frame_store(), videos.videos, **common)
    return flow_batches(
        videos.flow_store(), videos.videos, length=net.length, bidirectional=net.bidirectional, **common
    )


def train_batches(
    net: StreamNet,
    batches: Callable[[int], Iterator[Item]],
    *,
    prepare: Prepare[Item],
    settings: TrainSettings,
    out_dir: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    resume: bool = True,
    progress: bool = True,
) -> None:
    """Train `net` in place with softmax cross-entropy, for `settings.iterations` batches.

    batches: `batches(i)` gives the batches i, i + 1, ...; called once, with the iteration to start.
    prepare: see `Prepare`; usually `flow_input` or `frame_input` with their size and device bound.
    out_dir: gets `checkpoint.safetensors` (always the latest, replaced atomically) and TensorBoard
        logs of loss, learning rate and speed. If the checkpoint is already there, training goes on
        from it (or is over at once), unless `resume` is False.
    progress: a progress bar on standard error, where that is a terminal.

    Random draws are keyed by seed and iteration, so that on the CPU a run that was killed and
    resumed ends with the same bits as one that was not. The caller's random state is left alone.

    CheckpointError if the checkpoint is damaged or of another net or other settings;
    DivergenceError if the loss becomes infinite or NaN; SettingsError if `batches` ends too early.
    """
    device = torch.device(device)
    checkpoint = Path(out_dir) / CHECKPOINT_FILE
    net.to(device).train()
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    start = 0
    if resume and checkpoint.exists():
        start = load_checkpoint(checkpoint, net, optimizer, settings)
    if start == settings.iterations:
        return
    done = start
    cuda_devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda_devices), _Report(out_dir, settings, start, progress) as report:
        for iteration, item in zip(range(start, settings.iterations), batches(start), strict=False):
            inputs, labels = prepare(item, seed=settings.seed, iteration=iteration)
            torch.manual_seed(_dropout_seed(settings.seed, iteration))
            loss = _step(net, optimizer, inputs, labels, settings.learning_rate_at(iteration))
            done = iteration + 1
            report.add(loss, len(labels))
            last = done == settings.iterations
            save = last or done % settings.checkpoint_every == 0
            if save or done % _REPORT_EVERY == 0:
                report.show(iteration)
            if save:
                save_checkpoint(checkpoint, net, optimizer, settings, done)
    if done < settings.iterations:
        raise SettingsError(f"batches ended after {done} of {settings.iterations} iterations")


def _step(
    net: StreamNet,
    optimizer: torch.optim.SGD,
    inputs: Tensor,
    labels: Tensor,
    learning_rate: float,
) -> Tensor:
    """One step of SGD; returns the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    loss = functional.cross_entropy(net(inputs), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _dropout_seed(seed: int, iteration: int) -> int:
    """32 bits, which is what the CPU generator takes, well mixed."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0])


class _Report:
    """Progress bar and TensorBoard log of the mean loss and the speed since the last look."""

    def __init__(self, out_dir: str | os.PathLike[str], settings: TrainSettings, start: int, progress: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._settings = settings
        self._board = SummaryWriter(str(Path(out_dir) / "tensorboard"), purge_step=start)
        self._bar = tqdm(
            total=settings.iterations,
            initial=start,
            unit="it",
            desc="train",
            disable=None if progress else True,  # None: quiet where stderr is not a terminal
        )
        self._reset()

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._board.close()

    def _reset(self) -> None:
        self._losses: list[Tensor] = []
        self._samples = 0
        self._since = time.perf_counter()

    def add(self, loss: Tensor, samples: int) -> None:
        self._losses.append(loss)
        self._samples += samples
        self._bar.update()

    def show(self, iteration: int) -> None:
        """Report up to and with `iteration`; DivergenceError if a loss was not finite."""
        loss = torch.stack(self._losses).mean().item()
        learning_rate = self._settings.learning_rate_at(iteration)
        if not math.isfinite(loss):
            raise DivergenceError(
                f"training diverged: the loss is {loss} at iteration {iteration} with learning "
                f"rate {learning_rate:g}; try a lower learning rate"
            )
        speed = self._samples / (time.perf_counter() - self._since)
        self._bar.set_postfix(loss=f"{loss:.3f}", learning_rate=f"{learning_rate:g}", samples_per_s=f"{speed:.0f}")
        self._board.add_scalar("loss", loss, iteration)
        self._board.add_scalar("learning_rate", learning_rate, iteration)
        self._board.add_scalar("samples_per_second", speed, iteration)
        self._reset()
