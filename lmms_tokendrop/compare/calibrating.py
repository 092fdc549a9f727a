"""Find the value of an option with which a method meets a budget on average, where the data decide what stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from accelerate.utils import broadcast_object_list

from lmms_tokendrop.catalogue import variant, variants
from lmms_tokendrop.compare.evaluating import evaluated
from lmms_tokendrop.compare.plan import budget_option
from lmms_tokendrop.compare.runs import Run, Setting
from lmms_tokendrop.evaluation.bisection import bisected
from lmms_tokendrop.modeling.methods.available import reductions

DOCUMENTS = 100
"""The first so many of the task on which values are found."""

TOLERANCE = 0.02
"""How near an average must come, as a share of what is wanted."""

CONTROL = "uniform"
"""The method whose average is what a budget means, where an architecture has it."""

COUNTS = {"input": "visual_tokens", "release": "visual_tokens_release"}


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Parameters
    ----------
    option, value
        The option, and its value.
    average, target
        Visual tokens with this value, and those that were wanted.
    task, documents
        On what.
    """

    option: str
    value: float
    average: float
    target: float
    task: str
    documents: int


def calibrated(setting: Setting, run: Run, options: Mapping[str, Any]) -> Calibration:
    """Calibrate a run.

    Parameters
    ----------
    setting, run
        What is run.
    options
        Further arguments of :func:`evaluated`.

    Raises
    ------
    UnreachableBudget
        If no value of the option meets the budget.
    """
    there = replace(setting, metric=None)

    def measured(variant_id: str, given: Mapping[str, Any]) -> dict[str, float]:
        tried = replace(run, task=run.calibrate_on, variant=variant_id, options=given)
        result = evaluated(there, tried, limit=DOCUMENTS, **options)
        [cost] = broadcast_object_list([result and result.cost])
        return cost

    def average(value: float) -> float:
        return measured(run.variant, {**run.options, run.calibrates: value})[COUNTS[run.counter]]

    target = _target(setting, run, measured)
    entry = reductions(setting.architecture).entry(variant(run.variant).method, run.calibrates)
    value, found = bisected(
        average,
        target,
        TOLERANCE * target,
        run.calibrates,
        low=entry.metadata["low"],
        high=entry.metadata["high"],
        whole=entry.type in (int, int | None),
    )
    return Calibration(run.calibrates, value, found, target, run.calibrate_on, DOCUMENTS)


def _target(setting: Setting, run: Run, measured: Callable[[str, Mapping[str, Any]], dict[str, float]]) -> float:
    """The average that a budget means on the documents: that of the control; without one, of all visual tokens."""
    known = {entry.method: entry.model_id for entry in variants(architecture=setting.architecture)}
    [(name, number)] = budget_option(run.budget).items()
    if CONTROL in known:
        return measured(known[CONTROL], {name: number, "counter": run.counter})[COUNTS[run.counter]]
    return number if name == "visual_tokens" else number * measured(known["none"], {})["full_visual_tokens"]
