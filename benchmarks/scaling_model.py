# SPDX-License-Identifier: BSD-3-Clause
"""How training would scale over GPUs: a model of latency, bandwidth and compute, its terms checked with gloo here.

python benchmarks/scaling_model.py [--samples-per-second 8000] [--batch 256] [--out FILE]

The model. A step on n GPUs takes the forward pass of batch / n samples, and then backward pass and all-reduce side by
side. Layers give their gradients from the last to the first; DistributedDataParallel gathers them into buckets of at
least 25 MB and all-reduces one after the other, each as soon as it is full and the one before is through. A bucket of
S bytes takes 2 (n - 1) latency + 2 (n - 1) / n S / bandwidth (a ring). While a bucket is under way, the net goes on at
1 - `taken` of its speed. Gradients sent as bfloat16 have half the bytes.

Assumed, and not measured: the speed of one GPU (--samples-per-second; nothing here has run on a GPU) and that it does
not fall with smaller batches; that a layer's share of the time is its share of the multiplications, backward twice
forward; that links are as in LINKS, that all GPUs hang on links of one kind, and that reading the data keeps up; that a
GPU's exchange takes nothing from its computing (`taken` 0: copy engines and a few of its processors do it). SGD's own
time is left out, as it does not depend on n.

Checked here with two gloo processes on the CPU: the bytes and buckets of a step, counted by a communication hook; that
the time of an exchange follows latency and bandwidth; how the samples of a step divide among processes; and the time of
a step, which the model says from terms that were all measured apart from it. Two of these differ from a GPU's: the
link, and `taken`, measured as what an all-reduce in the background costs a pass of the net. On a CPU the processors
that compute also carry the messages, so that it is near 1, and a step takes the net's time and the exchange's together.
So the check tells nothing of how much a GPU hides.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import machine
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from twostream_ext.engine import distributed
from twostream_ext.files import atomic_write
from twostream_ext.models import TemporalNet

BUCKET_BYTES = 25 << 20  # DistributedDataParallel's
FIRST_BUCKET_BYTES = 1 << 20
FORWARD = 1 / 3  # of the time of forward and backward


class Link(NamedTuple):
    latency: float  # seconds, of one of the steps of a ring
    bandwidth: float  # bytes per second that a GPU sends while it receives as many


LINKS = {
    "NVLink": Link(5e-6, 300e9),
    "PCIe 4.0 x16": Link(10e-6, 20e9),
    "Ethernet 100 Gbit/s": Link(30e-6, 11e9),
    "Ethernet 25 Gbit/s": Link(30e-6, 2.8e9),
}
GPUS = (2, 4, 8, 64)


class Layer(NamedTuple):
    name: str
    multiplications: int  # of one sample, forward
    gradient_bytes: int  # float32


def layers(net: nn.Module, example: torch.Tensor) -> list[Layer]:
    """The layers with weights, in the order of the forward pass; `net` may be on the meta device."""
    found: list[Layer] = []

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
            weight = layer.weight
            positions = output[0, 0].numel() if output.dim() == 4 else 1
            found.append(Layer(name, weight.numel() * positions, 4 * sum(p.numel() for p in layer.parameters())))

        return hook

    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note(name))
    net(example)
    return found


class Bucket(NamedTuple):
    ready: float  # share of the backward pass after which its last gradient is there
    size: int  # bytes


def buckets(found: Sequence[Layer]) -> list[Bucket]:
    """In the order they are sent."""
    total = sum(layer.multiplications for layer in found)
    filled: list[Bucket] = []
    done, size = 0, 0
    for layer in reversed(found):
        done += layer.multiplications
        size += layer.gradient_bytes
        if size >= (BUCKET_BYTES if filled else FIRST_BUCKET_BYTES):
            filled.append(Bucket(done / total, size))
            size = 0
    return [*filled, Bucket(1.0, size)] if size else filled


class Step(NamedTuple):
    seconds: float
    seconds_sending: float
    seconds_exposed: float  # sending after the backward pass


def exchange(size: int, gpus: int, link: Link) -> float:
    """Seconds of an all-reduce of `size` bytes."""
    return 2 * (gpus - 1) * link.latency + 2 * (gpus - 1) / gpus * size / link.bandwidth


def predict(compute: float, sent: Sequence[Bucket], gpus: int, link: Link, taken: float = 0.0) -> Step:
    """A step whose forward and backward passes alone take `compute` seconds.

    taken: seconds that a second of exchange costs the passes beside it; 0: nothing, 1 and above: they stand still.
    """
    forward, backward = FORWARD * compute, (1 - FORWARD) * compute
    speed_beside = min(1.0, max(0.0, 1.0 - taken))
    now = computed = sending = 0.0
    for bucket in sent:
        full = max(computed, forward + bucket.ready * backward)
        cost = exchange(bucket.size, gpus, link)
        now += full - computed + cost
        computed = min(compute, full + speed_beside * cost)
        sending += cost
    now += compute - computed
    return Step(now, sending, now - compute)


def table(samples_per_second: float, batch: int) -> list[dict[str, Any]]:
    """Predictions for CNN-M-2048, the temporal net of the paper."""
    with torch.device("meta"):
        sent = buckets(layers(TemporalNet(101, length=10), torch.empty(1, 20, 224, 224)))
    rows = []
    for name, link in LINKS.items():
        for gpus in GPUS:
            row: dict[str, Any] = {"link": name, "gpus": gpus}
            for coding, factor in (("float32", 1.0), ("bfloat16", 0.5)):
                coded = [Bucket(bucket.ready, round(factor * bucket.size)) for bucket in sent]
                step = predict(batch / gpus / samples_per_second, coded, gpus, link)
                row[coding] = {
                    "speedup": round(batch / samples_per_second / step.seconds, 2),
                    "step_ms": round(1e3 * step.seconds, 2),
                    "exposed_ms": round(1e3 * step.seconds_exposed, 2),
                    "megabytes_sent_by_each": round(2 * (gpus - 1) / gpus * sum(b.size for b in coded) / 1e6),
                }
            rows.append(row)
    return rows


# ---- what can be checked here --------------------------------------------------------------------

CHECK_SHARE = 4  # samples of each of two processes: few, so that the exchange can be seen beside them
CHECK_SIZES = (1 << 12, 1 << 20, 1 << 22, 1 << 23)  # bytes; the link is fitted to the first and the last
ROUNDS = 60


def check_net() -> TemporalNet:
    return TemporalNet(101, length=10, width=0.25, input_size=112, dropout=0.5)


def check(folder: Path) -> None:
    """In one of one or two processes: count, time, and write what was found (the first process)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with distributed.process_group(torch.device("cpu")):
        inputs, labels = torch.randn(2 * CHECK_SHARE, 20, 112, 112), torch.zeros(2 * CHECK_SHARE, dtype=torch.int64)
        net = check_net()
        model = DistributedDataParallel(net, gradient_as_bucket_view=True)
        buffers = {size: torch.zeros(size // 4) for size in CHECK_SIZES}

        def together(samples: int = CHECK_SHARE) -> None:
            nn.functional.cross_entropy(model(inputs[:samples]), labels[:samples]).backward()

        def alone() -> None:
            with model.no_sync():
                together()
            dist.barrier()  # as a step ends for both when the slower one is through

        def beside() -> None:
            work = dist.all_reduce(buffers[CHECK_SIZES[-1]], async_op=True)
            alone()
            work.wait()

        calls: dict[str, Callable[[], object]] = {"together": together, "alone": alone, "beside": beside}
        if distributed.ranks() == 1:
            calls["whole batch"] = partial(together, 2 * CHECK_SHARE)
        calls |= {str(size): partial(dist.all_reduce, buffer) for size, buffer in buffers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        together()
        together()  # the buckets are laid anew after the first
        for _ in range(ROUNDS):
            for name, call in calls.items():
                seconds[name].append(_seconds(call))
        if distributed.rank() == 0:
            found = {"seconds": seconds, "buckets": _counted(model, together)}
            (folder / f"{distributed.ranks()}.json").write_text(json.dumps(found))
        else:
            _counted(model, together)


def _seconds(call: Callable[[], object]) -> float:
    """Begun by all processes at once."""
    dist.barrier()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _counted(model: DistributedDataParallel, step: Callable[[], None]) -> list[int]:
    """The bytes of each bucket that a step sends, in their order."""
    counted: list[int] = []

    def counting(bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        counted.append(bucket.buffer().numel() * bucket.buffer().element_size())
        work = dist.all_reduce(bucket.buffer().div_(distributed.ranks()), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    model.register_comm_hook(None, lambda _, bucket: counting(bucket))  # which may have no annotations as text
    step()
    return counted


def measured(ranks: int) -> dict[str, Any]:
    """What `check` finds in so many processes."""
    with TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
        command = [sys.executable, __file__, "--check", folder]
        processes = [subprocess.Popen(command, env={**common, "RANK": str(rank)}) for rank in range(ranks)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit("a process of the check failed")
        found: dict[str, Any] = json.loads((Path(folder) / f"{ranks}.json").read_text())
        return found


def checked() -> dict[str, Any]:
    """The model's terms measured with gloo processes, and what it then says of their step."""
    load = os.getloadavg()[0]
    one, two = measured(1), measured(2)
    # Others use the machine too: the least of each.
    seconds = {name: min(taken) for name, taken in two["seconds"].items()}
    share, whole = (min(one["seconds"][name]) for name in ("together", "whole batch"))
    small, large = CHECK_SIZES[0], CHECK_SIZES[-1]
    # Of two processes: 2 latencies, and each sends as many bytes as the buffer has.
    link = Link(seconds[str(small)] / 2, (large - small) / (seconds[str(large)] - seconds[str(small)]))
    sent = buckets(layers(check_net(), torch.zeros(1, 20, 112, 112)))
    taken = (seconds["beside"] - seconds["alone"]) / seconds[str(large)]
    step = predict(seconds["alone"], sent, 2, link, taken)
    from_one = predict(share, sent, 2, link, taken)
    return {
        "net": f"temporal, a quarter of the width, 112x112, batch {2 * CHECK_SHARE}, one thread for each process",
        "load_of_the_machine_before": round(load, 2),
        "bytes_all_reduced": {"counted": sum(two["buckets"]), "model": sum(b.size for b in sent)},
        "buckets": {"counted": two["buckets"], "model": [b.size for b in sent]},
        "gloo": {"latency_us": round(1e6 * link.latency, 1), "gigabytes_per_second": round(link.bandwidth / 1e9, 3)},
        "exchange_ms": {
            size: {"measured": _ms(seconds[str(size)]), "model": _ms(exchange(size, 2, link))} for size in CHECK_SIZES
        },
        "compute_taken_by_exchange": round(taken, 2),
        "step_ms": {
            "one process, the whole batch": _ms(whole),
            "one process, half the batch": _ms(share),
            "two, without exchange": _ms(seconds["alone"]),
            "two, measured": _ms(seconds["together"]),
            "two, model": _ms(step.seconds),
            "two, model from one process": _ms(from_one.seconds),
        },
        "model_over_measured": {
            "step": round(step.seconds / seconds["together"], 3),
            "step from one process": round(from_one.seconds / seconds["together"], 3),
        },
    }


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="A model of training on several GPUs.")
    parser.add_argument("--samples-per-second", type=float, default=8000.0, help="of one GPU, assumed (8000)")
    parser.add_argument("--batch", type=int, default=256, help="of all GPUs together (256)")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks" / "results" / "scaling_model.json")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check is not None:
        check(options.check)
        return
    record: dict[str, Any] = machine.facts(torch.device("cpu"), 1)
    record["assumed"] = {
        "samples_per_second_of_one_gpu": options.samples_per_second,
        "batch": options.batch,
        "links": {name: link._asdict() for name, link in LINKS.items()},
        "not measured": "no GPU was used: all of `predictions` is the model's",
    }
    record["checked_with_gloo"] = checked()
    record["predictions"] = table(options.samples_per_second, options.batch)
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["checked_with_gloo"], indent=1))
    print("link, GPUs: speed-up (ms a step) with float32 and with bfloat16 gradients; the model's, from assumed terms")
    for row in record["predictions"]:
        each = "  ".join(
            f"{row[coding]['speedup']:6.2f} ({row[coding]['step_ms']:.2f})" for coding in ("float32", "bfloat16")
        )
        print(f"{row['link']:20} {row['gpus']:3}  {each}")


if __name__ == "__main__":
    main()
