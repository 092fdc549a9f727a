"""Sections of ``lmms-tokendrop compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmms_tokendrop.report.picture import Line, Panel, Picture, Point, Value, drawable
from lmms_tokendrop.report.section import Section
from lmms_tokendrop.results.compared import FULL, Row
from lmms_tokendrop.results.compared_table import NOTES, score_scale, task_table
from lmms_tokendrop.results.statistics import mean_and_stderr

TOKENS, MACS, CACHE, TIME = (
    "visual tokens that a layer receives",
    "MACs of the prefill, G",
    "cache, kB",
    "ms a document",
)


def comparison_section(title: str, rows: Sequence[Row]) -> Section:
    """A task of a comparison.

    Parameters
    ----------
    title
        Heading.
    rows
        Of the task, with a result in at least one.
    """
    pictures = [score_picture(title, rows), *layer_pictures(title, rows)]
    return Section(title, "\n\n".join(filter(None, (task_table(rows), NOTES))), list(filter(None, pictures)))


def score_picture(title: str, rows: Sequence[Row]) -> Picture | None:
    """Scores against tokens, MACs, cache bytes and time: a line for each method and counter.

    Parameters
    ----------
    title
        Of the picture.
    rows
        Of one task. Methods in a setting of their own are a point without a line.
    """
    done = [row for row in rows if not row.reason]
    scale = score_scale(done)
    score = done[0].metric + (", %" if scale == 100 else "")
    keys = dict.fromkeys((row.label, row.counter) for row in done if row.label != FULL)
    lines = [
        Line(
            label if counter != "release" else f"{label} (release)",
            [_point(row, score, scale) for row in done if (row.label, row.counter) == (label, counter)],
            {"release": ":", None: "none"}.get(counter, "-"),
        )
        for label, counter in sorted(keys, key=lambda key: [row.label for row in done].index(key[0]))
    ]
    full = [scale * row.value for row in done if row.label == FULL]
    panels = [Panel(name, score) for name in (TOKENS, MACS, CACHE, TIME)]
    return drawable(Picture(title, panels, lines, {score: full[0]} if full else {}))


def layer_pictures(title: str, rows: Sequence[Row]) -> list[Picture]:
    """Visual tokens that each layer of the decoder receives, a picture for each budget, of runs with such counts."""
    there = [row for row in rows if not row.reason and row.layers]
    full = [row for row in there if row.label == FULL]
    settings = dict.fromkeys(row.setting for row in there if row.label != FULL)
    return [
        Picture(
            f"{title}, {setting}: tokens in each layer",
            [Panel("layer", "visual tokens")],
            [
                Line(
                    row.label,
                    [
                        Point({"layer": Value(layer), "visual tokens": Value(count)})
                        for layer, count in enumerate(row.layers)
                    ],
                )
                for row in [*full, *(row for row in there if row.setting == setting)]
            ],
        )
        for setting in settings
    ]


def _point(row: Row, score: str, scale: int) -> Point:
    costs: Mapping[str, float | None] = {
        TOKENS: row.cost["visual_tokens"],
        MACS: row.cost["decoder_macs"] / 1e9 or None,
        CACHE: row.cost["kv_bytes"] / 1000 or None,
        TIME: None if row.seconds is None else 1000 * row.seconds,
    }
    values = {name: Value(cost) for name, cost in costs.items() if cost is not None}
    return Point({score: _score(row, scale), **values}, row.setting)


def _score(row: Row, scale: int) -> Value:
    """The score with its standard error, if it is a mean over documents."""
    if row.scores is None or len(row.scores) < 2:
        return Value(scale * row.value)
    mean, stderr = mean_and_stderr(row.scores)
    return Value.of(scale * mean, scale * stderr)
