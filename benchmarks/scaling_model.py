# SPDX-License-Identifier: BSD-3-Clause
"""How training would scale over GPUs: a model of latency, bandwidth and compute, its terms checked with gloo here.

python benchmarks/scaling_model.py [--samples-per-second 8000] [--batch 256] [--out FILE]

The model. A step on n GPUs takes the forward pass of batch / n samples, and then backward pass and all-reduce side by
side. Layers give their gradients from the last to the first; DistributedDataParallel gathers them into buckets of at
least 25 MB and all-reduces one after the other, each as soon as it is full and the one before is through. A bucket of
S bytes takes 2 (n - 1) latency + 2 (n - 1) / n S / bandwidth (a ring). Gradients sent as bfloat16 have half the bytes.

Assumed, and not measured: the speed of one GPU (--samples-per-second; nothing here has run on a GPU) and that it does
not fall with smaller batches; that a layer's share of the time is its share of the multiplications, backward twice
forward; that links are as in LINKS, that all GPUs hang on links of one kind, and that reading the data keeps up. SGD's
own time is left out, as it does not depend on n.

Measured here: the bytes that are all-reduced in a step, counted by a communication hook; gloo's latency and bandwidth
between two processes; and the time of a step of two processes, beside what the model says of it with these terms.
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


def predict(compute: float, sent: Sequence[Bucket], gpus: int, link: Link) -> Step:
    """A step whose forward and backward passes take `compute` seconds."""
    forward, backward = FORWARD * compute, (1 - FORWARD) * compute
    end = sending = 0.0
    for bucket in sent:
        cost = 2 * (gpus - 1) * link.latency + 2 * (gpus - 1) / gpus * bucket.size / link.bandwidth
        end = max(end, forward + bucket.ready * backward) + cost
        sending += cost
    end = max(end, compute)
    return Step(end, sending, end - compute)


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

CHECK_BATCH = 4  # of both processes: small, so that the exchange can be seen beside it
CHECK_SIZES = (1 << 12, 1 << 20, 1 << 22, 1 << 24)  # bytes
ROUNDS = 25


def check(folder: Path) -> None:
    """In one of two processes: count, time, and write what was found (the first process)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with distributed.process_group(torch.device("cpu")):
        net = TemporalNet(101, length=10, width=0.25, input_size=112, dropout=0.5)
        inputs, labels = torch.randn(CHECK_BATCH // 2, 20, 112, 112), torch.zeros(CHECK_BATCH // 2, dtype=torch.int64)
        model = DistributedDataParallel(net, gradient_as_bucket_view=True)
        counted: list[int] = []

        def counting(bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            counted.append(bucket.buffer().numel() * bucket.buffer().element_size())
            work = dist.all_reduce(bucket.buffer().div_(2), async_op=True)
            return work.get_future().then(lambda done: done.value()[0])

        model.register_comm_hook(None, lambda _, bucket: counting(bucket))  # which may have no annotations as text

        def together() -> None:
            nn.functional.cross_entropy(model(inputs), labels).backward()

        def alone() -> None:
            with model.no_sync():
                together()

        together()
        together()  # the buckets are laid anew after the first
        counted.clear()
        together()
        sent = list(counted)
        seconds: dict[str, list[float]] = {"together": [], "alone": []}
        exchanges: dict[int, list[float]] = {size: [] for size in CHECK_SIZES}
        for _ in range(ROUNDS):
            seconds["together"].append(_seconds(together))
            seconds["alone"].append(_seconds(alone))
            for size, taken in exchanges.items():
                buffer = torch.zeros(size // 4)
                taken.append(_seconds(lambda buffer=buffer: dist.all_reduce(buffer)))  # type: ignore[misc]
        if distributed.rank() == 0:
            found: dict[str, Any] = {
                "bytes": sum(sent),
                "parameters": sum(p.numel() for p in net.parameters()),
                "buckets": sent,
                "seconds": seconds,
                "exchanges": exchanges,
            }
            (folder / "check.json").write_text(json.dumps(found))


def _seconds(call: Callable[[], object]) -> float:
    """Begun by both processes at once."""
    dist.barrier()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def checked() -> dict[str, Any]:
    """The model's terms measured with two gloo processes, and what it then says of their step."""
    with TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        command = [sys.executable, __file__, "--check", folder]
        processes = [subprocess.Popen(command, env={**common, "RANK": str(rank)}) for rank in range(2)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit("a process of the check failed")
        found = json.loads((Path(folder) / "check.json").read_text())
    small, large = CHECK_SIZES[0], CHECK_SIZES[-1]
    least = {int(size): min(taken) for size, taken in found["exchanges"].items()}
    # Of two processes: 2 latencies, and each sends as many bytes as the buffer has.
    link = Link(least[small] / 2, (large - small) / (least[large] - least[small]))
    net = TemporalNet(101, length=10, width=0.25, input_size=112)
    sent = buckets(layers(net, torch.zeros(1, 20, 112, 112)))
    alone, together = (min(found["seconds"][name]) for name in ("alone", "together"))  # others use the machine too
    step = predict(alone, sent, 2, link)
    return {
        "net": f"temporal, a quarter of the width, 112x112, batch {CHECK_BATCH}, one thread each",
        "bytes_all_reduced": {"counted": found["bytes"], "model": sum(b.size for b in sent)},
        "buckets": {"counted": found["buckets"], "model": [b.size for b in sent]},
        "gloo": {"latency_us": round(1e6 * link.latency, 1), "gigabytes_per_second": round(link.bandwidth / 1e9, 3)},
        "step_ms": {
            "without exchange": round(1e3 * alone, 1),
            "measured": round(1e3 * together, 1),
            "model": round(1e3 * step.seconds, 1),
        },
        "share_of_exchange_hidden": {
            "measured": round(1 - (together - alone) / step.seconds_sending, 2),
            "model": round(1 - step.seconds_exposed / step.seconds_sending, 2),
        },
    }


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
