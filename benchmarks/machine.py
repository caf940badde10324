# SPDX-License-Identifier: BSD-3-Clause
"""Facts that a recorded result needs: date, commit, machine, versions."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = (
    "torch",
    "numpy",
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
    "simplejpeg",
    "kornia",
    "torchvision",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
)


def facts(device: torch.device, threads: int) -> dict[str, Any]:
    now = dt.datetime.now(dt.timezone.utc)
    machine: dict[str, Any] = {"cpu": cpu_model(), "cores": os.cpu_count(), "threads": threads}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_bytes"] = properties.total_memory
        machine["cuda"] = torch.version.cuda
    return {"date": now.isoformat(timespec="seconds"), "commit": commit(), "machine": machine, "versions": versions()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processor() -> str:
    """The model's name and numbers: under some hypervisors the name alone tells no more than its maker."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return cpu_model()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = [f"{key} {values[key]}" for key in ("cpu family", "model", "stepping") if key in values]
    return ", ".join([cpu_model(), *numbers])


def commit() -> str:
    """The commit of this checkout, `+changes` where files differ from it."""
    return commit_of(ROOT)


def commit_of(checkout: Path) -> str:
    """The same of any checkout."""
    try:
        head = git(checkout, "rev-parse", "HEAD")
        return head + ("+changes" if git(checkout, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(checkout: Path, *arguments: str) -> str:
    """What a command of git prints; OSError or CalledProcessError where it cannot."""
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()
