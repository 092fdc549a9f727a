"""The planner: counts per stage, averages, floors."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.budget import Budget, unreachable
from lmms_tokendrop.modeling.core.drop_layers import drop_layers
from lmms_tokendrop.modeling.methods.mustdrop import PAPER_LAYERS
from lmms_tokendrop.modeling.ops.selecting import fit_counts


def run_plan(budget: Budget, full: int, after_merging: int, least: int, layers, num_layers: int, fit=None):
    """Counts that each layer receives, and counts after each layer's drop, when every stage does as planned."""
    received, released, current = [], [], after_merging
    if layers[0] == -1:
        current = ask(budget, full, received, current, least, layers, num_layers)
        current = fit(current) if fit else current
    for layer in range(num_layers):
        received.append(current)
        if layer in layers:
            current = ask(budget, full, received, current, least, layers, num_layers)
            current = fit(current) if fit else current
        released.append(current)
    return received, released


def ask(budget, full, received, current, least, layers, num_layers) -> int:
    as_group = torch.tensor
    processed = [as_group([count]) for count in received]
    count = budget.next_count(as_group([full]), processed, as_group([current]), as_group([least]), layers, num_layers)
    return int(count)


def test_thirty_two_layers_at_a_ninth_by_hand():
    # layers 0 to 2 receive 576; the rest of the budget, 64 * 32 - 3 * 576 = 320, goes to 29 layers
    received, _ = run_plan(Budget(64, None, "image", "input"), 576, 576, 1, (2, 6, 10, 14), 32)
    assert received[:3] == [576] * 3
    assert sum(received) == pytest.approx(64 * 32, abs=32)
    stages = [received[3], received[7], received[11], received[15]]
    assert stages == sorted(stages, reverse=True)


def test_counts_fall_geometrically():
    received, _ = run_plan(Budget(300, None, "image", "input"), 576, 576, 1, (2, 6, 10, 14), 32)
    stages = [received[0], received[3], received[7], received[11]]
    factors = [after / before for before, after in pairwise(stages)]
    assert max(factors) - min(factors) < 0.01


def test_the_last_stage_takes_the_remainder():
    budget = Budget(50, None, "image", "input")
    received, _ = run_plan(budget, 100, 100, 1, (1, 3), 10, fit=lambda count: count - 1)
    unshifted, _ = run_plan(budget, 100, 100, 1, (1, 3), 10)
    assert received[2] == unshifted[2] - 1
    assert received[-1] + 1 >= unshifted[-1]
    assert sum(received) / 10 == pytest.approx(50, abs=1)


def test_a_ratio_is_a_share_of_the_unreduced_count():
    assert Budget(None, 0.25, "image", "input").target(torch.tensor([100, 8])).tolist() == [25.0, 2.0]


def test_a_budget_is_never_above_the_unreduced_count():
    assert Budget(500, None, "image", "input").target(torch.tensor([100, 800])).tolist() == [100.0, 500.0]


def test_a_budget_above_what_merging_left_drops_nothing():
    received, _ = run_plan(Budget(90, None, "image", "input"), 100, 80, 1, (0, 1), 4)
    assert received == [80] * 4


@pytest.mark.parametrize(("counter", "early"), [("input", 3), ("release", 2)])
def test_the_counters_credit_the_layer_before_a_drop_differently(counter, early):
    budget = Budget(64, None, "image", counter)
    assert budget.weights((2, 6, 10, 14), 32) == [early, 4, 4, 4, 32 - early - 12]


@pytest.mark.parametrize(("counter", "weights"), [("input", [0, 3, 3, 2]), ("release", [0, 2, 3, 3])])
def test_layers_behind_a_drop_before_the_first_one_are_credited_once(counter, weights):
    budget = Budget(20, None, "image", counter)
    assert budget.weights((-1, 2, 5), 8) == weights
    received, released = run_plan(budget, 100, 100, 1, (-1, 2, 5), 8)
    assert sum(received if counter == "input" else released) / 8 == pytest.approx(20, abs=0.5)


def test_without_a_drop_the_floor_is_what_there_is():
    assert Budget(20, None, "image", "input").floor(torch.tensor([64]), torch.tensor([1]), (), 4).tolist() == [64.0]


@pytest.mark.parametrize("counter", ["input", "release"])
def test_a_drop_before_the_first_layer_is_credited_to_all_layers(counter):
    budget = Budget(20, None, "image", counter)
    received, released = run_plan(budget, 100, 100, 1, (-1,), 4)
    assert received == released == [20] * 4
    assert budget.floor(torch.tensor([100]), torch.tensor([1]), (-1,), 4).tolist() == [1.0]


