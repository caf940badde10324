# SPDX-License-Identifier: BSD-3-Clause
"""The commands with one call that fails: the n-th write, read, rename, ... of their files, for n = 1, 2, 3, ...

python faults.py FOLDER [--commands extract ...] [--kinds "write: no space" ...] [--most N] [--kills N] [--out FILE]

`fault_shim.c` must be loaded before libc (LD_PRELOAD); test_faults.py sees to that. After each fault the command must
have ended well, or with one line that is no traceback; every file must be whole; and the same command, with nothing
that fails, must end with the same bytes as a command that was never disturbed. Prints a table of counts and what did
not hold; exits with 1 if anything did not.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import errno
import faulthandler
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import training_runs
from safetensors import SafetensorError
from safetensors.torch import load
from videos import moving_frames, write_video

from twostream_ext import cli, engine
from twostream_ext.flow import FLOW_KIND, read_flow_clip
from twostream_ext.media import FrameStore
from twostream_ext.media.container import open_container
from twostream_ext.models import TemporalNet

SECONDS = 120  # until a command is taken to hang
KILL = "kill -9"
NETS = ("first", "second")
DIFFERS_IN_ROUNDING = "then differs in rounding from an undisturbed one"
LARGE = 1 << 16  # bytes; smaller allocations do not fail: the interpreter could not go on


class Kind(NamedTuple):
    """One kind of fault; the numbers are those of fault_shim.c."""

    call: int
    is_short: int = 0
    error: int = 0


KINDS = {
    "write: no space": Kind(1, error=errno.ENOSPC),
    "write: I/O error": Kind(1, error=errno.EIO),
    "write: interrupted": Kind(1, error=errno.EINTR),
    "write: short": Kind(1, is_short=1),
    "read: I/O error": Kind(2, error=errno.EIO),
    "read: interrupted": Kind(2, error=errno.EINTR),
    "read: short": Kind(2, is_short=1),
    "open: too many files": Kind(3, error=errno.EMFILE),
    "open: interrupted": Kind(3, error=errno.EINTR),
    "rename: I/O error": Kind(4, error=errno.EIO),
    "fsync: I/O error": Kind(5, error=errno.EIO),
    "mkdir: no space": Kind(6, error=errno.ENOSPC),
    "link: not permitted": Kind(7, error=errno.EPERM),
    "unlink: I/O error": Kind(8, error=errno.EIO),
    "allocation: no memory": Kind(9, error=errno.ENOMEM),
}


class Command(NamedTuple):
    """What is run: its arguments from the scene and from where it is to write, and what to give it to go on."""

    arguments: Callable[[Path, Path], list[str]]
    to_go_on: tuple[str, ...] = ()


def _extract(scene: Path, out: Path) -> list[str]:
    stores = [str(out / "flow"), "--frames", str(out / "frames")]
    options = ["--method", "dis", "--size", "32", "--backward", "--preview", "--workers", "1"]
    return ["extract", str(scene / "videos"), *stores, *options]


def _denseflow(scene: Path, out: Path) -> list[str]:
    options = ["-s=-1", "-a=farn", "-ns=32", "-cf", f"-o={out / 'tree'}"]
    return ["denseflow", str(scene / "videolist.txt"), *options]


def _export(scene: Path, out: Path) -> list[str]:
    return ["export", str(scene / "flow"), str(out / "tree"), "--layout", "denseflow", "--workers", "1"]


def _train(scene: Path, out: Path) -> list[str]:
    numbers = ["--recipe", "small", "--iterations", "4", "--batch-size", "4", "--length", "2", "--workers", "0"]
    sources = training_runs.sources(scene)
    return ["train", "temporal", *sources, "--out", str(out / "run"), *numbers, "--checkpoint-every", "2"]


def _evaluate(scene: Path, out: Path) -> list[str]:
    return _scoring(scene, "first", "train", out / "scores.safetensors")


def _scoring(scene: Path, net: str, part: str, out: Path) -> list[str]:
    options = ["--frames-per-video", "2", "--crops", "1", "--part", part, "--out", str(out)]
    return ["evaluate", "--model", str(scene / f"{net}.safetensors"), *training_runs.sources(scene), *options]


def _fuse(scene: Path, out: Path) -> list[str]:
    test, train = ([str(scene / f"{net}-{part}.safetensors") for net in NETS] for part in ("test", "train"))
    return ["fuse", *test, "--train", *train]


def _run(scene: Path, out: Path) -> list[str]:
    lists = ["--videos", str(scene / "videos"), "--lists", str(scene / "videos")]
    return ["run", *lists, "--out", str(out / "run"), "--recipe", "small", "--workers", "0"]


def _predict(scene: Path, out: Path) -> list[str]:
    return [
        "predict",
        str(scene / "videos" / "c0" / "v0.avi"),
        "--model",
        str(scene / "finished"),
        "--annotated",
        str(out / "annotated.mp4"),
    ]


def _answers(scene: Path, out: Path) -> list[str]:
    return ["predict", str(scene / "videos"), "--model", str(scene / "finished"), "--out", str(out / "answers.json")]


def _motion(scene: Path, out: Path) -> list[str]:
    options = ["--fps", "own", "--size", "own", "--workers", "1"]
    return ["motion", str(scene / "videos"), "--out", str(out / "scores.csv"), *options]


COMMANDS = {
    "extract": Command(_extract),
    "denseflow": Command(_denseflow),
    "export": Command(_export),
    "train": Command(_train, ("--resume",)),
    "evaluate": Command(_evaluate),
    "fuse": Command(_fuse),
    "run": Command(_run),
    "predict": Command(_predict),
    "predict --out": Command(_answers),
    "motion": Command(_motion),
}


class Faults:
    """The functions of the shim that is loaded into this process."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        try:
            self._arm, self._count = library.faults_arm, library.faults_count
        except AttributeError:
            raise SystemExit("fault_shim.c must be loaded: LD_PRELOAD=shim.so python faults.py ...") from None
        self._arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 3, ctypes.c_long, ctypes.c_size_t, ctypes.c_int]
        self._arm.restype = None
        self._count.restype = ctypes.c_long

    def arm(self, folder: Path, kind: Kind, at: int, report: int) -> None:
        """report: descriptor that gets the path of the library whose allocation fails, and a line end."""
        self._arm(os.fsencode(f"{folder}/"), kind.call, kind.is_short, kind.error, at, LARGE, report)

    def disarm(self) -> int:
        """Number of calls since `arm` that could have failed."""
        calls = int(self._count())
        self._arm(b"", 0, 0, 0, 0, 0, -1)
        return calls


