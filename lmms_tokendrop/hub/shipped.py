"""Files that lie beside the package in the source tree and in it once it is installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(name: str, package: Path = PACKAGE) -> Path:
    """A file of the installed package, else the source tree's."""
    installed = package / name
    return installed if installed.exists() else package.parent / name
