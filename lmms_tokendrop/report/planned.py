"""Sections of what was worked out without weights, and of what papers publish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmms_tokendrop.report.picture import Line, Panel, Picture, Point, Value, drawable
from lmms_tokendrop.report.section import Section
from lmms_tokendrop.results.planned import planned_rows
from lmms_tokendrop.results.published import published_costs, published_table

TOKENS, MACS, CACHE = "visual tokens that a layer receives", "MACs of the prefill, T", "cache, MB"


def planned_sections(title: str, found: Mapping[str, Any]) -> list[Section]:
    """Planned costs of `scripts/plan_real_models.py`, a section for each model."""
    return [_model(f"{title}, {model}", planned) for model, planned in found.items()]


def _model(title: str, planned: Mapping[str, Any]) -> Section:
    methods: dict[str, list[Point]] = {}
    for row in planned["rows"]:
        if "costs" in row:
            point = Point(_costs(row["costs"]), f"{row['budget']}, {row['counter']}")
            methods.setdefault(row["method"], []).append(point)
    lines = [Line(method, points, "none") for method, points in methods.items()]
    picture = drawable(Picture(title, [Panel(TOKENS, MACS), Panel(TOKENS, CACHE)], lines))
    return Section(title, planned_rows(planned), [] if picture is None else [picture])


def _costs(cost: Mapping[str, float]) -> dict[str, Value]:
    return {
        TOKENS: Value(cost["input"]),
        MACS: Value(cost["macs"] / 1e12),
        CACHE: Value(cost["kv_bytes"] / 1e6),
    }


def published_sections(path: Path, found: Mapping[str, Any]) -> list[Section]:
    """Published costs and scores, beside those planned or measured in the same folder."""
    scores = [
        Section(f"Published scores of {model}", published_table(model)(path.parent)) for model in found["accuracy"]
    ]
    return [Section("Published costs", published_costs(path.parent)), *scores]