class Ended(NamedTuple):
    """How a command ended."""

    status: int  # what main returned; minus the signal that killed it
    calls: int
    said: str  # on standard error
    refused: str  # name of the library whose allocation failed


def run(
    arguments: Sequence[str],
    watched: Path,
    faults: Faults,
    kind: Kind | None = None,
    at: int = 0,
    *,
    seconds: float | None = None,
) -> Ended:
    """Run a command in a forked child, in which the n-th call of a kind fails, or which is killed after some time."""
    reading, writing = os.pipe()
    words = watched.parent / "words.txt"
    child = os.fork()
    if child == 0:
        status = 99
        try:
            with words.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                faulthandler.register(signal.SIGUSR1, file=file)
                sys.stdout, sys.stderr = io.StringIO(), file
                if kind is not None:
                    faults.arm(watched, kind, at, writing)
                try:
                    status = cli.main(arguments)
                finally:
                    os.write(writing, f"calls {faults.disarm()}\n".encode())
        except BaseException:
            import traceback

            with words.open("a") as file:
                traceback.print_exc(file=file)
        os._exit(status)
    os.close(writing)
    status = _wait(child) if seconds is None else _kill_after(child, seconds)
    reported = os.read(reading, 1 << 16).decode().splitlines()
    os.close(reading)
    calls = sum(int(line.removeprefix("calls ")) for line in reported if line.startswith("calls "))
    refused = "".join(Path(line).name for line in reported if not line.startswith("calls "))
    return Ended(status, calls, words.read_text(errors="replace").strip(), refused)


def _wait(child: int) -> int:
    """Its exit status; one that hangs is asked where, and killed."""
    end = time.monotonic() + SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGUSR1)
            time.sleep(1)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGKILL
        time.sleep(0.002)


