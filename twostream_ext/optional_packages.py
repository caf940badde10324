# SPDX-License-Identifier: BSD-3-Clause
"""Packages that parts of this one stand on, and that the installation alone does not bring."""

from __future__ import annotations

import importlib
from types import ModuleType

from twostream_ext.errors import MissingPackageError, first_line

OPENCV_PACKAGES = (
    "opencv-python-headless",
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-contrib-python",
)
"""Each brings the module cv2, one over another; any one of them serves. Nothing here opens a window."""

FLOW_PACKAGES = ("numpy", "av", "cv2", "safetensors", "tqdm")
"""Modules that videos and flow need: of the extra `flow`, but for cv2."""


_PACKAGES = {
    "cv2": "OpenCV",
    "distributed": "Dask",
    "google": "protobuf",
    "sklearn": "scikit-learn",
}  # where they are not called as their module


def need_packages(part: str, extra: str, modules: tuple[str, ...]) -> None:
    """Import what a part stands on, before it does; errors as of `import_optional`."""
    for module in modules:
        import_optional(module, part, extra)


def import_optional(name: str, feature: str, extra: str) -> ModuleType:
    """Import a module that a part or a few features need.

    feature: what needs it; extra: of this package, that installs it. MissingPackageError, which says so, if it is not
    there, or cannot be imported and why.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        module = name.partition(".")[0]
        package = _PACKAGES.get(module, module)
        is_there = not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] != module
        fault = f", which cannot be imported here ({first_line(error)})" if is_there else ""
        raise MissingPackageError(f"{feature} needs {package}{fault}{_remedy(module, extra, is_there)}") from None


def _remedy(module: str, extra: str, is_there: bool) -> str:
    if module != "cv2":
        return f": pip install 'twostream_ext[{extra}]'"
    if not is_there:
        return f", one package of it: pip install {OPENCV_PACKAGES[0]}"
    return (
        f"; without windows it needs less: pip uninstall -y {' '.join(OPENCV_PACKAGES)} && "
        f"pip install {OPENCV_PACKAGES[0]}"
    )


def import_h5py() -> ModuleType:
    """`import_optional` for HDF5."""
    return import_optional("h5py", "HDF5", "h5")
