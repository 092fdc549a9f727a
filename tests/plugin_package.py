"""The package of `docs/design.md`: a method in one file, and an entry point that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from documents import PAGES, blocks

EXAMPLE = PAGES["design.md"].read_text().split("## Add a method")[1].split("\n## ")[0]
METHOD, ENTRY = blocks(EXAMPLE, "python")
[PROJECT] = blocks(EXAMPLE, "toml")
FILE = "centre_drop_reducer"


def write_plugin(folder: Path, module: str = FILE, method: str = METHOD) -> Path:
    """Write the package to a folder, as an installer would; `module` is the name of the method's file."""
    project = tomllib.loads(PROJECT)["project"]
    package, record = folder / "centre_drop", folder / f"centre_drop-{project['version']}.dist-info"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(ENTRY.replace(FILE, module))
    (package / f"{module}.py").write_text(method)
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (record / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder
