"""Draw the rooms of the package and of its models into `docs/design.md`, from what their code imports."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "design.md"
PICTURES = {"package": ROOT / "lmms_tokendrop", "modeling": ROOT / "lmms_tokendrop" / "modeling"}
"""Folder whose rooms each picture shows."""

PICTURE = re.compile(r"(<!-- picture: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def imported(path: Path, folder: Path) -> Iterator[str]:
    """Full names, from `folder` on, of the modules and objects that a file imports from it."""
    here = path.relative_to(folder.parent).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join((*here[: -node.level], *filter(None, [node.module]))) if node.level else node.module
            names = [f"{package}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            _, inside, after = f".{name}".partition(f".{folder.name}.")
            if inside:
                yield after


def rooms(folder: Path) -> dict[str, set[str]]:
    """The rooms of a folder, and for each the others that its code imports."""
    names = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
    found = {}
    for room in names:
        paths = (folder / room).rglob("*.py")
        found[room] = {name.split(".")[0] for path in paths for name in imported(path, folder)} & set(names) - {room}
    return found


def reached(room: str, edges: Mapping[str, set[str]]) -> set[str]:
    """Rooms that another one reaches over any number of edges."""
    return set().union(*({other} | reached(other, edges) for other in edges[room]))


def arrows(edges: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The edges without those that others imply. There must be no circle."""
    return [
        (room, other)
        for room, others in edges.items()
        for other in sorted(others)
        if not any(other in reached(between, edges) for between in others - {other})
    ]


def drawn(text: str) -> str:
    """A page with its pictures drawn anew."""

    def draw(match: re.Match) -> str:
        lines = [f"    {room} --> {other}" for room, other in arrows(rooms(PICTURES[match[2]]))]
        return "\n".join([f"{match[1]}```mermaid", "flowchart TD", *lines, f"```\n{match[3]}"])

    return PICTURE.sub(draw, text)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
