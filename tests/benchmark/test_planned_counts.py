"""The planner at the papers' budgets."""

from __future__ import annotations

import pytest
from budget_goldens import GOLDENS, SMALLEST

from lmms_tokendrop.benchmark.planned_counts import PlannedCounts, planned_counts


@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_planned_counts_are_the_rule_s(golden):
    planned = planned_counts(
        golden.reduction, golden.layers, golden.rows, similar=golden.similar, in_turn=golden.in_turn
    )
    assert planned == PlannedCounts(golden.forced, golden.after_merging, golden.keys, golden.stages)


@pytest.mark.parametrize(("layers", "counter", "smallest"), SMALLEST)
def test_what_can_t_be_reached_names_the_smallest_average(layers, counter, smallest):
    with pytest.raises(ValueError, match=rf"smallest reachable average is {smallest}"):
        planned_counts({"visual_tokens": 40, "counter": counter}, layers)


@pytest.mark.parametrize("text_ratio", [0.0, 1.0])
def test_room_for_the_text_never_takes_the_tokens_below_the_budget(text_ratio):
    planned = planned_counts({"visual_tokens": 640, "key_ratio": 1.0, "text_ratio": text_ratio}, 32)
    assert planned == PlannedCounts(280, 640, 640, (640, 640, 640, 640))
