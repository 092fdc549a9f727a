"""What a picture shows, before it is drawn: the same numbers give the drawing, its alternative text and its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lmms_tokendrop.markdown import escaped, markdown_table, number


@dataclass(frozen=True)
class Value:
    """A number, and the ends of its error bar if it has one.

    Parameters
    ----------
    mean
        The number: a mean, or a median.
    low, high
        Standard errors below and above, or the smallest and largest.

    Raises
    ------
    ValueError
        If one of them is infinite or not a number.
    """

    mean: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for value in (self.mean, self.low, self.high):
            if value is not None:
                number(value)

    @classmethod
    def of(cls, mean: float, stderr: float | None = None) -> Value:
        """A mean with its standard error."""
        return cls(mean) if stderr is None else cls(mean, mean - stderr, mean + stderr)

    def __str__(self) -> str:
        mean = number(self.mean, ".4g")
        return mean if self.low is None else f"{mean} ({number(self.low, '.4g')} to {number(self.high, '.4g')})"


@dataclass(frozen=True)
class Point:
    """Quantities of one setting, by their names with the unit.

    Parameters
    ----------
    values
        The quantities; one that was not measured is left out.
    label
        The setting.
    """

    values: Mapping[str, Value]
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Points that belong together, such as a method at several budgets.

    Parameters
    ----------
    label
        Its name.
    points
        In any order; one of them for a bar.
    style
        Of the line: ``"-"``, ``":"``, or ``"none"`` for points alone.
    """

    label: str
    points: Sequence[Point]
    style: str = "-"


@dataclass(frozen=True)
class Panel:
    """A part of a picture.

    Parameters
    ----------
    across
        The quantity to the right.
    up
        The quantity upwards; None: a bar for each line.
    """

    across: str
    up: str | None = None


@dataclass(frozen=True)
class Picture:
    """Panels of the same lines.

    Parameters
    ----------
    title
        What it shows.
    panels
        From left to right, all with bars or none.
    lines
        What is drawn.
    levels
        Quantities of the unreduced model, drawn as a dashed line.
    """

    title: str
    panels: Sequence[Panel]
    lines: Sequence[Line]
    levels: Mapping[str, float] = field(default_factory=dict)

    @property
    def quantities(self) -> list[str]:
        """Names of what is drawn, each once."""
        names = (name for panel in self.panels for name in (panel.across, panel.up) if name)
        return list(dict.fromkeys(names))

    def points(self) -> Iterator[tuple[Line, Point]]:
        """All points, with the line of each."""
        return ((line, point) for line in self.lines for point in line.points)

    @property
    def alternative(self) -> str:
        """What stands in its place for who does not see it; the numbers are in `table`."""
        shown = {panel.up: [] for panel in self.panels}
        for panel in self.panels:
            shown[panel.up].append(panel.across)
        what = "; ".join(
            f"{'bars of' if up is None else f'{up} against'} {', '.join(across)}" for up, across in shown.items()
        )
        return f"{self.title}: {what}. Shown are {', '.join(line.label for line in self.lines)}."

    @property
    def table(self) -> str:
        """The numbers, in Markdown."""
        settings = any(point.label for _, point in self.points())
        header = ["", *(["setting"] if settings else []), *map(escaped, self.quantities)]
        rows = [
            [
                escaped(line.label),
                *([escaped(point.label)] if settings else []),
                *(str(point.values[name]) if name in point.values else "" for name in self.quantities),
            ]
            for line, point in self.points()
        ]
        if self.levels:
            level = [number(self.levels[name], ".4g") if name in self.levels else "" for name in self.quantities]
            rows.append(["all tokens", *([""] if settings else []), *level])
        return markdown_table(header, rows)


def drawable(picture: Picture) -> Picture | None:
    """The picture with the panels that some point has numbers for; None without any."""
    there = [point.values.keys() for _, point in picture.points()]
    panels = [panel for panel in picture.panels if any({panel.across, panel.up} - {None} <= names for names in there)]
    return Picture(picture.title, panels, picture.lines, picture.levels) if panels else None
