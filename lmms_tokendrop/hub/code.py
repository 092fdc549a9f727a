"""The code files of an exported folder."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

MODELING = Path(__file__).resolve().parent.parent / "modeling"
LIBRARIES = frozenset({"torch", "transformers"})
CLASS = re.compile(r"(?P<module>[A-Za-z_]\w*)\.[A-Za-z_]\w*")


def code_files(module: str, source: Path = MODELING) -> list[Path]:
    """Find the files that a module needs: itself and, through relative imports, its siblings.

    Parameters
    ----------
    module
        Name in `source`, without ``.py``.
    source
        Flat folder of modules.

    Returns
    -------
    list of Path
        Sorted by name.

    Raises
    ------
    ValueError
        If a file imports anything but the standard library, torch, transformers and its siblings.
    FileNotFoundError
        If what a file imports is not beside it.
    """
    from transformers.dynamic_module_utils import get_imports, get_relative_import_files

    start = source / f"{module}.py"
    files = sorted({start, *map(Path, get_relative_import_files(start))})
    for file in files:
        foreign = set(get_imports(file)) - LIBRARIES - sys.stdlib_module_names
        if foreign:
            raise ValueError(
                f"{file.name} imports {', '.join(sorted(foreign))}; allowed: the standard library, "
                f"{', '.join(sorted(LIBRARIES))} and siblings"
            )
    return files


def copy_code(module: str, folder: Path) -> None:
    """Copy what a module needs into a folder, unchanged."""
    for file in code_files(module):
        shutil.copyfile(file, folder / file.name)


def check_auto_map(auto_map: dict[str, str], files: set[str]) -> None:
    """Fail unless every class is in a file of the same folder.

    Parameters
    ----------
    auto_map
        As in a configuration.
    files
        Names of the folder's files.

    Raises
    ------
    ValueError
        For a reference to another repository, another folder, or a file that isn't there.
    """
    for auto_class, reference in auto_map.items():
        match = CLASS.fullmatch(reference) if isinstance(reference, str) else None
        if match is None or f"{match['module']}.py" not in files:
            raise ValueError(
                f"auto_map: {auto_class}={reference!r}; allowed: module.Class, with the module's file in the folder"
            )
