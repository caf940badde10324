# SPDX-License-Identifier: BSD-3-Clause
"""What the compiled kernels are, and what they find on this machine."""

from __future__ import annotations

from typing import NamedTuple

from twostream_ext import _C


class BuildInfo(NamedTuple):
    """The build of the kernels, and the machine as they see it."""

    version: str
    isa: str
    """The instruction set that the CPU kernels have chosen: "avx2" or "baseline"."""
    cuda_architectures: tuple[str, ...]
    """Those compiled in, as "90" or "100-real"; none if built without CUDA."""
    cuda_driver: int
    """The highest CUDA version of the driver, 12040 for 12.4; 0 without one."""
    cuda_devices: int


def build_info() -> BuildInfo:
    """Tell what the kernels were built for, and what this machine has."""
    architectures = _C.cuda_architectures()
    return BuildInfo(
        version=_C.version(),
        isa=_C.cpu_isa(),
        cuda_architectures=tuple(architectures.split(";")) if architectures else (),
        cuda_driver=_C.cuda_driver_version(),
        cuda_devices=_C.cuda_device_count(),
    )


def built_with_cuda() -> bool:
    """Tell whether the kernels were compiled for CUDA too."""
    return bool(_C.cuda_architectures())
