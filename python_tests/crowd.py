# SPDX-License-Identifier: BSD-3-Clause
"""Many processes on one store, killed and started again at random moments, for as long as one likes.

python crowd.py FOLDER [--minutes 10] [--seed N] [--out FILE]

Two scenes in turns, each on a new store: four extractions with a shard each; two extractions of everything, and a
training that starts when the videos of its list are there and is tried until then. Extractions are killed at random
moments and started again until each has ended well. In the end the stores' files must be byte for byte those of one
undisturbed extraction, no temporary file may be left, and the weights must be those of a training on the finished
store. Prints the counts and what did not hold; exits with 1 if anything did not.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import long_run
import torch
import training_runs
from faults import contents
from videos import moving_frames, write_video

from twostream_ext import cli, engine

SHARDS = 4
LISTED = 6  # of the videos, the first by name: those that are trained on
SECONDS = 120  # until a command is taken to hang
MOST_KILLS = 6  # of one command; then it may end


@dataclass
class Command:
    """A command that is started again when it was killed, and when it may be tried again."""

    arguments: list[str]
    words: Path  # what it says
    kills: int = 0  # that are still to come
    tries_again: str = ""  # it may fail with a line that holds this
    process: int = 0
    began: float = 0.0
    is_done: bool = False

    def start(self) -> None:
        self.began = time.monotonic()
        self.process = os.fork()
        if self.process == 0:
            _run(self.arguments, self.words)

    def said(self) -> str:
        return self.words.read_text(errors="replace")


def _run(arguments: list[str], words: Path) -> None:
    """In the forked process: the command; does not return."""
    status = 99
    with words.open("w") as file:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = io.StringIO(), file
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # another test may have had a handler set
        try:
            torch.set_num_threads(1)
            engine.RECIPES["demo"] = replace(engine.RECIPES["demo"], input_size=training_runs.SIDE, width=0.05)
            status = cli.main(arguments)
        except BaseException:
            traceback.print_exc(file=file)
        file.flush()
        os._exit(status)


def crowd(commands: list[Command], draw: random.Random, seconds: float) -> tuple[Counter[str], list[str]]:
    """Start all, kill them at random moments so many seconds apart, start them again; until all have ended well."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for command in commands:
        command.start()
        counts["starts"] += 1
    next_kill = time.monotonic() + draw.uniform(0, seconds)
    while not wrong and not all(command.is_done for command in commands):
        time.sleep(0.002)
        for command in (each for each in commands if not each.is_done):
            wrong += _look_after(command, counts)
        running = [each for each in commands if not each.is_done and each.kills > 0]
        if running and time.monotonic() > next_kill:
            next_kill = time.monotonic() + draw.uniform(0, seconds)
            chosen = draw.choice(running)
            chosen.kills -= 1
            os.kill(chosen.process, signal.SIGKILL)  # one that has ended is there until it is waited for
    return counts, wrong


def _look_after(command: Command, counts: Counter[str]) -> list[str]:
    """Start it again if that is due; what is wrong with how it ended."""
    ended, waited = os.waitpid(command.process, os.WNOHANG)
    if not ended:
        if time.monotonic() < command.began + SECONDS:
            return []
        os.kill(command.process, signal.SIGKILL)
        os.waitpid(command.process, 0)
        command.is_done = True
        return [f"hangs: {command.arguments[0]}: {command.said()[-1500:]}"]
    status = os.waitstatus_to_exitcode(waited)
    if status == 0:
        command.is_done = True
        counts["ended well"] += 1
        return []
    said = command.said()
    if status == -signal.SIGKILL:
        counts["kills"] += 1
    elif status == 1 and command.tries_again and command.tries_again in said and len(said.splitlines()) == 1:
        counts["too early"] += 1
        time.sleep(0.05)
    else:
        return [f"{command.arguments[0]} ended with {status}: {said[-1500:]}"]
    command.start()
    counts["starts"] += 1
    return []


def extraction(scene: Path, out: Path, *options: str) -> list[str]:
    stores = [str(out / "flow"), "--frames", str(out / "frames"), "--preview"]
    numbers = ["--method", "dis", "--size", "58", "--backward", "--workers", "2"]
    return ["extract", str(scene / "videos"), *stores, *numbers, *options]


