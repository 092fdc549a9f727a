"""What a card was made for: a comment at its end, which `push` reads."""

from __future__ import annotations

import re
from pathlib import Path

from lmms_tokendrop.hub.folder import CARD, MANIFEST
from lmms_tokendrop.hub.manifest import Manifest, sha256

STAMP = re.compile(r"<!-- lmms-tokendrop card: (?P<repo_id>\S+) (?P<tag>\S+) (?P<export>[0-9a-f]{64}) -->")


def stamp(folder: Path, repo_id: str, tag: str) -> str:
    """The comment for a folder's card: repository, version, and the hash of the export's record."""
    return f"<!-- lmms-tokendrop card: {repo_id} {tag} {sha256(folder / MANIFEST)} -->"


def check_stamp(folder: Path, repo_id: str, tag: str) -> None:
    """Fail unless a folder has a card for this export, repository and version.

    Raises
    ------
    ValueError
        If there is none or another; the message has the command that makes it. The text may have been edited.
    """
    default = f"v{Manifest.read(folder).package_version}"
    command = f"lmms-tokendrop card {folder} {repo_id}{'' if tag == default else f' --tag {tag}'}"
    path = folder / CARD
    if not path.exists():
        raise ValueError(f"{folder} has no {CARD}; make it with {command}")
    found = STAMP.search(path.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise ValueError(f"{path} was not made by lmms-tokendrop card; make it with {command}")
    if (found["repo_id"], found["tag"]) != (repo_id, tag):
        other = f"{found['repo_id']} at {found['tag']}"
        raise ValueError(f"{path} is the card of {other}; make the right one with {command}")
    if found[0] != stamp(folder, repo_id, tag):
        raise ValueError(f"{path} is the card of another export; make the right one with {command}")
