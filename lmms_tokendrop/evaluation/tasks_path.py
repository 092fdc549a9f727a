"""Where the bundled lmms-eval tasks are."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def tasks_path(package: Path = PACKAGE) -> Path:
    """Return the folder for ``lmms-eval --include_path``: the installed one, else the source tree's.

    Parameters
    ----------
    package
        Folder of the package.

    Raises
    ------
    FileNotFoundError
        If neither folder has tasks.
    """
    folders = (package / "tasks", package.parent / "tasks")
    for folder in folders:
        if any(folder.glob("*/*.yaml")):
            return folder
    raise FileNotFoundError(f"no tasks in {' or '.join(map(str, folders))}; install the package again")
