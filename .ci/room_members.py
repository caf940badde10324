# SPDX-License-Identifier: BSD-3-Clause
"""What a room gives out under the name of one of its modules, for the API's pages.

`twostream_ext.ops.flow_stack` is a function to whoever imports it, and `ops/flow_stack.py` a module of that name.
Griffe, which reads the sources without importing them, takes the module. This extension of it takes what Python would.
"""

from __future__ import annotations

from typing import Any

import griffe


class RoomMembers(griffe.Extension):
    """Puts what a package's `__init__` imports in the place of the submodule of the same name."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Look through the rooms of a loaded package."""
        for room in pkg.modules.values():
            for name in list(room.modules):
                module = room.members[name]
                if room.imports.get(name) == f"{module.path}.{name}":
                    room.members[name] = griffe.Alias(name, module.members[name], parent=room)
