"""JSON files that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Any
        What it holds.

    Raises
    ------
    ValueError
        If it is no JSON; the message names the file and the place.
    OSError
        If it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The same for a file that holds an object; anything else is a ValueError too."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a JSON {type(found).__name__}; allowed: an object")
    return found
