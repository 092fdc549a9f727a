"""Plots of scores against tokens, MACs, cache bytes and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from lmms_tokendrop.results.compared import FULL, Row
from lmms_tokendrop.results.compared_table import score_scale
from lmms_tokendrop.results.statistics import mean_and_stderr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES: dict[str, Callable[[Row], float | None]] = {
    "visual tokens that a layer receives": lambda row: row.cost["visual_tokens"],
    "MACs of the decoder's prefill, G": lambda row: row.cost["decoder_macs"] / 1e9,
    "cache, kB": lambda row: row.cost["kv_bytes"] / 1000,
    "ms a document": lambda row: None if row.seconds is None else 1000 * row.seconds,
}
"""What stands to the right in each column; one that no row has is left out."""

MARKERS = "osD^v<>pPX*"


def comparison_plot(tasks: Mapping[str, Sequence[Row]]) -> Figure:
    """Draw a row of panels for each task: a line for each method, and the unreduced model's level.

    Parameters
    ----------
    tasks
        Rows of each task, with a result in at least one.

    Returns
    -------
    matplotlib.figure.Figure
        Scores upwards, with their standard errors. Methods in a setting of their own are a point without a line.
    """
    from matplotlib.figure import Figure

    there = {task: [row for row in rows if not row.reason] for task, rows in tasks.items()}
    axes = {label: place for label, place in AXES.items() if any(map(place, chain(*there.values())))}
    figure = Figure(figsize=(4.2 * len(axes), 3.6 * len(there) + 0.8), layout="constrained")
    grid = figure.subplots(len(there), len(axes), squeeze=False, sharey="row")
    for panels, (task, done) in zip(grid, there.items(), strict=True):
        for panel, (label, place) in zip(panels, axes.items(), strict=True):
            _draw(panel, done, place)
            panel.set(xlabel=label, xlim=(0, None), title=task)
        panels[0].set_ylabel(done[0].metric + (", %" if score_scale(done) == 100 else ""))
    shown: dict[str, Any] = {}
    for panel in grid.flat:
        shown.update(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def _draw(panel: Axes, rows: Sequence[Row], place: Callable[[Row], float | None]) -> None:
    scale = score_scale(rows)
    labels = list(dict.fromkeys(row.label for row in rows if row.label != FULL))
    for number, label in enumerate(labels):
        of_label = [row for row in rows if row.label == label and place(row)]
        style = {"color": f"C{number % 10}", "marker": MARKERS[number % len(MARKERS)], "markersize": 4, "capsize": 2}
        for counter in dict.fromkeys(row.counter for row in of_label):
            points = sorted((place(row), *_height(row)) for row in of_label if row.counter == counter)
            across, heights, bars = zip(*points, strict=True)
            name = label if counter != "release" else f"{label} (release)"
            dashes = {"release": ":", None: "none"}.get(counter, "-")
            panel.errorbar(
                across, [scale * value for value in heights], [scale * value for value in bars],
                label=name, linestyle=dashes, **style,
            )  # fmt: skip
    for row in rows:
        if row.label == FULL:
            panel.axhline(scale * row.value, color="0.4", linestyle="--", label="all tokens")


def _height(row: Row) -> tuple[float, float]:
    """Score and standard error, 0 where there is none."""
    if row.scores is None or len(row.scores) < 2:
        return row.value, 0.0
    return mean_and_stderr(row.scores)
