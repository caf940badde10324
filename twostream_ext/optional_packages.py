# SPDX-License-Identifier: BSD-3-Clause
"""Packages that parts of this one stand on, and that the installation alone does not bring."""

from __future__ import annotations

import importlib
from types import ModuleType

from twostream_ext.errors import MissingPackageError, SettingsError, first_line

OPENCV_PACKAGES = (
    "opencv-python-headless",
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-contrib-python",
)
"""Each brings the module cv2, one over another; any one of them serves. Nothing here opens a window."""

FLOW_PACKAGES = ("numpy", "av", "cv2", "safetensors", "tqdm")
"""Modules that videos and flow need: of the extra `flow`, but for cv2."""


def need_packages(part: str, extra: str, modules: tuple[str, ...]) -> None:
    """Import what a part stands on, before it does.

    extra: of this package, that installs it. MissingPackageError, which says so, if a module cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingPackageError(f"{part} needs {_remedy(module, extra, error)}") from None


def _remedy(module: str, extra: str, error: ImportError) -> str:
    if module != "cv2":
        return f"{module}: pip install 'twostream_ext[{extra}]'"
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
        return f"OpenCV, one package of it: pip install {OPENCV_PACKAGES[0]}"
    return (
        f"OpenCV, which cannot be imported here ({first_line(error)}); without windows it needs less: "
        f"pip uninstall -y {' '.join(OPENCV_PACKAGES)} && pip install {OPENCV_PACKAGES[0]}"
    )


def import_optional(name: str, feature: str, extra: str) -> ModuleType:
    """Import a module that a few features need.

    feature: what needs it; extra: of this package, that installs it. SettingsError, which says so, if it is not there.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise SettingsError(f"{feature} needs {package}: pip install 'twostream_ext[{extra}]'") from None


def import_h5py() -> ModuleType:
    """`import_optional` for HDF5."""
    return import_optional("h5py", "HDF5", "h5")
