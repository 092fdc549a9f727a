"""Find the value of an option by which an average number of visual tokens meets a budget."""

from __future__ import annotations

from collections.abc import Callable

from lmms_tokendrop.modeling.core.budget import UnreachableBudget

MAX_STEPS = 40
LARGEST = 1024
"""Where doubling ends."""


def bisected(
    average: Callable[[float], float],
    budget: float,
    tolerance: float,
    name: str,
    *,
    low: float,
    high: float | None,
    whole: bool = False,
) -> tuple[float, float]:
    """Find the value at which a monotonous function meets a budget.

    Parameters
    ----------
    average
        Mean visual tokens at a value of the option; falls or rises with it.
    budget
        Mean to meet.
    tolerance
        Difference that is good enough.
    name
        Of the option, for errors.
    low, high
        Smallest and largest value; without a largest one it is doubled until it is past the budget.
    whole
        Whether the option is a whole number.

    Returns
    -------
    tuple of float and float
        The value and its mean.

    Raises
    ------
    UnreachableBudget
        If no value meets the budget; names what comes near.
    """
    tried: dict[float, float] = {}

    def gap(value: float) -> float:
        tried[value] = average(value)
        return tried[value] - budget

    def nearest() -> float:
        return min(tried, key=lambda value: abs(tried[value] - budget))

    end = max(1, 2 * low) if high is None else high
    first, last = gap(low), gap(end)
    while high is None and first * last > 0 and end < LARGEST:
        low, first, end = end, last, 2 * end
        last = gap(end)
    if first * last > 0 and abs(tried[nearest()] - budget) > tolerance:
        raise UnreachableBudget(
            f"budget {budget:g} can't be met: the average is {tried[low]:.2f} with {name}={low:g} and "
            f"{tried[end]:.2f} with {end:g}; the method's other options, and the layers before the first drop, set the "
            "rest"
        )
    while abs(tried[nearest()] - budget) > tolerance:
        middle = (low + end) // 2 if whole else (low + end) / 2
        if middle in tried or len(tried) > MAX_STEPS:
            raise UnreachableBudget(
                f"budget {budget:g} can't be met to {tolerance:g}: the nearest is {tried[nearest()]:.2f} with "
                f"{name}={nearest():g}; give more samples or a larger tolerance"
            )
        if (found := gap(middle)) * first > 0:
            low, first = middle, found
        else:
            end = middle
    return nearest(), tried[nearest()]
