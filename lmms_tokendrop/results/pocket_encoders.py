"""Tables of the pocket encoders, from what `scripts/pocket_experiments.py` measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED, markdown_table, number
from lmms_tokendrop.results.measured import measured_table

FULL = "full"
"""Row of the unreduced model."""
HEADER = ("", "accuracy, %", "difference to full", "image tokens", "MACs", "speed-up", "trained, steps")
WITHOUT_LOOKING = {
    "chance": "chance (1 / number of choices)",
    "most_frequent_answer_of_type": "most frequent answer of the question's type",
    "blind": "full, blind (a grey picture)",
}


def encoder_table(architecture: str, table: str) -> Callable[[Path], str]:
    """:func:`encoder_rows` of an architecture, from the folder of the results files."""
    return measured_table(f"pocket_{architecture}.json", lambda measured: encoder_rows(measured, table))


def encoder_rows(measured: Mapping[str, Any], table: str) -> str:
    """One of the tables that a results file lists, in Markdown; rows that were not run say so.

    Parameters
    ----------
    measured
        What the file holds.
    table
        Key of its ``tables``, which has the labels of the rows.
    """
    found = measured.get("rows", {})
    full = found.get(FULL)
    lines = [_line(label, found.get(label), full) for label in measured["tables"][table]]
    if table == "methods":
        lines += [_plain(name, measured.get("baselines", {}).get(key)) for key, name in WITHOUT_LOOKING.items()]
    return markdown_table(HEADER, lines)


def _line(label: str, row: dict[str, Any] | None, full: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None or full is None:
        return (label, *[NOT_MEASURED] * (len(HEADER) - 1))
    return (
        label,
        f"{number(100 * row['accuracy'], '.1f')} ± {number(100 * row['accuracy_stderr'], '.1f')}",
        ""
        if label == FULL
        else f"{number(100 * row['difference'], '+.2f')} ± {number(100 * row['difference_stderr'], '.2f')}",
        f"{number(row['visual_tokens'], '.1f')} of {number(row['full_visual_tokens'], '.0f')}",
        number(row["macs"] / full["macs"], ".0%"),
        number(row["speed_up"]["median"], ".2f") if "speed_up" in row else NOT_MEASURED,
        number(row["trained_steps"], "d") if row["trained_steps"] else "none",
    )


def _plain(name: str, row: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return (name, *[NOT_MEASURED] * (len(HEADER) - 1))
    error = f" ± {number(100 * row['standard_error'], '.1f')}" if "standard_error" in row else ""
    return (name, f"{number(100 * row['accuracy'], '.1f')}{error}", "", "", "", "", "")
