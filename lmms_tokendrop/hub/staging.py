"""A folder that appears when it is complete, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK, CONTENT = "lock", "content"
"""What an unfinished folder holds: the lock of the process that fills it, and what it has written so far."""


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside the wanted one, which takes its place at the end.

    What killed processes left of the same name is removed first: folders that look like this one and whose lock nobody
    holds.

    Parameters
    ----------
    folder
        New folder, or an empty one.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    ValueError
        If the wanted folder is a link, a file, or not empty.
    OSError
        If it can't be written.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link; name the folder that it leads to")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{folder.name}-unfinished-"
    for left in folder.parent.iterdir():
        if left.name.startswith(prefix):
            _remove_if_abandoned(left)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        with FileLock(unfinished / LOCK, timeout=0):
            (unfinished / CONTENT).mkdir()
            yield unfinished / CONTENT
            (unfinished / CONTENT).replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a folder if it is an unfinished one and no process fills it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir()}
    if LOCK not in names or not names <= {LOCK, CONTENT}:
        return
    try:
        with FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder)
    except (Timeout, PermissionError):
        return  # it is being filled, or somebody else's
