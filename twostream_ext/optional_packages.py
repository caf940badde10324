# SPDX-License-Identifier: BSD-3-Clause
"""Packages that a few features need and the installation alone does not bring."""

from __future__ import annotations

import importlib
from types import ModuleType

from twostream_ext.errors import SettingsError


def import_optional(name: str, feature: str, extra: str) -> ModuleType:
    """Import a module of such a package.

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
