"""What two results files of ``lmms-tokendrop bench`` differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmms_tokendrop.bench.tables import table
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.markdown import median_and_range

MEASURED = {"rows": "seconds", "throughput": None, "memory": "peak", "training_step": "step_seconds"}
"""Lists of rows, and the figure in each that is compared; throughput has one of two."""

NAMES = ("part", "image", "name", "mode")
IDENTITY = ("machine", "processor", "python", "torch", "transformers", "lmms_tokendrop", "commit")
"""What may differ between two files that are compared: that is why one compares."""


def difference_tables(first: Path, second: Path) -> list[Any]:
    """What was measured differently, and each figure that both files have, with the second over the first.

    Raises
    ------
    ValueError
        If a file is no results file, or if they have no figure in common.
    OSError
        If one can't be read.
    """
    one, other = read_json_object(first), read_json_object(second)
    before, after = (dict(figures(results, path)) for results, path in ((one, first), (other, second)))
    common = [name for name in before if name in after]
    if not common:
        raise ValueError(f"compare: {first} and {second} have no figure in common; allowed: files of the same models")
    cells = [(name, _shown(before[name]), _shown(after[name]), _ratio(before[name], after[name])) for name in common]
    caption = "* the ranges of the two do not meet"
    alone = [
        f"only in {path}: {name}"
        for path, own, others in ((first, before, after), (second, after, before))
        for name in own
        if name not in others
    ]
    return [*settings(one, other), table("", caption, ("", first.name, second.name, "second / first"), cells), *alone]


def settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A line for each thing that was set or found differently."""
    lists = {*MEASURED, "costs", "shares", "stock_attentions_tried"}
    names = [name for name in dict.fromkeys((*IDENTITY, *one, *other)) if name not in lists]
    return [f"{name}: {one.get(name)} / {other.get(name)}" for name in names if one.get(name) != other.get(name)]


def figures(results: Mapping[str, Any], path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Names and spreads of what a file has."""
    try:
        for kind, figure in MEASURED.items():
            for row in results.get(kind, ()):
                name = " ".join(str(row[key]) for key in NAMES if key in row)
                found = row[figure] if figure else row.get("requests_per_second", row.get("examples_per_second"))
                value = found if isinstance(found, dict) else dict.fromkeys(("median", "low", "high"), found)
                unit = {"rows": "s", "throughput": "a second", "memory": "bytes", "training_step": "s"}[kind]
                yield f"{name} ({kind}, {unit})" if kind != "rows" else f"{name} (s)", _checked(value)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what bench writes ({type(error).__name__}: {error})") from error


def _checked(value: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value[name]) for name in ("median", "low", "high")}


def _shown(value: Mapping[str, float]) -> str:
    return median_and_range(value, ".4g") if value["low"] < value["high"] else format(value["median"], ".4g")


def _ratio(one: Mapping[str, float], other: Mapping[str, float]) -> str:
    apart = one["high"] < other["low"] or other["high"] < one["low"]
    return f"{other['median'] / one['median']:.3f}{' *' if apart else ''}"
