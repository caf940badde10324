# SPDX-License-Identifier: BSD-3-Clause
"""Training: the schedule by hand, one step by hand, resuming bit for bit, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from twostream_ext.engine.checkpoint import load_model, save_model
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.engine.train import CHECKPOINT_FILE, DivergenceError, train_batches
from twostream_ext.engine.training_log import LOG_FILE
from twostream_ext.errors import CheckpointError, SettingsError, StoppedError
from twostream_ext.models import SpatialNet, StreamNet, TemporalNet

SETTINGS = TrainSettings(iterations=8, batch_size=4, checkpoint_every=3)


class Batch(NamedTuple):
    inputs: Tensor
    labels: Tensor


class Killed(Exception):  # noqa: N818
    """Stands for the process being killed."""


def small_net(classes: int = 3, dropout: float = 0.5, width: float = 0.04) -> SpatialNet:
    torch.manual_seed(11)
    return SpatialNet(classes, width=width, input_size=57, dropout=dropout)


def batch(iteration: int, count: int = 4) -> Batch:
    """Learnable: the class is the brightest colour. Depends on the iteration alone."""
    generator = torch.Generator().manual_seed(1000 + iteration)
    labels = torch.randint(0, 3, (count,), generator=generator)
    inputs = torch.randn(count, 3, 57, 57, generator=generator)
    inputs[torch.arange(count), labels] += 1
    return Batch(inputs, labels)


def endless(start: int) -> Iterator[Batch]:
    while True:
        yield batch(start)
        start += 1


def killed_before(end: int, start: int) -> Iterator[Batch]:
    for iteration in range(start, end):
        yield batch(iteration)
    raise Killed


def prepare(item: Batch, *, seed: int, offset: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed * 100_003 + offset)
    return item.inputs + 0.1 * torch.randn(item.inputs.shape, generator=generator), item.labels


def run(net: StreamNet, out: Path, settings: TrainSettings = SETTINGS, batches=endless, **more) -> None:  # type: ignore[no-untyped-def]
    train_batches(net, batches, prepare=prepare, settings=settings, out_dir=out, **more)


def same(first: StreamNet, second: StreamNet) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- the schedule --------------------------------------------------------------------------------


def test_the_scratch_schedule_is_the_paper_s() -> None:
    settings = TrainSettings(iterations=80_000)
    rates = {i: settings.learning_rate_at(i) for i in (0, 49_999, 50_000, 69_999, 70_000, 79_999)}
    assert rates == pytest.approx({0: 1e-2, 49_999: 1e-2, 50_000: 1e-3, 69_999: 1e-3, 70_000: 1e-4, 79_999: 1e-4})


def test_the_fine_tuning_schedule_is_the_paper_s() -> None:
    settings = TrainSettings(iterations=20_000, schedule="fine_tune")
    rates = [settings.learning_rate_at(i) for i in (0, 13_999, 14_000, 19_999)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3])


def test_the_schedule_scales_with_the_iterations() -> None:
    settings = TrainSettings(iterations=16, learning_rate=0.5)
    rates = [settings.learning_rate_at(i) for i in range(16)]
    assert rates == pytest.approx([0.5] * 10 + [0.05] * 4 + [0.005] * 2)


def test_a_schedule_of_one_s_own_holds_each_rate_from_its_iteration_on() -> None:
    settings = TrainSettings(iterations=10, learning_rate=0.5, schedule=((2, 0.1), (7, 0.3)))
    assert [settings.learning_rate_at(i) for i in range(10)] == [0.5] * 2 + [0.1] * 5 + [0.3] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("schedule", "cosine"),
        ("schedule", ((5, 0.1), (5, 0.01))),
        ("schedule", ((5, 0.1), (2, 0.01))),
        ("schedule", ((-1, 0.1),)),
        ("schedule", ((5, 0.0),)),
        ("seed", -1),
        ("seed", 2**63),
        ("checkpoint_every", 0),
    ],
)
def test_settings_are_checked(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^{name} must be .*got "):
        replace(SETTINGS, **{name: value})  # type: ignore[arg-type]


# ---- what a step does ----------------------------------------------------------------------------


def test_two_steps_follow_the_formula(tmp_path: Path) -> None:
    """v <- 0.9 v + (gradient + decay w), w <- w - rate v; from v = 0."""
    settings = TrainSettings(iterations=2, batch_size=4, learning_rate=0.1, weight_decay=0.01)
    net, judge = small_net(dropout=0.0), small_net(dropout=0.0)
    run(net, tmp_path, settings)

    velocity = {name: torch.zeros_like(p) for name, p in judge.named_parameters()}
    for iteration, rate in ((0, 0.1), (1, 0.1)):
        inputs, labels = prepare(batch(iteration), seed=0, offset=4 * iteration)
        logits = judge(inputs)
        loss = (logits.logsumexp(1) - logits[torch.arange(4), labels]).mean()
        gradients = torch.autograd.grad(loss, list(judge.parameters()))
        with torch.no_grad():
            for (name, p), gradient in zip(judge.named_parameters(), gradients, strict=True):
                velocity[name] = 0.9 * velocity[name] + gradient + 0.01 * p
                p.sub_(rate * velocity[name])
    for name, p in net.named_parameters():
        torch.testing.assert_close(p, judge.get_parameter(name), rtol=1e-4, atol=1e-6)


def test_pieces_of_a_batch_give_the_step_of_the_whole(tmp_path: Path) -> None:
    """Also where they are not alike in size; the crops of each sample are those of the whole batch."""
    whole, pieces = small_net(dropout=0.0), small_net(dropout=0.0)

    def halves(start: int) -> Iterator[Batch]:
        for iteration in range(start, 8):
            item = batch(iteration)
            yield Batch(item.inputs[:1], item.labels[:1])
            yield Batch(item.inputs[1:2], item.labels[1:2])
            yield Batch(item.inputs[2:], item.labels[2:])

    def identity(item: Batch, *, seed: int, offset: int) -> tuple[Tensor, Tensor]:
        offsets.append(offset)
        return item.inputs, item.labels

    offsets: list[int] = []
    for net, batches, accumulate in ((whole, endless, 1), (pieces, halves, 3)):
        train_batches(
            net,
            batches,
            prepare=identity,
            settings=SETTINGS,
            out_dir=tmp_path / str(accumulate),
            accumulate=accumulate,
        )
    assert offsets == [4 * i for i in range(8)] + [4 * i + first for i in range(8) for first in (0, 1, 2)]
    for name, p in whole.named_parameters():
        torch.testing.assert_close(p, pieces.get_parameter(name), rtol=0, atol=1e-5)


def test_more_pieces_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"batch_size is 4, expected at least 1 .* 1 process\(es\) x 5 piece\(s\)"):
        run(small_net(), tmp_path, accumulate=5)


def test_bfloat16_follows_float32_and_leaves_weights_float32(tmp_path: Path) -> None:
    plain, mixed = small_net(dropout=0.0), small_net(dropout=0.0)
    start = small_net(dropout=0.0)
    run(plain, tmp_path / "plain")
    run(mixed, tmp_path / "mixed", replace(SETTINGS, amp=True))
    for name, p in mixed.named_parameters():
        assert p.dtype == torch.float32
        moved = plain.get_parameter(name) - start.get_parameter(name)
        off = p - plain.get_parameter(name)
        assert 0 < off.norm() < 0.25 * moved.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_a_compiled_net_ends_with_the_same_weights(tmp_path: Path) -> None:
    plain, compiled = small_net(dropout=0.0), small_net(dropout=0.0)
    run(plain, tmp_path / "plain")
    run(compiled, tmp_path / "compiled", compile_net=True)
    for name, p in plain.named_parameters():
        torch.testing.assert_close(p, compiled.get_parameter(name), rtol=0, atol=1e-5)


def test_a_small_net_learns_from_scratch(tmp_path: Path) -> None:
    net = small_net(width=0.1)
    settings = TrainSettings(iterations=60, batch_size=16)
    run(net, tmp_path, settings, batches=lambda start: (batch(i, 16) for i in range(start, 60)))
    test = batch(10_000, 100)
    right = net.eval()(test.inputs).argmax(1) == test.labels
    assert right.float().mean() > 0.95


def test_the_log_holds_loss_rate_and_speed(tmp_path: Path) -> None:
    run(small_net(), tmp_path, TrainSettings(iterations=45, batch_size=4, checkpoint_every=100))
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in log.Scalars("loss")] == [19, 39, 44]
    assert [event.value for event in log.Scalars("learning_rate")] == pytest.approx([1e-2, 1e-3, 1e-4])
    assert all(event.value > 0 for event in log.Scalars("samples_per_second"))


def log_rows(out: Path) -> list[dict[str, str]]:
    with (out / LOG_FILE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_iteration_has_one_line_however_often_the_run_was_killed(tmp_path: Path) -> None:
    """Lines after the last checkpoint are of iterations that are done again; the last may be cut short."""
    run(small_net(), tmp_path / "whole")
    for end in (2, 5, 7):
        with pytest.raises(Killed):
            run(small_net(), tmp_path, batches=lambda start, end=end: killed_before(end, start))
        with (tmp_path / LOG_FILE).open("a") as file:
            file.write("6,0.9,0.01,1.0,0.1\n7,0.8,0.0")
    run(small_net(), tmp_path)
    rows, whole = log_rows(tmp_path), log_rows(tmp_path / "whole")
    assert [row["iteration"] for row in rows] == [str(i) for i in range(8)]
    for name in ("loss", "learning_rate"):
        assert [row[name] for row in rows] == [row[name] for row in whole]
    assert all(float(row["seconds"]) >= float(row["seconds_waiting"]) >= 0 for row in rows)


def test_the_log_knows_the_time_spent_waiting(tmp_path: Path) -> None:
    def slow(start: int) -> Iterator[Batch]:
        for iteration in range(start, 8):
            time.sleep(0.2 if iteration == 3 else 0)
            yield batch(iteration)

    run(small_net(), tmp_path, batches=slow)
    waited = [float(row["seconds_waiting"]) for row in log_rows(tmp_path)]
    assert waited.index(max(waited)) == 3
    assert waited[3] > 0.15


def test_nothing_is_printed_where_there_is_no_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(small_net(), tmp_path)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_caller_s_random_state_is_left_alone(tmp_path: Path) -> None:
    net = small_net()
    before = torch.get_rng_state()
    run(net, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


# ---- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [1, 4, 7])
def test_a_killed_and_resumed_run_ends_with_the_same_bits(tmp_path: Path, kill: int) -> None:
    whole = small_net()
    run(whole, tmp_path / "whole")

    broken = small_net()
    with pytest.raises(Killed):
        run(broken, tmp_path / "broken", batches=lambda start: killed_before(kill, start))

    torch.manual_seed(99)  # nothing of the first process is left
    resumed = SpatialNet(3, width=0.04, input_size=57) if kill >= 3 else small_net()
    starts: list[int] = []

    def batches(start: int) -> Iterator[Batch]:
        starts.append(start)
        torch.rand(5)  # as a data loader does when it starts
        return endless(start)

    run(resumed, tmp_path / "broken", batches=batches)
    assert starts == [kill // 3 * 3]
    assert same(resumed, whole)


def test_the_momentum_is_resumed_too(tmp_path: Path) -> None:
    run(small_net(), tmp_path)
    with safe_open(tmp_path / CHECKPOINT_FILE, framework="pt") as file:
        names = set(file.keys())
    weights = {name for name, _ in small_net().named_parameters()}
    assert names == {f"net.{n}" for n in weights} | {f"momentum.{n}" for n in weights}


def test_dropout_differs_from_iteration_to_iteration_and_with_the_seed(tmp_path: Path) -> None:
    draws: list[Tensor] = []  # of the generator that dropout draws from, when it is about to
    for seed in (0, 1):
        net = small_net()
        net.backbone.drop6.register_forward_pre_hook(lambda *_: draws.append(torch.rand(3)))
        run(net, tmp_path / str(seed), replace(SETTINGS, iterations=2, seed=seed))
    assert len({tuple(draw.tolist()) for draw in draws}) == 4


def test_a_finished_run_is_over_at_once(tmp_path: Path) -> None:
    whole = small_net()
    run(whole, tmp_path)
    again = small_net()
    run(again, tmp_path, batches=lambda start: killed_before(0, start))
    assert same(again, whole)


def test_a_schedule_of_one_s_own_is_known_again(tmp_path: Path) -> None:
    own = replace(SETTINGS, schedule=((0, 0.1), (3, 0.01)))
    whole, again = small_net(), small_net()
    run(whole, tmp_path, own)
    run(again, tmp_path, own, batches=lambda start: killed_before(0, start))
    assert same(again, whole)
    with pytest.raises(CheckpointError, match=r"made with schedule \[\[0, 0.1\], \[3, 0.01\]\], now asked for"):
        run(small_net(), tmp_path, replace(SETTINGS, schedule=((0, 0.1), (4, 0.01))))


def test_without_resume_it_starts_over(tmp_path: Path) -> None:
    run(small_net(), tmp_path)
    starts: list[int] = []

    def batches(start: int) -> Iterator[Batch]:
        starts.append(start)
        return endless(start)

    run(small_net(), tmp_path, batches=batches, resume=False)
    assert starts == [0]


def test_how_often_checkpoints_are_written_may_change(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(small_net(), tmp_path, batches=lambda start: killed_before(5, start))
    whole, resumed = small_net(), small_net()
    run(whole, tmp_path / "whole")
    run(resumed, tmp_path, replace(SETTINGS, checkpoint_every=2))
    assert same(resumed, whole)


def test_sigterm_saves_the_state_and_the_rest_gives_the_same_bits(tmp_path: Path) -> None:
    whole, stopped, resumed = small_net(), small_net(), small_net()
    run(whole, tmp_path / "whole")

    def terminated(start: int) -> Iterator[Batch]:
        for iteration in range(start, 8):
            if iteration == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch(iteration)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match=r"stopped by SIGTERM; .*safetensors goes on from iteration 5"):
        run(stopped, tmp_path / "stopped", batches=terminated)
    assert signal.getsignal(signal.SIGTERM) == before
    starts: list[int] = []

    def rest(start: int) -> Iterator[Batch]:
        starts.append(start)
        return endless(start)

    run(resumed, tmp_path / "stopped", batches=rest)
    assert starts == [5]
    assert same(resumed, whole)


def test_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    nets = [small_net(), small_net()]
    for index, net in enumerate(nets):
        torch.manual_seed(index)  # the caller's random state decides nothing
        run(net, tmp_path / str(index))
    assert same(*nets)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "net", "message"),
    [
        (replace(SETTINGS, learning_rate=0.02), {}, "made with learning_rate 0.01, now .* 0.02"),
        (replace(SETTINGS, iterations=9), {}, "made with iterations 8, now asked for 9"),
        (SETTINGS, {"dropout": 0.9}, "made with dropout 0.5, now asked for 0.9"),
        (SETTINGS, {"classes": 4}, "made with classes {'default': 3}, now .*{'default': 4}"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, settings: TrainSettings, net: dict[str, float], message: str
) -> None:
    run(small_net(), tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        run(small_net(**net), tmp_path, settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(tmp_path / CHECKPOINT_FILE) in str(caught.value)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(small_net(), tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: cannot be read"):
        run(small_net(), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(tmp_path: Path) -> None:
    def broken(start: int) -> Iterator[Batch]:
        for iteration in range(start, 8):
            item = batch(iteration)
            yield item._replace(inputs=item.inputs * (float("nan") if iteration == 4 else 1))

    with pytest.raises(DivergenceError, match="loss is nan at iteration 4 with learning rate"):
        run(small_net(), tmp_path, batches=broken)
    with safe_open(tmp_path / CHECKPOINT_FILE, framework="pt") as file:
        assert json.loads(file.metadata()["description"])["iteration"] == 3
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())  # noqa: SIM118


def test_batches_that_end_early_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="batches ended after 5 of 8 iterations"):
        run(small_net(), tmp_path, batches=lambda start: iter([batch(i) for i in range(start, 5)]))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    with pytest.raises(Killed):
        run(small_net(), tmp_path, batches=lambda start: killed_before(5, start))
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: cannot be written"):
            run(small_net(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT_FILE, "log.csv", "tensorboard"]


# ---- model files ---------------------------------------------------------------------------------


def test_a_model_file_says_all_that_prediction_needs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = TemporalNet(3, length=4, width=0.05, input_size=60, dropout=0.7, bidirectional=True).eval()
    path = tmp_path / "model.safetensors"
    save_model(path, net, ["Run", "Jump", "Ñandú"])
    state = torch.get_rng_state()
    again, classes = load_model(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.settings == net.settings
    assert classes == {"default": ["Run", "Jump", "Ñandú"]}
    assert not again.training
    x = torch.randn(2, 8, 60, 60)
    assert torch.equal(again(x), net(x))
    again(x).sum().backward()  # can be trained on
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_model_of_several_data_sets_keeps_their_classes(tmp_path: Path) -> None:
    net = TemporalNet({"a": 2, "b": 3}, length=1, width=0.05, input_size=57)
    names = {"a": ["x", "y"], "b": ["p", "q", "r"]}
    save_model(tmp_path / "m.safetensors", net, names)
    assert load_model(tmp_path / "m.safetensors").classes == names


def test_class_names_must_fit_the_net(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the net has {'default': 3} classes"):
        save_model(tmp_path / "m.safetensors", small_net(), ["only", "two"])
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_a_model(tmp_path: Path) -> None:
    run(small_net(), tmp_path)
    with pytest.raises(CheckpointError, match="expected a file of kind 'twostream model 1'"):
        load_model(tmp_path / CHECKPOINT_FILE)
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors: cannot be read"):
        load_model(tmp_path / "nothing.safetensors")
