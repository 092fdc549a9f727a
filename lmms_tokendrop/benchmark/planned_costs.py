"""What every method that takes a count budget leaves and costs at the papers' budgets, in a model of public size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmms_tokendrop.benchmark.real_models import Counts, RealModel
from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.modeling.core.decoder_options import COUNT_BUDGETS
from lmms_tokendrop.modeling.core.options import COMPOSED
from lmms_tokendrop.modeling.methods.available import reductions

COMPOSITIONS: dict[str, dict[str, Any]] = {
    "visionzip, then mustdrop": {"vision": "visionzip", "decoder": "mustdrop", "decode": "mustdrop"},
}
"""Compositions that have rows, by their label."""


def contenders(model: RealModel) -> dict[str, dict[str, Any]]:
    """Options without a budget, by label."""
    known = reductions(model.architecture)
    methods = [name for name in known.reducers if name not in (UNREDUCED, COMPOSED)]
    budgeted = [name for name in methods if known.options_of(name).entries().keys() >= COUNT_BUDGETS]
    return {**{name: {"method": name} for name in budgeted}, **COMPOSITIONS}


def planned_costs(model: RealModel) -> dict[str, Any]:
    """Counts and costs of a model.

    Parameters
    ----------
    model
        Its size.

    Returns
    -------
    dict
        `patches` of a square image; `unreduced`, costs of these in every layer, as papers count, and `stock`, with
        newlines; and `rows`, each with `method`, `budget`, `counter`, and either `costs` or why it is `not_reachable`.
        Methods that drop before the decoder only have one row for both counters.
    """
    layers = model.decoder["num_hidden_layers"]
    whole = Counts(model.patches, (model.patches,) * layers, float(model.patches), (model.patches,) * layers)
    rows = []
    for budget in model.budgets:
        for label, options in contenders(model).items():
            first = _row(model, label, options, budget, "input")
            rows.append(first)
            if "costs" not in first or first["costs"]["input"] != first["costs"]["release"]:
                rows.append(_row(model, label, options, budget, "release"))
    stock = model.costs(model.counts({"method": UNREDUCED}))
    return {"patches": model.patches, "unreduced": model.costs(whole), "stock": stock, "rows": rows}


def _row(model: RealModel, label: str, options: Mapping[str, Any], budget: int, counter: str) -> dict[str, Any]:
    row = {"method": label, "budget": budget, "counter": counter}
    try:
        counts = model.counts({**options, "visual_tokens": budget, "counter": counter})
    except ValueError as error:
        if "smallest" not in str(error):
            raise
        return {**row, "not_reachable": str(error)}
    return {**row, "costs": model.costs(counts)}
