"""Sections of ``lmms-tokendrop demo --output``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_tokendrop.markdown import code, escaped, markdown_table, number
from lmms_tokendrop.report.picture import Line, Panel, Picture, Point, Value, drawable
from lmms_tokendrop.report.section import Section

HEADER = ("variant", "budget", "accuracy, %", "to the first", "tokens", "KV, kB", "ms a question")
ACCURACY = "accuracy, %"


def is_demo(found: Any) -> bool:
    """Whether a file's content is of this kind."""
    names = {"model_id", "budget", "samples", "accuracy", "visual_tokens", "kv_bytes"}
    return (
        isinstance(found, list) and bool(found) and all(isinstance(row, dict) and row.keys() >= names for row in found)
    )


def demo_section(title: str, rows: Sequence[Mapping[str, Any]]) -> Section:
    """Accuracy and costs of the variants; the first row is the unreduced model."""
    methods: dict[str, list[Point]] = {}
    for row in rows[1:]:
        methods.setdefault(row["model_id"], []).append(Point(_values(row), row["budget"]))
    lines = [Line(name, points) for name, points in methods.items()]
    panels = [Panel(name, ACCURACY) for name in ("visual tokens that a layer receives", "cache, kB", "ms a question")]
    picture = drawable(Picture(title, panels, lines, {ACCURACY: 100 * rows[0]["accuracy"]}))
    text = f"{number(rows[0]['samples'], 'd')} questions.\n\n{markdown_table(HEADER, map(_line, rows))}"
    return Section(title, text, [] if picture is None else [picture])


def _values(row: Mapping[str, Any]) -> dict[str, Value]:
    stderr = row["accuracy_stderr"]
    return {
        ACCURACY: Value.of(100 * row["accuracy"], None if stderr is None else 100 * stderr),
        "visual tokens that a layer receives": Value(row["visual_tokens"]),
        "cache, kB": Value(row["kv_bytes"] / 1000),
        "ms a question": Value(1000 * row["seconds"]),
    }


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        code(row["model_id"]),
        escaped(row["budget"]),
        _percent(row["accuracy"], row["accuracy_stderr"], ".1f"),
        _percent(row["difference"], row["difference_stderr"], "+.1f"),
        number(row["visual_tokens"], ".1f"),
        number(row["kv_bytes"] / 1000, ".0f"),
        number(1000 * row["seconds"], ".0f"),
    )


def _percent(mean: float, stderr: float | None, form: str) -> str:
    """A share in percent, with its standard error if there is one."""
    shown = number(100 * mean, form)
    return shown if stderr is None else f"{shown} ± {number(100 * stderr, '.1f')}"