def test_the_floor_by_hand():
    floor = Budget(1, None, "image", "input").floor(torch.tensor([64]), torch.tensor([1]), (2, 6, 10, 14), 32)
    assert floor.item() == pytest.approx((3 * 64 + 29 * 1) / 32)
    release = Budget(1, None, "image", "release").floor(torch.tensor([64]), torch.tensor([1]), (2, 6, 10, 14), 32)
    assert release.item() == pytest.approx((2 * 64 + 30 * 1) / 32)


@pytest.mark.parametrize("counter", ["input", "release"])
def test_an_unreachable_budget_names_a_floor_that_is_reachable(counter):
    with pytest.raises(ValueError, match=r"visual_tokens.*smallest reachable average is (\d+\.\d+)") as caught:
        run_plan(Budget(10, None, "image", counter), 576, 576, 1, (2, 6, 10, 14), 32)
    floor = Budget(10, None, "image", counter).floor(torch.tensor([576]), torch.tensor([1]), (2, 6, 10, 14), 32).item()
    assert f"{floor:.2f}" in str(caught.value)
    received, released = run_plan(Budget(floor + 1e-6, None, "image", counter), 576, 576, 1, (2, 6, 10, 14), 32)
    counted = received if counter == "input" else released
    assert sum(counted) / 32 == pytest.approx(floor, abs=1e-3)


def test_the_error_of_a_ratio_names_keep_ratio():
    with pytest.raises(ValueError, match="keep_ratio"):
        run_plan(Budget(None, 0.01, "image", "input"), 576, 576, 1, (2, 6, 10, 14), 32)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"method": "mustdrop"}, "Allow more tokens, or lower layers, or lower key_ratio."),
        ({"method": "fastv"}, "Allow more tokens, or lower K."),
        ({"method": "divprune"}, "Allow more tokens."),
        ({"features": "uniform", "decoder": "pyramiddrop"}, "Allow more tokens, or lower pyramiddrop.layers."),
    ],
)
def test_the_error_names_options_that_the_method_has(options, hint):
    budget = TokenReductionConfig.from_dict({**options, "visual_tokens": 10}).budget()
    assert str(unreachable(torch.tensor([10.0]), torch.tensor([36.0]), budget)).endswith(f"36.00. {hint}")


plans = st.tuples(
    st.integers(5, 48),  # decoder layers
    st.integers(9, 3000),  # unreduced tokens
    st.floats(0.3, 1.0),  # share left by merging
    st.floats(0.02, 1.0),  # keep_ratio
    st.sampled_from(["input", "release"]),
)


@settings(max_examples=150)
@given(plans)
def test_planned_averages_meet_the_budget_to_less_than_one_token(plan):
    num_layers, full, merged, ratio, counter = plan
    layers = drop_layers(None, num_layers, PAPER_LAYERS)
    budget = Budget(None, ratio, "image", counter)
    after_merging = max(int(full * merged), 1)
    target = min(full * ratio, full)
    floor = budget.floor(torch.tensor([after_merging]), torch.tensor([1]), layers, num_layers).item()
    assume(target >= floor)
    received, released = run_plan(budget, full, after_merging, 1, layers, num_layers)
    average = sum(received if counter == "input" else released) / num_layers
    assert abs(average - min(target, after_merging)) < 1


@settings(max_examples=60)
@given(plans, st.randoms(use_true_random=False))
def test_averages_hold_with_newlines_that_leave_a_stage_short(plan, random):
    num_layers, _, _, ratio, counter = plan
    full_lines = [row for row in range(6) for _ in range(6)] + [-1] * 36
    state = {"lines": full_lines}
    budget = Budget(None, ratio, "image", counter)
    layers = drop_layers(None, num_layers, PAPER_LAYERS)
    full = 72 + 6
    floor = budget.floor(torch.tensor([full]), torch.tensor([1]), layers, num_layers).item()
    assume(full * ratio >= floor)

    def fit(count: int) -> int:
        lines = state["lines"]
        priority = torch.tensor([random.random() for _ in lines])
        marks = fit_counts(priority, torch.zeros(len(lines)).long(), torch.tensor(lines), torch.tensor([count]))
        state["lines"] = [line for line, stays in zip(lines, marks.tolist(), strict=True) if stays]
        return len(state["lines"]) + len(set(state["lines"]) - {-1})

    received, released = run_plan(budget, full, full, 1, layers, num_layers, fit=fit)
    average = sum(received if counter == "input" else released) / num_layers
    assert abs(average - full * ratio) < 1
