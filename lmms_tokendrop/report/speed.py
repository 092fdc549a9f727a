"""Sections of what was timed: throughput, memory and training steps of encoders, parts of decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_tokendrop.report.picture import Line, Panel, Picture, Point, Value, drawable
from lmms_tokendrop.report.section import Section
from lmms_tokendrop.results.gpu import RENDERERS, measured_rows
from lmms_tokendrop.results.speed import speed_table
from lmms_tokendrop.results.throughput import throughput_table


def throughput_section(title: str, measured: Mapping[str, Any]) -> Section:
    """Throughput, memory and training steps of encoders, of `lmms-tokendrop bench`."""
    pictures = [
        _bars(f"{title}: throughput", measured.get("throughput", ()), _throughput),
        _memory(f"{title}: peak of the activations", measured.get("memory", ())),
        _bars(f"{title}: training step", measured.get("training_step", ()), _training_step),
    ]
    return Section(title, throughput_table(dict(measured)), list(filter(None, pictures)))


def parts_section(title: str, measured: Mapping[str, Any]) -> Section:
    """Parts of decoders, of `lmms-tokendrop bench`."""
    found: dict[str, dict[str, Value]] = {}
    for row in measured["rows"]:
        milliseconds = _spread({name: 1000 * value for name, value in row["seconds"].items()})
        found.setdefault(row["name"], {})[f"{row['part']} {row['image']}, ms"] = milliseconds
    return Section(title, speed_table(measured), list(filter(None, [_panels(f"{title}: time", found)])))


def gpu_section(title: str, measured: Mapping[str, Any]) -> Section:
    """What `measure_gpu.py` measured."""
    text = "\n\n".join(render(measured) for render in RENDERERS.values())
    found = {
        f"{row['method']} {row['budget'] or 'all'} {row['attention']}": {
            "first token, s": _spread(row["first_token_seconds"]),
            "a token, s": _spread(row["token_seconds"]),
        }
        for row in measured_rows(measured)
        if row["kind"] == "decoder"
    }
    return Section(title, text, list(filter(None, [_panels(f"{title}: batch 1", found)])))


def _bars(title: str, rows: Sequence[Mapping[str, Any]], read: Any) -> Picture | None:
    lines = [Line(row["name"], [Point(read(row))]) for row in rows]
    names = dict.fromkeys(name for line in lines for name in line.points[0].values)
    return drawable(Picture(title, list(map(Panel, names)), lines))


def _throughput(row: Mapping[str, Any]) -> dict[str, Value]:
    spreads = {"examples a second": row["examples_per_second"], "speed-up over full": row.get("speed_up_over_full")}
    return {name: _spread(spread) for name, spread in spreads.items() if spread}


def _training_step(row: Mapping[str, Any]) -> dict[str, Value]:
    return {"seconds a step": _spread(row["step_seconds"]), "speed-up over full": _spread(row["speed_up"])}


def _memory(title: str, rows: Sequence[Mapping[str, Any]]) -> Picture | None:
    """A bar for each variant, a panel for each mode."""
    found: dict[str, dict[str, Value]] = {}
    for row in rows:
        added = (row["peak"] - row["before"]) / 1e6
        found.setdefault(row["name"], {})[f"{row['mode']}, MB"] = Value(added)
    return _panels(title, found)


def _panels(title: str, found: Mapping[str, Mapping[str, Value]]) -> Picture | None:
    """A bar for each name, a panel for each of its values."""
    lines = [Line(name, [Point(values)]) for name, values in found.items()]
    names = dict.fromkeys(name for values in found.values() for name in values)
    return drawable(Picture(title, list(map(Panel, names)), lines))


def _spread(found: Mapping[str, float]) -> Value:
    return Value(found["median"], found["low"], found["high"])
