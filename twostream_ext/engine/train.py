# SPDX-License-Identifier: BSD-3-Clause
"""Training one net: mini-batch SGD in one process or many, killed at any time it goes on where it was."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from twostream_ext.data import BatchPlan, InputBatch, VideoSet, read_batches
from twostream_ext.engine import distributed
from twostream_ext.engine.checkpoint import load_checkpoint, save_checkpoint, trained_parameters
from twostream_ext.engine.feed import Batch, Feed
from twostream_ext.engine.origin import NOTHING, Origin, videos_origin
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.engine.streams import Stream, find_stream
from twostream_ext.engine.training_log import TrainingLog
from twostream_ext.errors import SettingsError, StoppedError, TwoStreamError
from twostream_ext.files import remove_leftovers
from twostream_ext.models import NetSettings, StreamNet

CHECKPOINT_FILE = "checkpoint.safetensors"
_GRACE = 3.0  # seconds that a batch may still take after SIGTERM
_REPORT_EVERY = 20  # iterations; reading the loss makes a GPU wait for its queue

Item = TypeVar("Item", contravariant=True)


class Prepare(Protocol[Item]):
    """Makes a batch ready for the net: inputs float [N, channels, size, size] and labels int64 [N].

    What it draws at random for sample n must depend on `seed` and `offset + n` alone; `offset` is the number of the
    first sample, counted through the run.
    """

    def __call__(self, item: Item, *, seed: int, offset: int) -> Batch: ...


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
    accumulate: int = 1,
    compile_net: bool = False,
    resume: bool = True,
    progress: bool = True,
) -> None:
    """Train `net` in place on what its stream reads of `videos`, as section 5 of the paper does.

    Each sample is a class drawn uniformly, a video of it, and a random frame or stack of that; it is cropped and
    flipped at random (and frames jittered in colour) by our kernels on `device`. For a net of several data sets, see
    `join_video_sets`; for streams other than the paper's, `register_stream`.

    workers: processes that read batches ahead; 0 reads them here. They change no result.
    For the rest, and the errors, see `train_batches`.
    """
    classes = sum(net.settings.classes.values())
    if any(video.label >= classes for video in videos.videos):
        raise SettingsError(f"the net has {net.settings.classes} classes, the videos have more")
    made_from = videos_origin(net.settings.stream, videos)
    distributed.check_same({"checksum of the list of videos": made_from["videos"]})
    stream = find_stream(net.settings.stream)
    train_batches(
        net,
        partial(_read_batches, stream, net.settings, videos, settings, accumulate, workers, device),
        prepare=partial(stream.training_input, settings=net.settings),
        settings=settings,
        out_dir=out_dir,
        device=device,
        accumulate=accumulate,
        compile_net=compile_net,
        resume=resume,
        progress=progress,
        made_from=made_from,
    )


def _read_batches(
    stream: Stream[Any, Any],
    net: NetSettings,
    videos: VideoSet,
    settings: TrainSettings,
    accumulate: int,
    workers: int,
    device: str | torch.device,
    start: int,
) -> Iterator[tuple[InputBatch, Tensor]]:
    return read_batches(
        stream.store(videos),
        videos.videos,
        stream.inputs(net),
        batch_size=settings.batch_size,
        iterations=settings.iterations,
        start_iteration=start,
        seed=settings.seed,
        workers=workers,
        rank=distributed.rank(),
        ranks=distributed.ranks(),
        accumulate=accumulate,
        device=device,
    )


def train_batches(
    net: StreamNet,
    batches: Callable[[int], Iterator[Item]],
    *,
    prepare: Prepare[Item],
    settings: TrainSettings,
    out_dir: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    accumulate: int = 1,
    compile_net: bool = False,
    resume: bool = True,
    progress: bool = True,
    made_from: Origin = NOTHING,
) -> None:
    """Train `net` in place with softmax cross-entropy, for `settings.iterations` batches.

    The loss of a sample is that of its own data set's head (of several, see `summed_loss`); that of a batch is the
    mean over its samples. In a process group (`torchrun`), each process trains on its share of every batch with
    DistributedDataParallel, and only the first writes.

    batches: `batches(i)` gives this process's shares of the batches i, i + 1, ..., each in `accumulate` pieces, as
        `BatchPlan` cuts them; called once, with the iteration to start.
    prepare: see `Prepare`; usually a stream's `training_input` with the net's settings bound.
    out_dir: gets `checkpoint.safetensors` (always the latest, replaced atomically), `log.csv` (a line for each
        iteration) and TensorBoard logs. If the checkpoint is already there, training goes on from it (or is over at
        once), unless `resume` is False.
    accumulate: forward and backward passes for one step, each on as large a part of the batch: the same result, but
        for rounding and dropout, in a fraction of the memory.
    compile_net: let `torch.compile` fuse what it can; the first iteration then takes a minute or so.
    progress: a progress bar on standard error, where that is a terminal.
    made_from: plain values that tell by content what `batches` reads, noted in the checkpoint: one that learnt from
        something else does not go on.

    Random draws are keyed by seed and iteration, so that on the CPU a run that was killed and
    resumed ends with the same bits as one that was not. The caller's random state is left alone.

    CheckpointError if the checkpoint is damaged, or of another net, other settings or other videos; DivergenceError if
    the loss becomes infinite or NaN; SettingsError if `batches` ends too early or cannot be shared out, or if
    processes were given different nets or settings; StoppedError if SIGTERM came: the state after the iteration it
    came in is saved, or, if the batch for it does not come within seconds, that before it (with `accumulate` or in a
    process group the last checkpoint then stays as it is).
    """
    device = torch.device(device)
    first = distributed.rank() == 0
    plan = BatchPlan(settings.batch_size, settings.seed, distributed.rank(), distributed.ranks(), accumulate)
    plan.pieces(0, settings.iterations)  # checks it
    _check_processes_agree(net, settings)
    checkpoint = Path(out_dir) / CHECKPOINT_FILE
    net.to(device).train()
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    start = 0
    if first:
        remove_leftovers(out_dir)
    if first and resume and checkpoint.exists():
        start = load_checkpoint(checkpoint, net, optimizer, settings, made_from)
    start = distributed.share_state(net, optimizer, start)
    if start == settings.iterations:
        return
    step = _Step(net, optimizer, settings, plan, compile_net)
    sigterm = _Sigterm()
    items = _numbered(plan, start, batches(start))
    feed = Feed(items, partial(_prepare, prepare, plan), device, sigterm.ends_waiting)
    cuda_devices = [device] if device.type == "cuda" else []
    log = TrainingLog(out_dir, settings, start, progress) if first else None
    losses: list[Tensor] = []

    def write_losses(done: int) -> None:
        """Note those of the last iterations before `done`."""
        values = _finite(distributed.total(torch.stack(losses)).tolist(), done, settings)
        losses.clear()
        if log is not None:
            log.write(values)

    def save(done: int) -> None:
        if log is not None:
            log.flush()
            save_checkpoint(checkpoint, net, optimizer, settings, done, made_from)

    # Closed here: a trace of an error would keep the iterator, and with it the processes that read.
    with torch.random.fork_rng(cuda_devices), log or nullcontext(), closing(items), sigterm.noted():
        for done in range(start + 1, settings.iterations + 1):
            try:
                losses.append(step(done - 1, feed))
            except _NoBatchError:
                goes_on = "its last state"
                # Of several parts, in this process or in all, some may be done: then the iteration before is gone.
                if plan.ranks * plan.accumulate == 1:
                    if losses:
                        write_losses(done - 1)
                    save(done - 1)
                    goes_on = f"iteration {done - 1}"
                raise StoppedError(f"stopped by SIGTERM, with no batch; {checkpoint} goes on from {goes_on}") from None
            if log is not None:
                log.tick(feed.seconds_waited)
            stop = distributed.in_any(sigterm.came)
            is_saved = stop or done == settings.iterations or done % settings.checkpoint_every == 0
            if is_saved or done % _REPORT_EVERY == 0:
                write_losses(done)
            if is_saved:
                save(done)
            if stop:
                raise StoppedError(f"stopped by SIGTERM; {checkpoint} goes on from iteration {done}")


def _check_processes_agree(net: StreamNet, settings: TrainSettings) -> None:
    """SettingsError where processes, perhaps on several machines, were not started alike: they would train nonsense."""
    facts = asdict(net.settings) | asdict(settings) | {"trained_parameters": trained_parameters(net)}
    distributed.check_same(facts)


class _Step:
    """One step of SGD on one batch; returns this process's part of the batch's loss before it."""

    def __init__(
        self,
        net: StreamNet,
        optimizer: torch.optim.SGD,
        settings: TrainSettings,
        plan: BatchPlan,
        compile_net: bool,
    ) -> None:
        self._classes = net.settings.classes
        self._optimizer = optimizer
        self._settings = settings
        self._plan = plan
        self._parallel = None if plan.ranks == 1 else _parallel(net)
        self._model: nn.Module = self._parallel or net
        if compile_net:
            self._model = torch.compile(self._model)  # type: ignore[assignment]

    def __call__(self, iteration: int, feed: Feed[Any]) -> Tensor:
        plan, settings = self._plan, self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(iteration)
        self._optimizer.zero_grad()
        torch.manual_seed(_dropout_seed(settings.seed, iteration, plan.rank))
        losses = []
        for index in range(plan.accumulate):
            batch = next(feed, None)
            if batch is None:
                raise SettingsError(f"batches ended after {iteration} of {settings.iterations} iterations")
            # Gradients are exchanged once a step, while the last piece's are still being computed.
            waits = self._parallel is not None and index < plan.accumulate - 1
            with self._parallel.no_sync() if waits and self._parallel else nullcontext():
                losses.append(self._backward(*batch))
        self._optimizer.step()
        return torch.stack(losses).sum()

    def _backward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._settings.amp):
            scores = self._model(inputs)
        loss = summed_loss(scores, labels, self._classes) / self._plan.batch_size
        (loss * self._plan.ranks).backward()  # type: ignore[no-untyped-call]  # the processes' gradients are averaged
        return loss.detach()


def summed_loss(scores: Tensor | dict[str, Tensor], labels: Tensor, classes: dict[str, int]) -> Tensor:
    """Softmax cross-entropy summed over the samples, float32.

    A net with several heads has the multi-task loss of the paper's section 4: the sum of the heads' losses, each over
    the videos of its own data set.

    scores: float [N, classes], or that of each data set by name, as the net gives them.
    labels: int64 [N], classes of all data sets counted through in the order of `classes`.
    classes: data set -> number of classes.
    """
    if isinstance(scores, Tensor):
        return functional.cross_entropy(scores.float(), labels, reduction="sum")
    losses = []
    first = 0
    for dataset, size in classes.items():
        own = (labels >= first) & (labels < first + size)
        targets = torch.where(own, labels - first, _IGNORED)
        losses.append(
            functional.cross_entropy(scores[dataset].float(), targets, ignore_index=_IGNORED, reduction="sum")
        )
        first += size
    return torch.stack(losses).sum()


_IGNORED = -100


def _parallel(net: StreamNet) -> DistributedDataParallel:
    # All heads take part in every pass, with gradients of zero where a process has none of their videos: nothing waits.
    return DistributedDataParallel(net, gradient_as_bucket_view=True)


def _numbered(plan: BatchPlan, start: int, items: Iterator[Item]) -> Generator[tuple[int, Item], None, None]:
    try:
        yield from zip(count(start * plan.accumulate), items, strict=False)
    finally:
        if isinstance(items, Generator):
            items.close()


def _prepare(prepare: Prepare[Item], plan: BatchPlan, numbered: tuple[int, Item]) -> Batch:
    number, item = numbered
    piece = plan.piece(number)
    return prepare(item, seed=plan.seed, offset=piece.iteration * plan.batch_size + piece.first)


def _finite(losses: list[float], done: int, settings: TrainSettings) -> list[float]:
    """Give the losses of the iterations before `done`; DivergenceError if one is not a finite number."""
    for iteration, loss in enumerate(losses, done - len(losses)):
        if not math.isfinite(loss):
            raise DivergenceError(
                f"training diverged: the loss is {loss} at iteration {iteration} with learning "
                f"rate {settings.learning_rate_at(iteration):g}; try a lower learning rate"
            )
    return losses


def _dropout_seed(seed: int, iteration: int, rank: int) -> int:
    """32 bits, which is what the CPU generator takes, well mixed."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(1)[0])


class _NoBatchError(Exception):
    """SIGTERM came, and no batch."""


class _Sigterm:
    """SIGTERM, which is noted instead of dying of it; a wait for a batch then ends after some seconds."""

    def __init__(self) -> None:
        self.came = False
        self._is_waiting = False
        self._alarm: threading.Timer | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Only the main thread may note it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def ends_waiting(self) -> Iterator[None]:
        """`_NoBatchError` from the body if SIGTERM has come and it takes much longer, or if it comes again."""
        self._is_waiting = True
        try:
            if self.came:
                self._set_alarm()
            yield
        finally:
            self._end_waiting()

    def _note(self, *_: object) -> None:
        self.came = True
        if self._alarm is not None:
            self._end_waiting()  # first: what the exception closes is not to be broken off
            raise _NoBatchError
        if self._is_waiting:
            self._set_alarm()

    def _end_waiting(self) -> None:
        self._is_waiting = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self) -> None:
        """Send the signal again: it is what ends a wait of any kind."""
        self._alarm = threading.Timer(_GRACE, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM))
        self._alarm.daemon = True
        self._alarm.start()
