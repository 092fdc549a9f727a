"""Tables of what ``lmms-tokendrop compare`` ran."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmms_tokendrop.markdown import NOT_MEASURED, code, escaped, markdown_table, number
from lmms_tokendrop.results.compared import FULL, Row, read_tasks
from lmms_tokendrop.results.statistics import mean_and_stderr

PLOT = "![Scores of the methods against their costs](compared.png)"

NOTES = """\
- ± is one standard error; differences are paired by document. A score without it is no mean over documents.
- tokens: visual tokens that a decoder layer receives (`input`), or that its drop leaves (`release`); mean over layers.
- MACs: multiply-accumulates of the decoder's prefill, text included. KV: the cache when the answer ends.
- ms: per document, median of rounds in which all methods take turns (`--time`)."""


def compared_tables(results: Path) -> str:
    """The plot and the tables of all tasks, from the folder of the results files; empty before anything was run."""
    tasks = read_tasks(results / "compare")
    if not tasks:
        return ""
    tables = [f"`{task}`:\n\n{task_table(rows)}" for task, rows in tasks.items()]
    return "\n\n".join([PLOT, *tables, NOTES])


def task_table(rows: Sequence[Row]) -> str:
    """Every row as Markdown, and below them why some have no result; empty without any result.

    Parameters
    ----------
    rows
        Of one task. The first method in them is the one that others are compared with, beside the unreduced model.
    """
    done = [row for row in rows if not row.reason]
    if not done:
        return ""
    scale = score_scale(done)
    labels = {row.label for row in done}
    leader = next((row.label for row in rows if row.label in labels - {FULL}), FULL)
    score = escaped(done[0].metric) + (", %" if scale == 100 else "")
    header = ("budget", "method", score, "minus full", f"{escaped(leader)} minus it", "tokens (input)")
    header += ("tokens (release)", "MACs, G", "KV, kB", "ms")
    lines = []
    for row in rows:
        what = (row.setting, code(row.label))
        if row.reason:
            lines.append((*what, row.reason.partition(":")[0], *[""] * (len(header) - 3)))
            continue
        full = _find(done, FULL, row, anywhere=True)
        ahead = None if row.budget is None else _find(done, leader, row)
        gaps = (_gap(row, full, scale), _gap(ahead, row, scale))
        lines.append((*what, measured(row.scores, row.value, scale), *gaps, *_costs(row)))
    reasons = [f"- {code(row.label)}, {row.setting}: {escaped(row.reason)}" for row in rows if row.reason]
    return "\n\n".join(filter(None, (_caption(done), markdown_table(header, lines), "\n".join(reasons))))


def score_scale(rows: Sequence[Row]) -> int:
    """100 where every score is from 0 to 1, and shown in percent; else 1."""
    values = (value for row in rows for value in (row.value, *(row.scores or ())))
    return 100 if all(0 <= value <= 1 for value in values) else 1


def _find(rows: Sequence[Row], label: str, beside: Row, anywhere: bool = False) -> Row | None:
    """The row of a label in the same setting, or in any."""
    return next((row for row in rows if row.label == label and (anywhere or row.setting == beside.setting)), None)


def _gap(row: Row | None, other: Row | None, scale: int) -> str:
    if row is None or other is None or row is other:
        return ""
    return measured(row.minus(other), row.value - other.value, scale, "+.1f")


def measured(scores: Sequence[float] | None, value: float, scale: int, form: str = ".1f") -> str:
    """A mean with its standard error, where there are scores of at least two documents."""
    if scores is None or len(scores) < 2:
        return number(scale * value, form)
    mean, stderr = mean_and_stderr(scores)
    return f"{number(scale * mean, form)} ± {number(scale * stderr, '.1f')}"


def _costs(row: Row) -> tuple[str, ...]:
    cost = row.cost
    return (
        number(cost["visual_tokens"], ".1f"),
        number(cost["visual_tokens_release"], ".1f"),
        number(cost["decoder_macs"] / 1e9, ".3f") if cost["decoder_macs"] else "",
        number(cost["kv_bytes"] / 1000, ".0f") if cost["kv_bytes"] else "",
        NOT_MEASURED if row.seconds is None else number(1000 * row.seconds, ".0f"),
    )


def _caption(rows: Sequence[Row]) -> str:
    documents, tokens = rows[0].documents, rows[0].cost["full_visual_tokens"]
    seeds = {code(row.label): row.seeds for row in rows if row.seeds > 1}
    means = "".join(f" {label}: mean of {count} seeds." for label, count in seeds.items())
    return f"{number(documents, 'd')} documents, {number(tokens, '.1f')} visual tokens each.{means}"
