"""What every method that takes a count budget leaves and costs at the papers' budgets, in a model of public size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.modeling.core.decoder_options import COUNT_BUDGETS
from lmms_tokendrop.modeling.core.options import COMPOSED
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.plan.decoder_plan import decoder_plan, own_square
from lmms_tokendrop.plan.narrow_model import Counts, NarrowModel, Prompt
from lmms_tokendrop.plan.plans import PREFILL, Request
from lmms_tokendrop.plan.targets import Target, read_target

BUDGETS = {
    "llava-1.5-7b": (192, 128, 64),
    "llava-1.5-13b": (192, 128, 64),
    "llava-v1.6-vicuna-7b": (640, 320, 160),
    "llava-v1.6-vicuna-13b": (640, 320, 160),
}
"""The papers', in visual tokens per image, by model."""

COMPOSITIONS: dict[str, dict[str, Any]] = {
    "visionzip, then mustdrop": {"vision": "visionzip", "decoder": "mustdrop", "decode": "mustdrop"},
}
"""Compositions that have rows, by their label."""


def contenders(target: Target) -> dict[str, dict[str, Any]]:
    """Options without a budget, by label."""
    known = reductions(target.architecture.name)
    methods = [name for name in known.reducers if name not in (UNREDUCED, COMPOSED)]
    budgeted = [name for name in methods if known.options_of(name).entries().keys() >= COUNT_BUDGETS]
    return {**{name: {"method": name, **known.options_of(name).required} for name in budgeted}, **COMPOSITIONS}


def counts(target: Target, reduction: Mapping[str, Any]) -> Counts:
    """What a reduction leaves of one square image; a ValueError if a budget can't be reached."""
    square = own_square(target.config())
    return NarrowModel(target, dict(reduction)).counts(Prompt((square,)))


def costs(target: Target, found: Counts) -> dict[str, float]:
    """Averages by both counters, and what the decoder's prefill costs for the visual tokens alone.

    Parameters
    ----------
    target
        The model.
    found
        What a reduction leaves.

    Returns
    -------
    dict
        `input` and `release`, average tokens; `macs` of all layers, attention in full; `kv_bytes` in float16.
    """
    plan = decoder_plan(target.config(), {}, found, 0, Request(new_tokens=0))
    return {
        "input": plan.average_input,
        "release": plan.average_release,
        "macs": plan.macs[PREFILL].full,
        "kv_bytes": plan.visual_kv_bytes,
    }


def planned_costs(name: str) -> dict[str, Any]:
    """Counts and costs of a model.

    Parameters
    ----------
    name
        One of `BUDGETS`.

    Returns
    -------
    dict
        `patches` of a square image; `unreduced`, costs of these in every layer, as papers count, and `stock`, with
        newlines; and `rows`, each with `method`, `budget`, `counter`, and either `costs` or why it is `not_reachable`.
        Methods that drop before the decoder only have one row for both counters.
    """
    target = read_target(name)
    stock = counts(target, {"method": UNREDUCED})
    whole = Counts.constant(stock.patches, len(stock.received))
    rows = []
    for budget in BUDGETS[name]:
        for label, options in contenders(target).items():
            first = _row(target, label, options, budget, "input")
            rows.append(first)
            if "costs" not in first or first["costs"]["input"] != first["costs"]["release"]:
                rows.append(_row(target, label, options, budget, "release"))
    return {"patches": stock.patches, "unreduced": costs(target, whole), "stock": costs(target, stock), "rows": rows}


def _row(target: Target, label: str, options: Mapping[str, Any], budget: int, counter: str) -> dict[str, Any]:
    row = {"method": label, "budget": budget, "counter": counter}
    try:
        found = counts(target, {**options, "visual_tokens": budget, "counter": counter})
    except ValueError as error:
        if "smallest" not in str(error):
            raise
        return {**row, "not_reachable": str(error)}
    return {**row, "costs": costs(target, found)}
