"""Find the value of an option with which a method meets a budget on average, where the data decide what stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from accelerate.utils import broadcast_object_list

from lmms_tokendrop.catalogue import variant, variants
from lmms_tokendrop.compare.evaluating import evaluated
from lmms_tokendrop.compare.plan import Run, Setting, budget_option
from lmms_tokendrop.modeling.core.budget import UnreachableBudget
from lmms_tokendrop.modeling.methods.available import reductions

DOCUMENTS = 100
"""The first so many of the task on which values are found."""

TOLERANCE = 0.02
"""How near an average must come, as a share of what is wanted."""

MAX_STEPS = 30
LARGEST = 1024
"""Where doubling ends."""

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
    value, found = matching_value(
        average, target, low=entry.metadata["low"], high=entry.metadata["high"], whole=entry.type in (int, int | None)
    )
    return Calibration(run.calibrates, value, found, target, run.calibrate_on, DOCUMENTS)


def _target(setting: Setting, run: Run, measured: Callable[[str, Mapping[str, Any]], dict[str, float]]) -> float:
    """The average that a budget means on the documents: that of the control; without one, of all visual tokens."""
    known = {entry.method: entry.model_id for entry in variants(architecture=setting.architecture)}
    [(name, number)] = budget_option(run.budget).items()
    if CONTROL in known:
        return measured(known[CONTROL], {name: number, "counter": run.counter})[COUNTS[run.counter]]
    return number if name == "visual_tokens" else number * measured(known["none"], {})["full_visual_tokens"]


def matching_value(
    average: Callable[[float], float], target: float, *, low: float, high: float | None, whole: bool
) -> tuple[float, float]:
    """Find where a monotonous function has a value, by bisection.

    Parameters
    ----------
    average
        Of a value of the option; rises or falls with it.
    target
        What it is to be.
    low, high
        Smallest and largest value of the option; without a largest one it is doubled until it is past the target.
    whole
        Whether the option is a whole number.

    Returns
    -------
    tuple of float and float
        The value, and its average, which is within `TOLERANCE` of the target.

    Raises
    ------
    UnreachableBudget
        If there is none; names the nearest.
    """
    tried: dict[float, float] = {}

    def gap(value: float) -> float:
        tried[value] = average(value)
        return tried[value] - target

    end = max(1, 2 * low) if high is None else high
    first, last = gap(low), gap(end)
    while high is None and first * last > 0 and end < LARGEST:
        low, first, end = end, last, 2 * end
        last = gap(end)
    for _ in range(MAX_STEPS):
        nearest = min(tried, key=lambda value: abs(tried[value] - target))
        if abs(tried[nearest] - target) <= TOLERANCE * target:
            return nearest, tried[nearest]
        middle = (low + end) // 2 if whole else (low + end) / 2
        if first * last > 0 or middle in tried:
            break
        if (found := gap(middle)) * first > 0:
            low, first = middle, found
        else:
            end, last = middle, found
    raise UnreachableBudget(
        f"an average of {target:.2f} visual tokens can't be met to {TOLERANCE:.0%}; the nearest is "
        f"{tried[nearest]:.2f}, with {nearest:g}"
    )
