# SPDX-License-Identifier: BSD-3-Clause
"""`twostream info`: the build, the machine, the optional parts."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from typing import Any

import twostream_ext
from twostream_ext.errors import first_line
from twostream_ext.optional_packages import OPENCV_PACKAGES

_PARTS = ("numpy", "av", "safetensors", "tqdm", "scikit-learn", "tensorboard", "protobuf", "jinja2")
_NOT_INSTALLED = "not installed"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="version, build, devices and parts",
        description="Show what this installation is and what it finds on the machine.",
    )
    return parser


def execute(_: argparse.Namespace) -> None:
    import torch

    from twostream_ext import ops

    build = ops.build_info()
    driver = build.cuda_driver
    rows = {
        "twostream_ext": twostream_ext.__version__,
        "library": twostream_ext.get_library(),
        "CUDA architectures": " ".join(build.cuda_architectures) or "none (built without CUDA)",
        "CUDA driver": f"{driver // 1000}.{driver % 1000 // 10}" if driver else "none",
        "CUDA devices": ", ".join(_device_names(build.cuda_devices)) or "none",
        "SIMD level": build.isa,
        "python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        **{name: _version(name) for name in _PARTS},
        "OpenCV": _opencv(),
        "FFmpeg (in av)": _ffmpeg(),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")


def _device_names(count: int) -> list[str]:
    """Names of the devices, `count` in the eyes of the driver."""
    import torch

    if not torch.cuda.is_available():
        return [f"{count}, but this torch cannot use them"] if count else []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _opencv() -> str:
    """Its version and the packages that brought it, of which the last one installed lies over the others."""
    packages = [f"{name} {_version(name)}" for name in OPENCV_PACKAGES if _version(name) != _NOT_INSTALLED]
    try:
        import cv2
    except ImportError as error:
        return f"cannot be imported: {first_line(error)} ({', '.join(packages)})" if packages else _NOT_INSTALLED
    return f"{cv2.__version__} ({', '.join(packages) or 'not by pip'})"


def _ffmpeg() -> str:
    try:
        import av
    except ImportError as error:
        return _NOT_INSTALLED if error.name == "av" else f"cannot be imported: {first_line(error)}"
    return av.ffmpeg_version_info


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _NOT_INSTALLED
