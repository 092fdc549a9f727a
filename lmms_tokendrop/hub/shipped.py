"""Files that lie beside the package in the source tree and in it once it is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(name: str, package: Path = PACKAGE) -> Path:
    """A file of the installed package, else the source tree's."""
    installed = package / name
    return installed if installed.exists() else package.parent / name


def license_text() -> str:
    """The licence of the code: that of the installed distribution, else the source tree's."""
    try:
        installed = distribution("lmms-tokendrop").read_text("licenses/LICENSE")
    except PackageNotFoundError:
        installed = None
    return installed or (PACKAGE.parent / "LICENSE").read_text(encoding="utf-8")