def _kill_after(child: int, seconds: float) -> int:
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # a child that has ended is there until it is waited for
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(out: Path) -> dict[str, bytes]:
    """All files that must come out alike: without clocks."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or "tfevents" in name or path.name == "samples_per_second.svg":
            continue
        if path.name == "log.csv":
            found[name] = _without_seconds(path)
        elif path.name == "report.html":
            found[name] = re.sub(rb"Samples a second.*?</svg>", b"", path.read_bytes(), flags=re.DOTALL)
        else:
            found[name] = path.read_bytes()
    return found


def _without_seconds(log: Path) -> bytes:
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return json.dumps([{key: row[key] for key in row if "seconds" not in key} for row in rows]).encode()


def half_written(out: Path) -> Iterator[str]:
    """Files that are there and not whole."""
    for path in sorted(out.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            try:
                _read(path)
            except Exception as error:
                yield f"{path.relative_to(out)}: {type(error).__name__}: {error}"


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jpg":
        assert path.read_bytes().endswith(b"\xff\xd9"), "no end"
    elif path.suffix == ".png":
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), "no end"
    elif path.suffix == ".safetensors" and path.parent.name == "c":
        open_container(path, FLOW_KIND if "flow" in path.parts else FrameStore.kind, trusted=set())
        if "flow" in path.parts:
            read_flow_clip(path).read(0, 1)
    elif path.suffix == ".safetensors":
        size = path.stat().st_size
        header = path.open("rb").read(8)
        assert size > 8, "no header"
        table = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(header, "little")])
        ends = [entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"]
        assert size == 8 + int.from_bytes(header, "little") + max(ends), "of another size"


def _is_plain(line: str) -> bool:
    """One of ours, of a video that failed, which begins with its path, or of a library that is short of memory."""
    return line.startswith(("twostream: ", "/", "[ERROR:", "[ WARN:"))


class Fault(NamedTuple):
    """A fault after which something did not hold."""

    command: str
    kind: str
    at: int
    what: str
    known: str = ""  # why it stays so; nothing if it must not


class Tried(NamedTuple):
    """What came of one kind of fault in one command."""

    calls: int  # that could have failed
    failed: int
    found: list[Fault]

    def counts(self) -> dict[str, int]:
        known = sum(bool(fault.known) for fault in self.found)
        return {"calls": self.calls, "failed": self.failed, "wrong": len(self.found) - known, "known": known}


def try_all(scene: Path, command: str, kind: str, faults: Faults, most: int, whole: dict[str, bytes]) -> Tried:
    """Let one call after the other fail, at most so many, evenly spread."""
    out, arguments = scene / "out", COMMANDS[command].arguments(scene, scene / "out")
    empty(out)
    calls = run(arguments, scene, faults, KINDS[kind]).calls
    failed, wrong = 0, []
    count = min(most, calls)
    for at in sorted({1 + round(number * (calls - 1) / max(1, count - 1)) for number in range(count)}):
        empty(out)
        inputs = sizes_and_times(scene)
        ended = run(arguments, scene, faults, KINDS[kind], at)
        if ended.calls < at and ended.status >= 0:
            continue  # threads do not make the same calls each time
        failed += 1
        found = [*_check_end(ended), *(f"half-written: {each}" for each in half_written(out))]
        found += go_on(scene, command, faults, whole)
        if sizes_and_times(scene) != inputs:
            found.append("an input was changed")
        wrong += [Fault(command, kind, at, each, _reason(ended, each)) for each in found]
    return Tried(calls, failed, wrong)


def _reason(ended: Ended, what: str) -> str:
    """Why what did not hold stays so: torch has some libraries in its own, and no way to change what they do."""
    if not ended.refused.startswith("libtorch_cpu"):
        return ""
    if what.startswith(f"ended with {-signal.SIGSEGV}"):
        return "oneDNN, in torch: where it gets no memory for the code that it compiles, it goes on without"
    if ended.status == 0 and what.startswith(DIFFERS_IN_ROUNDING):
        return "MKL, in torch: where it gets no memory for copies of matrices, it adds up in another order"
    return ""


def kill(scene: Path, command: str, faults: Faults, kills: int, whole: dict[str, bytes], draw: random.Random) -> Tried:
    """Kill a command at random moments, and let it go on each time."""
    out, arguments = scene / "out", COMMANDS[command].arguments(scene, scene / "out")
    empty(out)
    began = time.perf_counter()
    run(arguments, scene, faults)
    seconds = time.perf_counter() - began
    tries, hit, wrong = 0, 0, []
    while hit < kills and tries < 4 * kills:  # some have ended before
        tries += 1
        empty(out)
        ended = run(arguments, scene, faults, seconds=draw.uniform(0, seconds))
        hit += ended.status == -signal.SIGKILL
        found = [f"half-written: {each}" for each in half_written(out)]
        found += go_on(scene, command, faults, whole)
        wrong += [Fault(command, KILL, tries, each) for each in found]
    return Tried(tries, hit, wrong)


def go_on(scene: Path, command: str, faults: Faults, whole: dict[str, bytes]) -> Iterator[str]:
    """What does not hold when the same command is given again, with nothing that fails."""
    out = scene / "out"
    again = run([*COMMANDS[command].arguments(scene, out), *COMMANDS[command].to_go_on], scene, faults)
    if again.status != 0:
        yield f"the same command then ended with {again.status}: {again.said[-400:]}"
    found = contents(out)
    if names := sorted(name for name in {*whole, *found} if whole.get(name) != found.get(name)):
        is_rounding = all(_differ_in_rounding(whole.get(name, b""), found.get(name, b"")) for name in names)
        yield f"{DIFFERS_IN_ROUNDING if is_rounding else 'then differs from an undisturbed one'}: {', '.join(names)}"


def _differ_in_rounding(one: bytes, other: bytes) -> bool:
    """Whether both are files of tensors, of the same names, whose numbers are the same but for their last digits."""
    try:
        tensors, others = load(one), load(other)
    except SafetensorError:
        return False
    return tensors.keys() == others.keys() and all(
        torch.allclose(tensor.double(), others[name].double(), rtol=1e-4, atol=1e-6) for name, tensor in tensors.items()
    )


def empty(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()


def _check_end(ended: Ended) -> Iterator[str]:
    if ended.status == -signal.SIGKILL:
        yield f"hangs: {ended.said[-1500:]}"
    elif ended.status not in (0, 1):
        yield f"ended with {ended.status}: {ended.said[-600:]}"
    elif "Traceback" in ended.said or not all(_is_plain(line) for line in ended.said.splitlines()):
        yield f"ended with {ended.status}, not in plain lines: {ended.said[-1500:]}"
    elif ended.status == 1 and "/" not in ended.said and "not enough memory" not in ended.said:
        yield f"names no file: {ended.said}"


def sizes_and_times(scene: Path) -> dict[str, tuple[int, int]]:
    """Of all that the commands read."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in scene.rglob("*")
        if path.is_file() and scene / "out" not in path.parents
    }


