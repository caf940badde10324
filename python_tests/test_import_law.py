# SPDX-License-Identifier: BSD-3-Clause
"""Which room may import which: read from the sources, so that no import is overlooked, wherever in a file it stands.

The rooms stand one above the other, and each may use those below it, by names that they give out (`__all__`). All that
is not in a room is the floor, which stands below all of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import twostream_ext

PACKAGE = "twostream_ext"
ORDER = (
    ("ops",),
    ("media",),
    ("flow",),
    ("data", "models", "extraction", "motion"),  # side by side: they do not know each other
    ("engine",),
    ("report",),
    ("cli",),
)
HEIGHT = {room: height for height, rooms in enumerate(ORDER) for room in rooms}
FLOOR = -1
FACADE = {"__init__", "__main__"}  # of the package: names of all rooms, imported when they are first asked for
ABOVE_THE_FACADE = "cli"


class Import(NamedTuple):
    """One imported name."""

    place: str  # file and line
    importer: str  # "engine.train", the module that imports
    module: str  # "models.streams", "models" or ""
    name: str | None  # taken from the module; None where that itself is imported


def room_of(module: str) -> str | None:
    first = module.partition(".")[0]
    return first if first in HEIGHT else None


def height_of(module: str) -> int:
    room = room_of(module)
    return FLOOR if room is None else HEIGHT[room]


def sources(root: Path) -> dict[str, ast.Module]:
    """The modules below a package's folder by name, "engine.train"; a room's `__init__` has the name of the room."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return modules


def imports_of(importer: str, tree: ast.Module) -> Iterator[Import]:
    """All of the package, also those inside functions and those for type checkers alone."""
    for node in ast.walk(tree):
        place = f"{importer}, line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == PACKAGE:
                    yield Import(place, importer, alias.name.partition(".")[2], None)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place}: imports are written in full"
            package, _, module = (node.module or "").partition(".")
            if package == PACKAGE:
                for alias in node.names:
                    yield Import(place, importer, module, alias.name)


def public_names(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == ["__all__"]:
            return set(ast.literal_eval(node.value))
    return set()


def target_of(found: Import, modules: dict[str, ast.Module]) -> str:
    """The module that an import reaches: `from twostream_ext.engine import train` may name a module or a function."""
    below = f"{found.module}.{found.name}".lstrip(".")
    if below in modules or (not found.module and found.name == "_C"):
        return below
    return found.module or "__init__"


def broken_laws(modules: dict[str, ast.Module]) -> list[str]:
    """What is wrong with the imports, one line each."""
    faults = []
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for importer, tree in modules.items():
        for found in imports_of(importer, tree):
            target = target_of(found, modules)
            edges[importer].add(target)
            faults += [f"{found.place}: {fault}" for fault in faults_of(found, target, modules)]
    circle = find_circle({name: targets - {name} for name, targets in edges.items()})
    if circle:
        faults.append(f"imports go in a circle: {' -> '.join(circle)}")
    return faults


def faults_of(found: Import, target: str, modules: dict[str, ast.Module]) -> Iterator[str]:
    own, other = room_of(found.importer), room_of(target)
    if target == "__init__":
        if own != ABOVE_THE_FACADE and found.importer not in FACADE:
            yield "takes from the package itself, which stands above the rooms"
        return
    if own == other or found.importer in FACADE:
        return
    if height_of(found.importer) <= height_of(target):
        yield f"{own or 'the floor'} imports {target}, which is not below it"
    if other is None:
        return
    if not found.module and found.name == other:  # the room itself
        return
    public = public_names(modules[other])
    taken = target.removeprefix(f"{other}.") if target != other else found.name
    if taken is not None and taken not in public:
        yield f"{target} ({taken}) is not a name that {other} gives out in its __all__"
    if found.name is not None and found.name.startswith("_"):
        yield f"{found.name} of {target} is private"


def find_circle(edges: dict[str, set[str]]) -> list[str] | None:
    """One circle, if there is any. The package's own module holds no code of a room and is passed over."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(edges.get(module, set()) - FACADE):
            circle = visit(target, [*path, module])
            if circle:
                return circle
        done.add(module)
        return None

    return next((circle for module in sorted(edges) if (circle := visit(module, []))), None)


def test_the_imports_keep_the_law():
    modules = sources(Path(twostream_ext.__file__).parent)
    assert HEIGHT.keys() <= modules.keys(), "a room has no __init__.py"
    folders = {name.partition(".")[0] for name in modules if "." in name}
    assert folders == HEIGHT.keys(), "a folder that is no room"
    assert broken_laws(modules) == []


ROOM = "__all__ = ['public', 'module']\n"
LAWFUL = {
    "__init__": "from twostream_ext import _C\n",
    "errors": "",
    "ops": ROOM,
    "ops.module": "from twostream_ext.errors import Error\n",
    "ops.hidden": "def public(): ...\n",
    "flow": ROOM + "from twostream_ext.flow.hidden import public\n",
    "flow.hidden": "from twostream_ext.ops import public\nfrom twostream_ext.ops.module import thing\n",
    "data": ROOM,
    "models": ROOM,
    "cli": "import twostream_ext\nfrom twostream_ext import ops\n",
}
BREAKERS = {
    "upward": ("ops.hidden", "from twostream_ext.flow import public", "which is not below it"),
    "inside a function": ("ops.hidden", "def f():\n    from twostream_ext.flow import public", "which is not below it"),
    "for type checkers": (
        "ops.hidden",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from twostream_ext.flow import public",
        "which is not below it",
    ),
    "from the floor": ("errors", "from twostream_ext.ops import public", "which is not below it"),
    "sideways": ("data", "from twostream_ext.models import public", "which is not below it"),
    "a private name": ("flow.hidden", "from twostream_ext.ops.module import _thing", "is private"),
    "a private module": ("flow.hidden", "from twostream_ext.ops.hidden import public", "not a name that ops gives out"),
    "a name not given out": ("flow.hidden", "from twostream_ext.ops import other", "not a name that ops gives out"),
    "a private module by import": ("flow.hidden", "import twostream_ext.ops.hidden", "not a name that ops gives out"),
    "the package itself": ("data", "import twostream_ext", "which stands above the rooms"),
    "a circle in a room": ("ops.module", "def f():\n    from twostream_ext.ops import public", "in a circle"),
}


def parsed(texts: dict[str, str]) -> dict[str, ast.Module]:
    return {name: ast.parse(text) for name, text in texts.items()}


def test_a_lawful_package_has_no_fault():
    assert broken_laws(parsed(LAWFUL)) == []


@pytest.mark.parametrize("breaker", BREAKERS)
def test_what_breaks_the_law_is_found(breaker):
    module, line, words = BREAKERS[breaker]
    texts = {**LAWFUL, module: LAWFUL[module] + line + "\n"}
    if "circle" in breaker:
        texts["ops"] += "from twostream_ext.ops.module import thing as public\n"
    faults = broken_laws(parsed(texts))
    assert any(words in fault for fault in faults), faults
