"""Tables of `scripts/plan_real_models.py`: what methods leave and cost in models of public sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmms_tokendrop.markdown import code, markdown_table, number
from lmms_tokendrop.results.measured import measured_table

FILE = "planned_costs.json"
HEADER = (
    "budget",
    "counter",
    "method",
    "tokens (input)",
    "tokens (release)",
    "MACs, T",
    "of unreduced",
    "KV, MB",
    "of unreduced",
)


def planned_table(model: str) -> Callable[[Path], str]:
    """:func:`planned_rows` of a model, from the folder of the results files."""
    return measured_table(FILE, lambda found: planned_rows(found[model]))


def planned_rows(planned: Mapping[str, Any]) -> str:
    """Every method at every budget, in Markdown.

    Parameters
    ----------
    planned
        What the file holds of one model.
    """
    unreduced, stock = planned["unreduced"], planned["stock"]
    lines = [("all", "", "unreduced", *_cost(unreduced, unreduced))]
    if stock != unreduced:
        lines.append(("all", "", "unreduced, with newlines", *_cost(stock, unreduced)))
    for row in planned["rows"]:
        first = (number(row["budget"], "d"), row["counter"], code(row["method"]))
        cost = row.get("costs")
        lines.append((*first, "not reachable", *[""] * 5) if cost is None else (*first, *_cost(cost, unreduced)))
    return markdown_table(HEADER, lines)


def figures(cost: Mapping[str, float], unreduced: Mapping[str, float]) -> dict[str, float]:
    """What papers state of a cost: shares in percent, bytes in MB, `by_average` as if all layers held the average.

    Parameters
    ----------
    cost, unreduced
        Of `lmms_tokendrop.plan.planned_costs`.
    """
    tokens, macs = cost["release"] / unreduced["release"], cost["macs"] / unreduced["macs"]
    whole, held = unreduced["kv_bytes"] / 1e6, cost["kv_bytes"] / 1e6
    return {
        "tokens_saved": 100 * (1 - tokens),
        "received_saved": 100 * (1 - cost["input"] / unreduced["input"]),
        "macs_left": 100 * macs,
        "macs_saved": 100 * (1 - macs),
        "kv": held,
        "kv_saved": whole - held,
        "kv_by_average": whole * tokens,
        "kv_saved_by_average": whole * (1 - tokens),
    }


def _cost(cost: Mapping[str, float], unreduced: Mapping[str, float]) -> tuple[str, ...]:
    found = figures(cost, unreduced)
    return (
        number(cost["input"], ".1f"),
        number(cost["release"], ".1f"),
        number(cost["macs"] / 1e12, ".2f"),
        f"{number(found['macs_left'], '.1f')} %",
        number(found["kv"], ".1f"),
        f"{number(100 * cost['kv_bytes'] / unreduced['kv_bytes'], '.1f')} %",
    )