def prepare(folder: Path, faults: Faults) -> Path:
    """The scene, made in a folder, in a process that has all that its children need."""
    scene = folder.absolute() / "scene"
    _import_all()
    torch.set_num_threads(1)
    engine.RECIPES["small"] = _tiny(engine.RECIPES["small"])
    make_scene(scene, faults)
    return scene


def undisturbed_files(scene: Path, command: str, faults: Faults) -> dict[str, bytes]:
    """What a command leaves, in an empty folder, when nothing fails."""
    out = scene / "out"
    empty(out)
    ended = run(COMMANDS[command].arguments(scene, out), scene, faults)
    assert ended.status == 0, ended.said
    assert not list(half_written(out)), list(half_written(out))
    return contents(out)


def make_scene(scene: Path, faults: Faults) -> None:
    """Videos, a flow store, lists, two nets and their scores, a finished run: all that the commands read."""
    _make_videos(scene / "videos")
    listed = sorted(map(str, (scene / "videos").rglob("*.avi")))
    (scene / "videolist.txt").write_text("\n".join(listed))
    training_runs.make_store(scene / "flow")
    _make_lists(scene)
    for seed, name in enumerate(NETS):
        torch.manual_seed(seed)
        net = TemporalNet(3, length=2, width=0.05, input_size=training_runs.SIDE)
        engine.save_model(scene / f"{name}.safetensors", net, ["c0", "c1", "c2"])
        for part in ("train", "test"):
            scored = run(_scoring(scene, name, part, scene / f"{name}-{part}.safetensors"), scene, faults)
            assert scored.status == 0, scored.said

    finished = scene / "finished"
    made = run(_run(scene, scene), scene, faults)
    assert made.status == 0, made.said
    (scene / "run").rename(finished)


