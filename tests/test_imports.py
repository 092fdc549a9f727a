"""Rooms of the package import each other in one direction."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lmms_tokendrop"
BESIDE = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "cli"}
"""Modules that every room may import; they import no room."""
ALLOWED: dict[str, set[str]] = {
    "catalogue": set(),
    "modeling": {"catalogue"},
    "results": {"catalogue"},
    "pocket": {"catalogue"},
    "evaluation": {"catalogue", "modeling", "pocket"},
    "compare": {"catalogue", "modeling", "results", "evaluation", "report"},
    "report": {"results", "benchmark"},
    "show": {"catalogue", "modeling", "evaluation", "report"},
    "training": {"catalogue", "modeling", "pocket", "evaluation"},
    "benchmark": {"catalogue", "modeling", "results", "evaluation", "training"},
    "plan": {"catalogue", "modeling", "evaluation", "benchmark"},
    "bench": {"catalogue", "modeling", "results", "evaluation", "training", "benchmark", "compare"},
    "hub": {"catalogue", "modeling", "pocket", "results", "evaluation"},
}
"""Rooms that a room may import. Inside functions and for type checkers only is importing, too."""


def imported(path: Path) -> set[str]:
    """Full names of what a file imports from the package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join((*folder, *([node.module] if node.module else [])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == PACKAGE.name and name != PACKAGE.name}


def rooms(paths: list[Path]) -> set[str]:
    """What files import of the package, by the first part of its name."""
    return {name.split(".")[1] for path in paths for name in imported(path)}


def test_every_room_is_listed():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_what_it_may(room):
    found = rooms(sorted((PACKAGE / room).rglob("*.py")))
    assert not found - BESIDE - {room} - ALLOWED[room]


def test_there_is_no_circle():
    assert len(list(TopologicalSorter(ALLOWED).static_order())) == len(ALLOWED)


@pytest.mark.parametrize("module", sorted(BESIDE))
def test_modules_beside_the_rooms_import_no_room(module):
    assert not rooms([PACKAGE / f"{module}.py"]) & set(ALLOWED)


def test_the_package_imports_nothing_of_scripts():
    own = {path.stem for path in (PACKAGE.parent / "scripts").iterdir()}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert not {name.split(".")[0] for name in names} & own, path