def training(scene: Path, store: Path, out: Path) -> list[str]:
    lists = ["--videos", str(scene / "videos"), "--lists", str(scene / "videos"), "--flow", str(store / "flow")]
    numbers = ["--recipe", "demo", "--iterations", "20", "--batch-size", "4", "--length", "2", "--workers", "2"]
    return ["train", "temporal", *lists, *numbers, "--out", str(out / "run"), "--checkpoint-every", "5", "--resume"]


def try_shards(scene: Path, kills: int) -> list[Command]:
    return [
        Command(
            extraction(scene, scene / "out", "--shard", f"{number}/{SHARDS}"), scene / f"words{number}", kills=kills
        )
        for number in range(1, SHARDS + 1)
    ]


def try_training(scene: Path, kills: int) -> list[Command]:
    both = [Command(extraction(scene, scene / "out"), scene / f"words{number}", kills=kills) for number in range(2)]
    trains = Command(
        training(scene, scene / "out", scene / "out"),
        scene / "words-train",
        kills=kills,
        tries_again=f"{scene}/out/flow",
    )
    return [*both, trains]


SCENES = {"shards": try_shards, "training": try_training}


def make_videos(root: Path, count: int) -> None:
    """Videos of two classes, and lists of the first of them."""
    lines = []
    for index in range(count):
        label = index % 2
        frames = moving_frames(12, size=(60, 72), step=(3, 0) if label else (0, 2), seed=index)
        write_video(root / f"c{label}" / f"v{index:03d}.avi", frames)
        lines.append(f"c{label}/v{index:03d}.avi {label + 1}\n")
    (root / "classInd.txt").write_text("1 c0\n2 c1\n")
    for part in ("train", "test"):
        (root / f"{part}list01.txt").write_text("".join(lines[:LISTED]))


def whole(scene: Path) -> dict[str, bytes]:
    """What one extraction and one training on its store, both undisturbed, leave."""
    for arguments in (extraction(scene, scene / "whole"), training(scene, scene / "whole", scene / "whole")):
        _, wrong = crowd([Command(arguments, scene / "words")], random.Random(0), 1)
        assert not wrong, wrong
    return contents(scene / "whole")


def try_all(scene: Path, minutes: float, seed: int, videos: int = 60) -> dict[str, Any]:
    """Both scenes, again and again; counts, and what did not hold."""
    make_videos(scene / "videos", videos)
    began = time.monotonic()
    expected = whole(scene)
    seconds = (time.monotonic() - began) / 10
    draw = random.Random(seed)
    counts: dict[str, Counter[str]] = {name: Counter() for name in SCENES}
    wrong: list[str] = []
    end = time.monotonic() + 60 * minutes
    while not wrong and (time.monotonic() < end or not all(counts.values())):
        for name, commands in SCENES.items():
            shutil.rmtree(scene / "out", ignore_errors=True)
            found, failed = crowd(commands(scene, draw.randint(1, MOST_KILLS)), draw, seconds)
            found["rounds"] = 1
            counts[name] += found
            wrong += [f"{name}: {each}" for each in failed]
            if not failed:
                wrong += [f"{name}: {each}" for each in _compare(scene, name, expected, counts[name])]
    return {"hours": round((time.monotonic() - began) / 3600, 4), "scenes": counts, "wrong": wrong}


def _compare(scene: Path, name: str, expected: dict[str, bytes], counts: Counter[str]) -> list[str]:
    """What differs from the undisturbed, after one more start, which has nothing to do but to tidy up."""
    again, wrong = crowd([Command(extraction(scene, scene / "out"), scene / "words")], random.Random(0), 1)
    counts += again
    found = contents(scene / "out")
    wanted = {path: data for path, data in expected.items() if name == "training" or not path.startswith("run/")}
    counts["files compared"] += len(wanted)
    different = sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))
    if different:
        wrong.append(f"differs from what was not disturbed: {', '.join(different[:10])}")
    return wrong


if __name__ == "__main__":
    sys.exit(long_run.main(try_all, __doc__, minutes=10))
