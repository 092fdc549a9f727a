"""The composition that validation data chose at each budget, beside the best single method, there and on the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmms_tokendrop.markdown import NOT_MEASURED, code, markdown_table
from lmms_tokendrop.results.compared import VALIDATION, Row, read_rows, read_tasks
from lmms_tokendrop.results.compared_table import measured, score_scale

COMPOSED = "composed"
"""The method of a composition, with which its label begins."""

FOLDER = "compositions"
"""Of the runs, in that of the results files."""

HEADER = ("task", "budget", "composition", "validation", "best single", "ahead by", "task", "best single", "ahead by")


def compositions_table(results: Path) -> str:
    """A row for each task and budget, from the folder of the results files; `NOT_MEASURED` before anything was run.

    The composition is the best of those in `FOLDER` on the task's validation; what the last columns say was not known
    to the choice. Single methods of the task itself are also those of the comparison of all.
    """
    lines = []
    for name, tried in read_tasks(results / FOLDER).items():
        if not name.endswith(VALIDATION):
            continue
        task = name.removesuffix(VALIDATION)
        rows = [row for folder in (FOLDER, "compare") for row in read_rows(results / folder / task)]
        trials = [row for row in tried if not row.reason and row.budget is not None]
        for setting in dict.fromkeys(row.setting for row in trials):
            there = [row for row in trials if row.setting == setting]
            composed = [row for row in there if is_composed(row)]
            if not composed:
                continue
            chosen = max(composed, key=lambda row: row.value)
            own = [row for row in rows if row.setting == setting and not row.reason]
            found = next((row for row in own if row.label == chosen.label), None)
            lines.append((code(task), setting, code(chosen.label), *_beside(chosen, there), *_beside(found, own)))
    return markdown_table(HEADER, lines) if lines else NOT_MEASURED


def is_composed(row: Row) -> bool:
    """Whether a row is a composition's."""
    return row.label.partition(":")[0] == COMPOSED


def _beside(row: Row | None, rows: Sequence[Row]) -> tuple[str, str, str]:
    """Its score, the best single method of some rows with its score, and what it has more, paired by document."""
    single = max((other for other in rows if not is_composed(other)), key=lambda other: other.value, default=None)
    if row is None or single is None:
        return NOT_MEASURED, "", ""
    scale = score_scale(rows)
    scores = (measured(one.scores, one.value, scale) for one in (row, single))
    own, others = scores
    return own, f"{code(single.label)} {others}", measured(row.minus(single), row.value - single.value, scale, "+.1f")
