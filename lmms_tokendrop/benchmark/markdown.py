"""Markdown tables of results files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NOT_MEASURED = "not measured"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read_results(path: Path) -> Any:
    """A results file, or None if there is none."""
    return json.loads(path.read_text()) if path.exists() else None
