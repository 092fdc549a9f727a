"""A plot of accuracy against visual tokens and against time, from what `scripts/measure_budgets.py` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmms_tokendrop.results.budget_names import COUNTERS, RATIOS
from lmms_tokendrop.results.budgets import METHODS, Result, result
from lmms_tokendrop.results.statistics import mean_and_stderr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "input": ("visual tokens that a layer receives", lambda one: one.visual_tokens),
    "release": ("visual tokens after each layer's drop", lambda one: one.visual_tokens_release),
    "time": ("ms a question", lambda one: None if one.seconds is None else 1000 * one.seconds),
}
"""What stands to the right in each column: budgets by either counter, and time of those by the input counter."""


def accuracy_plot(tasks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw a row of panels for each task: a line for each method, and the unreduced model's level.

    Parameters
    ----------
    tasks
        Title of a row, and its results file.

    Returns
    -------
    matplotlib.figure.Figure
        Accuracy in percent with its standard error upwards.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.1 * len(tasks)), layout="constrained")
    rows = figure.subplots(len(tasks), len(AXES), squeeze=False, sharey="row")
    for panels, (title, found) in zip(rows, tasks.items(), strict=True):
        full = Result.of([found["full"]])
        level = 100 * mean_and_stderr(full.scores)[0]
        for panel, axis in zip(panels, AXES, strict=True):
            panel.axhline(level, color="0.4", linestyle="--", label="all tokens")
            for method in METHODS:
                _line(panel, axis, method, found)
            panel.set(xlabel=AXES[axis][0], xlim=0, title=f"{title}, {len(full.scores)} questions")
        panels[0].set_ylabel("accuracy, %")
    rows[0][0].legend(frameon=False)
    return figure


def _line(panel: Axes, axis: str, method: str, found: Mapping[str, Any]) -> None:
    counter = axis if axis in COUNTERS else "input"
    results = [result(found, method, counter, ratio) for ratio in sorted(RATIOS)]
    places = [(AXES[axis][1](one), one) for one in results if isinstance(one, Result)]
    points = [(place, *mean_and_stderr(one.scores)) for place, one in places if place is not None]
    if points:
        across, accuracy, stderr = zip(*points, strict=True)
        heights, bars = [100 * value for value in accuracy], [100 * value for value in stderr]
        panel.errorbar(across, heights, bars, marker="o", markersize=4, capsize=2, label=method)
