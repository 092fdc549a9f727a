"""Golden numbers of the pure tensor functions."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_tokendrop.modeling.ops.selecting import fit_counts, rank_in_groups, segment_sum
from lmms_tokendrop.modeling.ops.token_ops import merge_groups, padded_indices, take_tokens
from lmms_tokendrop.modeling.ops.windows import (
    window_cells,
    window_order,
    window_similarity,
    window_slots,
    window_targets,
)


def merge_windows(tokens, windows, alive, merged):
    """The tokens with merged windows in their slots, and which cells stay."""
    target = window_targets(windows, alive, merged)
    return merge_groups(tokens, target), target == torch.arange(target.shape[1])


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 5), (3, 3), (5, 3)])
def test_windows_of_a_grid_of_one_window_per_band_leave_the_rest_out(height, width):
    assert window_cells(height, width)[0].tolist() == [row * width + column for row in range(3) for column in range(3)]
    assert len(window_cells(height, width)) == 1


def test_windows_tile_a_grid_of_six():
    windows = window_cells(6, 6)
    assert windows[1].tolist() == [3, 4, 5, 9, 10, 11, 15, 16, 17]
    assert windows.flatten().sort().values.tolist() == list(range(36))


def test_a_grid_smaller_than_a_window_has_none():
    assert window_cells(2, 5).shape == (0, 9)


def test_similarity_is_the_mean_over_pairs():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    alive = torch.ones(1, 3, dtype=torch.bool)
    assert window_similarity(tokens, alive).item() == pytest.approx((0 + 2 * 0.5**0.5) / 3, abs=1e-6)


def test_similarity_leaves_out_members_that_are_not_alive():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    assert window_similarity(tokens, torch.tensor([[True, False, True]])).item() == pytest.approx(0.5**0.5, abs=1e-6)


@pytest.mark.parametrize("alive", [[False, False, False], [True, False, False]])
def test_similarity_of_fewer_than_two_members_is_minus_infinity(alive):
    assert window_similarity(torch.randn(1, 3, 2), torch.tensor([alive])).item() == float("-inf")


def test_a_merged_window_puts_its_mean_into_the_centre():
    tokens = torch.arange(9.0).view(1, 9, 1) ** 2
    merged, present = merge_windows(
        tokens, window_cells(3, 3), torch.ones(1, 9, dtype=torch.bool), torch.ones(1, 1) > 0
    )
    assert present.tolist() == [[False] * 4 + [True] + [False] * 4]
    assert merged[0, 4].item() == pytest.approx(204 / 9)


def test_members_that_are_cut_are_left_out_of_the_mean():
    tokens = torch.arange(9.0).view(1, 9, 1)
    alive = torch.tensor([[False] * 3 + [True] * 6])
    merged, present = merge_windows(tokens, window_cells(3, 3), alive, torch.ones(1, 1) > 0)
    assert present.nonzero().tolist() == [[0, 4]]
    assert merged[0, 4].item() == pytest.approx((3 + 4 + 5 + 6 + 7 + 8) / 6)


def test_the_slot_is_the_first_member_left_where_the_centre_is_cut():
    alive = torch.tensor([[False] * 6 + [True] * 3])
    assert window_slots(window_cells(3, 3), alive).tolist() == [[6]]
    merged, present = merge_windows(torch.arange(9.0).view(1, 9, 1), window_cells(3, 3), alive, torch.ones(1, 1) > 0)
    assert present.nonzero().tolist() == [[0, 6]]
    assert merged[0, 6].item() == pytest.approx(7.0)


def test_merging_nothing_changes_nothing():
    tokens = torch.randn(2, 36, 4)
    alive = torch.ones(2, 36, dtype=torch.bool)
    merged, present = merge_windows(tokens, window_cells(6, 6), alive, torch.zeros(2, 4, dtype=torch.bool))
    assert torch.equal(merged, tokens)
    assert bool(present.all())


def test_merging_keeps_total_size_and_the_size_weighted_mean():
    tokens = torch.randn(1, 36, 4, dtype=torch.float64)
    alive = torch.ones(1, 36, dtype=torch.bool)
    choice = torch.tensor([[True, False, False, True]])
    merged, present = merge_windows(tokens, window_cells(6, 6), alive, choice)
    size = torch.ones(1, 36, dtype=torch.float64)
    size[0, [7, 28]] = 9
    size = size * present
    assert size.sum().item() == 36
    torch.testing.assert_close((merged * size.unsqueeze(-1)).sum(1), tokens.sum(1))


def test_the_order_puts_merged_windows_first_by_falling_similarity():
    alive = torch.ones(1, 36, dtype=torch.bool)
    windows = window_cells(6, 6)
    choice = torch.tensor([[True, False, True, False]])
    target = window_targets(windows, alive, choice)
    similarity = torch.tensor([[0.85, 0.1, 0.95, 0.2]])
    order = window_order(window_slots(windows, alive), choice, similarity, target)[0].argsort(stable=True).tolist()
    rest = [3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23, 27, 28, 29, 33, 34, 35]
    assert order[:20] == [25, 7, *rest]
    assert sorted(order) == list(range(36))


def test_padded_indices_are_ascending_and_padded_on_the_left():
    keep = torch.tensor([[True, False, True, True], [False, False, False, True]])
    index, valid = padded_indices(keep, "left")
    assert index.tolist() == [[0, 2, 3], [0, 0, 3]]
    assert valid.tolist() == [[True, True, True], [False, False, True]]


def test_leading_entries_come_before_padding_on_the_left():
    keep = torch.tensor([[True, False, True, True], [True, False, False, True]])
    index, valid = padded_indices(keep, "left", leading=1)
    assert index.tolist() == [[0, 2, 3], [0, 0, 3]]
    assert valid.tolist() == [[True, True, True], [True, False, True]]


def test_segment_sum_leaves_out_segment_minus_one():
    assert segment_sum(torch.tensor([1, 2, 4, 8]), torch.tensor([0, -1, 2, 0]), 3).tolist() == [9, 0, 4]


def test_rank_orders_by_group_then_priority_then_place():
    order = rank_in_groups(torch.tensor([1.0, 5.0, 5.0, 2.0, 9.0]), torch.tensor([1, 0, 0, 1, 1]))
    assert order.tolist() == [1, 2, 4, 3, 0]


def chosen(priority, groups, lines, counts) -> list[int]:
    marks = fit_counts(torch.tensor(priority), torch.tensor(groups), torch.tensor(lines), torch.tensor(counts))
    return marks.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [3]), (2, [0]), (3, [0, 1]), (4, [0, 1, 3]), (5, [0, 1, 2]), (6, [0, 1, 2, 3]), (7, [0, 1, 2, 3, 4])],
)
def test_a_newline_costs_one_token(count, expected):
    # by priority: two entries of line 0, one of line 1, one without a line, another of line 1
    assert chosen([5.0, 4.0, 3.0, 2.0, 1.0], [0] * 5, [0, 0, 1, -1, 1], [count]) == expected


def test_without_lines_the_highest_priorities_stay():
    assert chosen([1.0, 3.0, 2.0, 5.0], [0] * 4, [-1] * 4, [2]) == [1, 3]


def test_a_second_token_of_a_line_is_swapped_for_a_new_line_where_one_token_is_missing():
    assert chosen([3.0, 2.0, 1.0], [0] * 3, [0, 0, 1], [4]) == [0, 2]


def test_groups_are_fitted_apart():
    priority, groups = [1.0, 2.0, 3.0, 4.0, 5.0], [0, 1, 0, 1, 0]
    assert chosen(priority, groups, [-1] * 5, [2, 1]) == [2, 3, 4]


def test_a_count_above_the_total_keeps_everything():
    assert chosen([1.0, 2.0], [0, 0], [0, 1], [99]) == [0, 1]


def test_no_entries_are_no_choice():
    nothing = torch.zeros(0)
    assert len(fit_counts(nothing, nothing.long(), nothing.long(), torch.tensor([3]))) == 0


def cost_of(entries, lines) -> int:
    return len(entries) + len({lines[entry] for entry in entries} - {-1})


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 20)), min_size=1, max_size=8),
    st.integers(1, 16),
)
def test_a_group_meets_its_count_or_ends_one_token_off(entries, count):
    lines, priority = [line for line, _ in entries], [float(value) for _, value in entries]
    picked = chosen(priority, [0] * len(entries), lines, [count])
    everything = cost_of(range(len(entries)), lines)
    spent = cost_of(picked, lines)
    assert picked, "a group never ends empty"
    assert abs(spent - min(count, everything)) <= 1
    if spent != min(count, everything):
        singles = all(line != -1 for line in lines)
        assert singles or len(picked) == len(entries), "an entry without a newline always closes a gap of one"


@settings(max_examples=60)
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=7), st.integers(2, 12))
def test_with_equal_line_sizes_of_two_or_more_every_count_can_be_met(lines, count):
    lines = [line for line in lines for _ in range(2)]
    picked = chosen([float(-number) for number in range(len(lines))], [0] * len(lines), lines, [count])
    reachable = {
        cost_of(subset, lines) for size in range(len(lines) + 1) for subset in combinations(range(len(lines)), size)
    }
    wanted = min(count, max(reachable))
    if wanted in reachable:
        assert cost_of(picked, lines) == wanted


def test_take_tokens_reads_whole_rows_in_any_order():
    values = torch.arange(12.0).view(2, 3, 2)
    assert take_tokens(values, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_of_a_window_is_exact_in_half_precision(dtype):
    tokens = (torch.randn(2, 9, 8) * 50 + 30_000).to(dtype)  # nine of them sum to more than float16 holds
    every = torch.ones(2, 9, dtype=torch.bool)
    merged, _ = merge_windows(tokens, window_cells(3, 3), every, torch.ones(2, 1, dtype=torch.bool))
    assert merged.dtype == dtype
    assert torch.equal(merged[:, 4], tokens.double().mean(1).to(dtype))
