"""The files of an exported folder. No link is followed, whatever it leads to."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "tokendrop_export.json"
CARD = "README.md"
LICENSE = "LICENSE"
SUFFIXES = (".json", ".py", ".safetensors", ".jinja", ".txt", ".model", ".png")
"""Kinds of files that a folder may have beside its card and its licence. None is unpickled or run by itself."""


def exported_files(folder: Path) -> dict[str, Path]:
    """Find every file of a folder and check its kind.

    Parameters
    ----------
    folder
        An export, as far as one is asked for by name.

    Returns
    -------
    dict
        Path of each file by its name, sorted.

    Raises
    ------
    ValueError
        If the folder or anything in it is a link, or if it holds a folder or a file of another kind.
    OSError
        If there is no such folder.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link; name the folder that it leads to")
    files = {}
    for path in sorted(folder.iterdir()):
        known = path.name in (CARD, LICENSE) or path.suffix in SUFFIXES
        if path.is_symlink() or not path.is_file() or not known:
            raise ValueError(
                f"{path.name}: not allowed in an exported folder; only {CARD}, {LICENSE} and files "
                f"{', '.join(SUFFIXES)}, none of them a link"
            )
        files[path.name] = path
    return files


def refuse_links(folder: Path) -> None:
    """Fail if a folder, or anything in it at any depth, is a link."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a link, and none is followed; put the file itself there")
