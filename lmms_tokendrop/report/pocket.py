"""Sections of what the bundled models were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmms_tokendrop.markdown import escaped, markdown_table, number
from lmms_tokendrop.report.picture import Line, Panel, Picture, Point, Value, drawable
from lmms_tokendrop.report.section import Section
from lmms_tokendrop.results.pocket_encoders import FULL, encoder_rows, loss_rows, type_rows

ACCURACY = "accuracy, %"


def encoder_section(title: str, measured: Mapping[str, Any]) -> Section:
    """An encoder: every table that `scripts/pocket_experiments.py` lists, and accuracy against cost of all rows."""
    tables = [f"{escaped(name).capitalize()}:\n\n{encoder_rows(measured, name)}" for name in measured["tables"]]
    tables += [
        f"PuMer's loss by seed:\n\n{loss_rows(measured)}",
        f"Accuracy by type of question:\n\n{type_rows(measured)}",
    ]
    rows = measured["rows"]
    labels = dict.fromkeys(label for table in measured["tables"].values() for label in table if label in rows)
    lines = [Line(label, [Point(_costs(rows[label], rows[FULL]))], "none") for label in labels if label != FULL]
    panels = [Panel(name, ACCURACY) for name in ("image tokens", "MACs, % of full", "speed-up")]
    picture = drawable(Picture(title, panels, lines, {ACCURACY: 100 * rows[FULL]["accuracy"]}))
    return Section(title, "\n\n".join(tables), [] if picture is None else [picture])


def _costs(row: Mapping[str, Any], full: Mapping[str, Any]) -> dict[str, Value]:
    values = {
        ACCURACY: Value.of(100 * row["accuracy"], 100 * row["accuracy_stderr"]),
        "image tokens": Value(row["visual_tokens"]),
        "MACs, % of full": Value(100 * row["macs"] / full["macs"]),
    }
    speed = row.get("speed_up")
    return values if speed is None else {**values, "speed-up": Value(speed["median"], speed["low"], speed["high"])}


def baseline_sections(title: str, measured: Mapping[str, Any]) -> list[Section]:
    """The pocket LLaVA-NeXT of `scripts/measure_pocket_llava_next.py`, a section for each task."""
    return [
        _baselines(f"{title}, {task}", measured[task]) for task in ("pocket_scenes", "easy_vqa") if task in measured
    ]


def _baselines(title: str, task: Mapping[str, Any]) -> Section:
    found = {name: row for name, row in task.items() if isinstance(row, dict) and "accuracy" in row}
    values = {
        name.replace("_", " "): Value.of(
            100 * row["accuracy"], 100 * row["standard_error"] if "standard_error" in row else None
        )
        for name, row in found.items()
    }
    picture = Picture(title, [Panel(ACCURACY)], [Line(name, [Point({ACCURACY: one})]) for name, one in values.items()])
    rows = [(escaped(name), str(value)) for name, value in values.items()]
    parts = [f"{number(task['questions'], 'd')} questions.", markdown_table(("", ACCURACY), rows)]
    if "by_type" in task:
        parts.append(_types(task["by_type"]))
    return Section(title, "\n\n".join(parts), [picture])


def _types(by_type: Mapping[str, Mapping[str, float]]) -> str:
    columns = [name for name in by_type if name != "questions"]
    rows = [
        (escaped(kind), number(count, "d"), *(number(100 * by_type[name][kind], ".1f") for name in columns))
        for kind, count in by_type["questions"].items()
    ]
    header = ("type of question", "questions", *(f"{escaped(name.replace('_', ' '))}, %" for name in columns))
    return markdown_table(header, rows)