def _make_videos(root: Path) -> None:
    lines = []
    for label in range(2):
        for index in range(3):
            step = (3, 0) if label else (0, 2)
            frames = moving_frames(6, size=(40, 48), step=step, seed=index)
            write_video(root / f"c{label}" / f"v{index}.avi", frames)
            lines.append(f"c{label}/v{index}.avi {label + 1}\n")
    (root / "classInd.txt").write_text("1 c0\n2 c1\n")
    (root / "trainlist01.txt").write_text("".join(line for line in lines if "v2" not in line))
    (root / "testlist01.txt").write_text("".join(line for line in lines if "v2" in line))


def _tiny(recipe: engine.Recipe) -> engine.Recipe:
    short = {name: replace(each, iterations=4, batch_size=4) for name, each in recipe.streams.items()}
    small = {"smallest_side": 58, "input_size": training_runs.SIDE, "width": 0.05, "length": 2, "frames": 2, "crops": 1}
    return replace(recipe, streams=short, flow_method="dis", **small)


def _make_lists(scene: Path) -> None:
    training_runs.make_lists(scene)
    lines = [f"{video.path} {video.label + 1}\n" for video in training_runs.VIDEOS]
    for part, listed in (("train", lines[::2]), ("test", lines[1::2])):
        (scene / f"{part}list01.txt").write_text("".join(listed))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--most", type=int, default=1 << 30, help="calls of a kind that fail, evenly spread (all)")
    parser.add_argument("--kills", type=int, default=0, help="of each command, at random moments (0)")
    parser.add_argument("--out", type=Path, help="write the counts to this .json, beside those of other commands there")
    options = parser.parse_args(arguments)
    faults = Faults()
    scene = prepare(options.folder, faults)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    found: list[Fault] = []
    draw = random.Random(0)
    for command in options.commands:
        whole = undisturbed_files(scene, command, faults)
        tried = {kind: try_all(scene, command, kind, faults, options.most, whole) for kind in options.kinds}
        if options.kills:
            tried[KILL] = kill(scene, command, faults, options.kills, whole, draw)
        counts[command] = {kind: each.counts() for kind, each in tried.items()}
        print(command, json.dumps(counts[command]), flush=True)
        found += [fault for each in tried.values() for fault in each.found]
        if options.out:
            _write_record(options.out, counts, found)
    for fault in found:
        print(f"\n{fault.command}, {fault.kind}, call {fault.at}: {fault.what} {fault.known and f'({fault.known})'}")
    wrong = sum(not fault.known for fault in found)
    total = _totals(counts)
    print(f"{total['faults']} faults and {total['kills']} kills, {wrong} wrong, {len(found) - wrong} known")
    return 1 if wrong else 0


def _write_record(out: Path, counts: dict[str, Any], found: Sequence[Fault]) -> None:
    counts, told = with_earlier(out, counts, [fault._asdict() for fault in found])
    wrong, known = [each for each in told if not each["known"]], [each for each in told if each["known"]]
    record = {**facts(), "commands": counts, **_totals(counts), "wrong": wrong, "known": known}
    out.write_text(json.dumps(record, indent=1) + "\n")


def with_earlier(
    out: Path, counts: dict[str, Any], found: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Counts and what was found, with those that a record has of other commands: each may be tried apart."""
    if not out.exists():
        return counts, found
    earlier = json.loads(out.read_text())
    others = {command: each for command, each in earlier["commands"].items() if command not in counts}
    return {**others, **counts}, [
        *(each for each in [*earlier["wrong"], *earlier.get("known", [])] if each["command"] in others),
        *found,
    ]


def _totals(counts: dict[str, Any]) -> dict[str, int]:
    failed = [(kind, each["failed"]) for kinds in counts.values() for kind, each in kinds.items()]
    kills = sum(number for kind, number in failed if kind == KILL)
    return {"faults": sum(number for _, number in failed) - kills, "kills": kills}


def facts() -> dict[str, Any]:
    """Date, commit, machine and versions, as all results have them."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    import machine

    found: dict[str, Any] = machine.facts(torch.device("cpu"), 1)
    return found


def _import_all() -> None:
    """What the commands import when they are first run: once here, and not in each child."""
    import sklearn.svm
    import torch._dynamo
    import torch.utils.tensorboard

    assert sklearn.svm
    assert torch.utils.tensorboard


if __name__ == "__main__":
    sys.exit(main())
