"""Pictures drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from lmms_tokendrop.report.picture import Line, Panel, Picture, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^v<>pPX*"
PALETTES = "tab10", "Dark2"
"""Of matplotlib; colours of lines in this order."""

FIXED = {"svg.hashsalt": "lmms-tokendrop", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
"""Settings with which the same numbers give the same file, whose text stays text."""


def drawn(pictures: Sequence[Picture]) -> Figure:
    """Draw pictures, a row of panels each, with one legend for all.

    Parameters
    ----------
    pictures
        All with bars, or all with lines.

    Returns
    -------
    matplotlib.figure.Figure
        Lines with their error bars, or bars, and the unreduced model's level.
    """
    from matplotlib.figure import Figure

    columns = max(len(picture.panels) for picture in pictures)
    bars = pictures[0].panels[0].up is None
    height = 1.1 + 0.24 * max(len(picture.lines) for picture in pictures) if bars else 3.8
    figure = Figure(figsize=(4.2 * columns + (1.4 if bars else 0), height * len(pictures) + 0.6), layout="constrained")
    grid = figure.subplots(len(pictures), columns, squeeze=False, sharey="row")
    for axes, picture in zip(grid, pictures, strict=True):
        axes[0].set_title(picture.title, fontsize="medium", loc="left")
        for place in axes[len(picture.panels) :]:
            place.set_axis_off()
        for place, panel in zip(axes, picture.panels, strict=False):
            (_bars if bars else _lines)(place, picture, panel)
    shown: dict[str, Any] = {}
    for place in grid.flat:
        shown.update(zip(*reversed(place.get_legend_handles_labels()), strict=True))
    if shown:
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def svg(picture: Picture) -> str:
    """The drawing of one picture, as a document of SVG that is the same for the same numbers."""
    from matplotlib import rc_context

    written = StringIO()
    with rc_context(FIXED):
        drawn([picture]).savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue()


def _lines(place: Axes, picture: Picture, panel: Panel) -> None:
    colours, names = _colours(), _names(picture)
    for line in picture.lines:
        number = names.index(_name(line))
        points = [point.values for point in line.points if {panel.across, panel.up} <= point.values.keys()]
        points.sort(key=lambda values: values[panel.across].mean)
        if points:
            place.errorbar(
                [values[panel.across].mean for values in points],
                [values[panel.up].mean for values in points],
                _error([values[panel.up] for values in points]),
                label=line.label,
                linestyle=line.style,
                color=colours[number % len(colours)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
            )
    if panel.up in picture.levels:
        place.axhline(picture.levels[panel.up], color="0.4", linestyle="--", label="all tokens")
    there = [point.values[panel.across].mean for _, point in picture.points() if panel.across in point.values]
    place.set(xlabel=panel.across, xlim=(0, 1.05 * max(there, default=0) or 1))
    if place.get_subplotspec().is_first_col():
        place.set_ylabel(panel.up)


def _names(picture: Picture) -> list[str]:
    return list(dict.fromkeys(map(_name, picture.lines)))


def _name(line: Line) -> str:
    """What has a colour and a marker of its own: the line's label without a note in brackets."""
    return line.label.partition(" (")[0]


def _colours() -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    return [colour for palette in PALETTES for colour in colormaps[palette].colors]


def _bars(place: Axes, picture: Picture, panel: Panel) -> None:
    found = [(number, line.points[0].values.get(panel.across)) for number, line in enumerate(picture.lines)]
    there = [(number, value) for number, value in found if value is not None]
    numbers, values = zip(*there, strict=True)
    lengths = [value.mean for value in values]
    place.barh(numbers, lengths, xerr=_error(values), color="C0", height=0.7)
    place.set_yticks(range(len(picture.lines)), [line.label for line in picture.lines])
    place.set_ylim(len(picture.lines) - 0.4, -0.6)
    place.set(xlabel=panel.across)
    if panel.across in picture.levels:
        place.axvline(picture.levels[panel.across], color="0.4", linestyle="--", label="all tokens")


def _error(values: Sequence[Value]) -> list[list[float]] | None:
    """Lengths of the error bars below and above; None where no value has one."""
    if all(value.low is None for value in values):
        return None
    return [
        [0.0 if value.low is None else value.mean - value.low for value in values],
        [0.0 if value.high is None else value.high - value.mean for value in values],
    ]
