"""Tables of the pocket encoders, from what `scripts/pocket_experiments.py` measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmms_tokendrop.benchmark.markdown import NOT_MEASURED, markdown_table, read_results
from lmms_tokendrop.pocket.experiments import EXPERIMENTS, FULL, Experiment

HEADER = ("", "accuracy, %", "difference to full", "image tokens", "MACs", "speed-up", "trained, steps")
WITHOUT_LOOKING = {
    "chance": "chance (1 / number of choices)",
    "most_frequent_answer_of_type": "most frequent answer of the question's type",
    "blind": "full, blind (a grey picture)",
}


def encoder_table(architecture: str, table: str) -> Callable[[Path], str]:
    """One of the tables of `pocket.experiments.EXPERIMENTS`; rows that were not run say so.

    Parameters
    ----------
    architecture, table
        Keys of `EXPERIMENTS`.

    Returns
    -------
    Callable
        From the folder of the results files to the table.
    """

    def render(results: Path) -> str:
        measured = read_results(results / f"pocket_{architecture}.json") or {}
        found = measured.get("rows", {})
        full = found.get(FULL.label)
        rows = [(entry, found.get(entry.label)) for entry in EXPERIMENTS[architecture][table]]
        lines = [_line(entry, row, full) for entry, row in rows]
        if table == "methods":
            lines += [_plain(name, measured.get("baselines", {}).get(key)) for key, name in WITHOUT_LOOKING.items()]
        return markdown_table(HEADER, lines)

    return render


def _line(entry: Experiment, row: dict[str, Any] | None, full: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None or full is None:
        return (entry.label, *[NOT_MEASURED] * (len(HEADER) - 1))
    difference = f"{100 * row['difference']:+.2f} ± {100 * row['difference_stderr']:.2f}"
    return (
        entry.label,
        f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_stderr']:.1f}",
        "" if entry == FULL else difference,
        f"{row['visual_tokens']:.1f} of {row['full_visual_tokens']:.0f}",
        f"{row['macs'] / full['macs']:.0%}",
        f"{row['speed_up']['median']:.2f}" if "speed_up" in row else NOT_MEASURED,
        str(row["trained_steps"]) if entry.trained else "none",
    )


def _plain(name: str, row: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return (name, *[NOT_MEASURED] * (len(HEADER) - 1))
    error = f" ± {100 * row['standard_error']:.1f}" if "standard_error" in row else ""
    return (name, f"{100 * row['accuracy']:.1f}{error}", "", "", "", "", "")
