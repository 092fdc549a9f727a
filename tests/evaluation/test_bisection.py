"""The value of an option is found by which an average meets a budget."""

import pytest

from lmms_tokendrop.evaluation.bisection import bisected
from lmms_tokendrop.modeling.core.budget import UnreachableBudget


@pytest.mark.parametrize(
    ("average", "low", "high", "whole", "value"),
    [
        (lambda value: 100 * value, 0, 1, False, 0.25),
        (lambda value: 100 * (1 - value), 0, 1, False, 0.75),
        (lambda value: 100 - 30000 * value, 0, 1, False, 0.0025),
        (lambda value: 100 - value, 1, None, True, 75),
        (lambda value: value / 8, 0, None, False, 200),
        (lambda value: 25.0, 0, 1, False, 0),
        (lambda value: 25.4 + value, 0, 1, False, 0),
    ],
)
def test_a_rising_or_falling_average_meets_a_budget(average, low, high, whole, value):
    found, met = bisected(average, 25.0, 0.5, "r", low=low, high=high, whole=whole)
    assert met == average(found) == pytest.approx(25.0, abs=0.5)
    assert found == pytest.approx(value, rel=0.05)
    assert isinstance(found, int) or not whole


@pytest.mark.parametrize(
    ("average", "high", "message"),
    [
        (lambda value: 50 + value, 9, "budget 25 can't be met: the average is 51.00 with r=1 and 59.00 with 9;"),
        (lambda value: 7.0, None, "budget 25 can't be met: the average is 7.00 with r=512 and 7.00 with 1024;"),
        (lambda value: 100 - 28 * value, 9, "budget 25 can't be met to 0.5: the nearest is 16.00 with r=3; give more"),
    ],
)
def test_a_budget_that_no_value_meets_is_an_error_with_what_comes_near(average, high, message):
    with pytest.raises(UnreachableBudget, match=message):
        bisected(average, 25.0, 0.5, "r", low=1, high=high, whole=True)


def test_steps_that_are_too_large_end():
    with pytest.raises(UnreachableBudget, match=r"budget 55 can't be met to 1: the nearest is .* with r=0;"):
        bisected(lambda value: 100.0 if value < 0.3 else 0.0, 55, 1, "r", low=0.0, high=1.0)
