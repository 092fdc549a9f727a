"""Sections of `scripts/measure_budgets.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmms_tokendrop.report.picture import Line, Panel, Picture, Point, Value, drawable
from lmms_tokendrop.report.section import Section
from lmms_tokendrop.results.budget_names import ABLATED_RATIOS, COUNTERS, PARTS, RATIOS, TEXT_RATIOS
from lmms_tokendrop.results.budgets import METHODS, Result, ablation, ablation_rows, budget_rows, result
from lmms_tokendrop.results.statistics import mean_and_stderr

ACCURACY = "accuracy, %"
AXES: dict[str, Callable[[Result], float | None]] = {
    "visual tokens that a layer receives": lambda one: one.visual_tokens,
    "visual tokens after each layer's drop": lambda one: one.visual_tokens_release,
    "ms a question": lambda one: None if one.seconds is None else 1000 * one.seconds,
}
"""What stands to the right: tokens of budgets by either counter, and time of those by the input counter."""

READ = {"input": (0, 2), "release": (1,)}
"""Which of `AXES` have the budgets of a counter."""


def is_budgets(found: Any) -> bool:
    """Whether a file's content is of this kind."""
    return isinstance(found, dict) and isinstance(found.get("full"), dict) and "scores" in found["full"]


def budget_sections(name: str, found: Mapping[str, Any]) -> list[Section]:
    """Methods at equal budgets, and MustDrop with one option changed, as far as the file has rows of them."""
    sections = []
    if any(isinstance(result(found, "uniform", "input", ratio), Result) for ratio in RATIOS):
        title = f"Budgets, {name}"
        picture = budget_picture(title, found)
        sections.append(Section(title, budget_rows(found), list(filter(None, [picture]))))
    parts = [what for what in PARTS | TEXT_RATIOS if any(name.endswith(f", {what}") for name in found)]
    if parts:
        title = f"Stages and options of MustDrop, {name}"
        picture = ablation_picture(title, found, parts)
        sections.append(Section(title, ablation_rows(found, parts), list(filter(None, [picture]))))
    return sections


def budget_picture(title: str, found: Mapping[str, Any]) -> Picture | None:
    """Accuracy of every method against its tokens by both counters and its time."""
    full = Result.of([found["full"]])
    lines = []
    for method in METHODS:
        points = []
        for counter in COUNTERS:
            for ratio in sorted(RATIOS):
                one = result(found, method, counter, ratio)
                if isinstance(one, Result):
                    points.append(Point(_values(one, counter), f"{ratio:.0%}, {counter}"))
        lines.append(Line(method, points))
    title = f"{title}, {len(full.scores)} questions"
    return drawable(Picture(title, [Panel(name, ACCURACY) for name in AXES], lines, {ACCURACY: _accuracy(full).mean}))


def ablation_picture(title: str, found: Mapping[str, Any], parts: Sequence[str]) -> Picture | None:
    """Accuracy with one of the `parts` changed, as bars beside the defaults."""
    results = ablation(found, parts)
    names = {ratio: f"accuracy at {ratio:.0%}, %" for ratio in ABLATED_RATIOS}
    lines = []
    for what in ("", *parts):
        there = {names[ratio]: results[what, ratio] for ratio in ABLATED_RATIOS}
        values = {name: _accuracy(one) for name, one in there.items() if isinstance(one, Result)}
        lines.append(Line(what or "defaults", [Point(values)]))
    return drawable(Picture(title, [Panel(name) for name in names.values()], lines))


def _values(one: Result, counter: str) -> dict[str, Value]:
    names = [list(AXES)[place] for place in READ[counter]]
    costs = {name: AXES[name](one) for name in names}
    return {ACCURACY: _accuracy(one), **{name: Value(cost) for name, cost in costs.items() if cost is not None}}


def _accuracy(one: Result) -> Value:
    mean, stderr = mean_and_stderr(one.scores)
    return Value.of(100 * mean, 100 * stderr)
