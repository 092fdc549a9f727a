"""What papers publish of real checkpoints, beside what was planned or measured here; from `published.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_tokendrop import catalogue
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.markdown import NOT_MEASURED, escaped, markdown_table, number
from lmms_tokendrop.results.compared import FULL, Row, read_tasks
from lmms_tokendrop.results.compared_table import score_scale
from lmms_tokendrop.results.measured import measured_table
from lmms_tokendrop.results.planned import FILE as PLANNED
from lmms_tokendrop.results.planned import figures

FILE = "published.json"
RUNS = "compare_{model}"
"""Folder of the runs of a model, in that of the results files."""

TASKS = {"gqa": "GQA", "textvqa_val": "TextVQA", "pope": "POPE"}
"""Tasks of lmms-eval that fill the cells, and what the tables call them."""

AGREES, NEAR = 0.01, 0.1
"""Relative differences up to which two figures agree, or are near."""


def published_costs(results: Path) -> str:
    """Published figures of costs, and those planned here under the nearest convention."""
    path = results / PLANNED
    planned = read_json_object(path) if path.exists() else {}

    def render(found: Mapping[str, Any]) -> str:
        header = ("what", "published", "planned here", "agreement", "method, budget, counter", "source", "convention")
        return markdown_table(header, [_claim(claim, planned) for claim in found["costs"]])

    return measured_table(FILE, render)(results)


def published_table(model: str) -> Callable[[Path], str]:
    """Published scores of a model, a table for each source, and the command that measures the same here.

    Parameters
    ----------
    model
        Its name in the file.

    Returns
    -------
    Callable
        From the folder of the results files to the tables.
    """

    def table(results: Path) -> str:
        ours = read_tasks(results / RUNS.format(model=model))

        def render(found: Mapping[str, Any]) -> str:
            tables = found["accuracy"][model]
            return "\n\n".join([*(_scores(one, ours) for one in tables), _command(model, tables)])

        return measured_table(FILE, render)(results)

    return table


def _claim(claim: Mapping[str, Any], planned: Mapping[str, Any]) -> tuple[str, ...]:
    published, what = claim["published"], claim["ours"]
    found = planned.get(what["model"], {"rows": ()})
    costs = [
        row["costs"]
        for row in found["rows"]
        if all(row[name] == what[name] for name in ("method", "budget", "counter"))
    ]
    ours = figures(costs[0], found["unreduced"])[what["figure"]] if costs else None
    unit, source, convention = (escaped(claim[name]) for name in ("unit", "source", "convention"))
    return (
        escaped(claim["claim"]),
        f"{number(published, '.1f')} {unit}",
        NOT_MEASURED if ours is None else f"{number(ours, '.1f')} {unit}",
        "" if ours is None else _agreement(ours, published),
        escaped(f"{what['method']}, {what['budget']}, {what['counter']}"),
        source,
        convention,
    )


def _agreement(ours: float, published: float) -> str:
    """How far two figures are apart, in a word."""
    apart = abs(ours - published) / published
    return "agrees" if apart <= AGREES else "near" if apart <= NEAR else "differs"


def _scores(table: Mapping[str, Any], ours: Mapping[str, Sequence[Row]]) -> str:
    columns = table["columns"]
    lines = [
        (
            number(row["tokens"], "d"),
            escaped(row["method"]),
            *(f"{row['values'][name]:g}" if name in row["values"] else "" for name in columns),
            _ours(row, ours),
        )
        for row in table["rows"]
    ]
    header = ("tokens", "method", *map(escaped, columns), "ours")
    return f"{escaped(table['source'])}: {escaped(table['convention'])}.\n\n{markdown_table(header, lines)}"


def _ours(published: Mapping[str, Any], ours: Mapping[str, Sequence[Row]]) -> str:
    """Scores of the same method and budget here, of each task that was run."""
    wanted = (FULL, None) if published["ours"] == "none" else (published["ours"], str(published["tokens"]))
    scores = []
    for task, rows in ours.items():
        scale = score_scale([row for row in rows if not row.reason])
        found = [row.value for row in rows if (row.label, row.budget) == wanted and not row.reason]
        scores += [f"{TASKS.get(task, escaped(task))} {number(scale * value, '.1f')}" for value in found]
    return ", ".join(scores) or NOT_MEASURED


def _command(model: str, tables: Sequence[Mapping[str, Any]]) -> str:
    """What fills the cells."""
    rows = [row for table in tables for row in table["rows"] if row["ours"] not in (None, "none")]
    known = [method.name for method in catalogue.methods()]
    methods = sorted({row["ours"] for row in rows}, key=lambda label: (known.index(label.partition(":")[0]), label))
    budgets = sorted({row["tokens"] for row in rows}, reverse=True)
    command = (
        f"lmms-tokendrop compare --pretrained llava-hf/{model}-hf --task {','.join(TASKS)} "
        f"--methods {','.join(methods)} --budgets {','.join(map(str, budgets))} --counter release "
        f"--model-args dtype=float16 --out model_cards/results/{RUNS.format(model=model)}"
    )
    return f'The command that fills the column "ours", before `python scripts/render_docs.py`:\n\n`{command}`'
