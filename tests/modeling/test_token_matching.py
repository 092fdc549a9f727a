"""Golden numbers and properties of matching and merging."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_tokendrop.modeling.ops.token_ops import (
    bipartite_targets,
    group_sizes,
    merge_groups,
    ordered_indices,
    padded_indices,
    ranks,
)


def at_angles(*degrees: float) -> torch.Tensor:
    """Unit keys `[1, tokens, 2]` at angles; cosine similarity falls with their difference."""
    angles = torch.tensor([math.radians(angle) for angle in degrees])
    return torch.stack([angles.cos(), angles.sin()], dim=-1)[None]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, [0, 1, 2, 3, 4, 5]),
        (1, [0, 1, 2, 3, 3, 5]),  # 4 (at 61) is 1 degree from 3 (at 60); 2 (at 12) is 2 from 1 (at 10)
        (2, [0, 1, 1, 3, 3, 5]),
    ],
)
def test_the_strongest_edges_merge_and_the_first_token_never_does(count, expected):
    keys = at_angles(10.0, 10.0, 12.0, 60.0, 61.0, 120.0)
    assert bipartite_targets(keys, torch.arange(6)[None], torch.tensor([count])).tolist() == [expected]


def test_length_of_keys_does_not_matter_and_several_may_merge_into_one():
    keys = at_angles(0.0, 40.0, 41.0, 90.0, 42.0) * torch.tensor([1.0, 5.0, 0.1, 2.0, 9.0])[None, :, None]
    assert bipartite_targets(keys, torch.arange(5)[None], torch.tensor([2])).tolist() == [[0, 1, 1, 3, 1]]


def test_the_order_decides_the_halves_and_who_is_left_out():
    keys = at_angles(0.0, 0.0, 0.0, 90.0, 90.0, 90.0)
    order = torch.tensor([[5, 4, 0, 2, -1]])
    assert bipartite_targets(keys, order, torch.tensor([1])).tolist() == [[2, 1, 2, 3, 4, 5]]


def test_rows_have_their_own_counts_and_candidates():
    keys = at_angles(10.0, 10.0, 12.0, 60.0, 61.0, 120.0).repeat(3, 1, 1)
    order = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, -1, -1, -1], [3, -1, -1, -1, -1, -1]])
    targets = bipartite_targets(keys, order, torch.tensor([2, 1, 0]))
    assert targets.tolist() == [[0, 1, 1, 3, 3, 5], [0, 1, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert bipartite_targets(keys, order[:, :1], torch.tensor([0, 0, 0])).tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_means_with_and_without_weights():
    values = torch.tensor([[[1.0], [3.0], [11.0], [7.0]]])
    target = torch.tensor([[0, 0, 0, -1]])
    assert merge_groups(values, target)[0, 0].item() == 5
    assert merge_groups(values, target, torch.tensor([[2.0, 1.0, 1.0, 9.0]]))[0, 0].item() == 4
    assert group_sizes(target).tolist() == [[3, 0, 0, 0]]
    assert group_sizes(target, torch.tensor([[2.0, 1.0, 1.0, 9.0]])).tolist() == [[4, 0, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 15), st.integers(0, 15))
def test_merging_preserves_total_size_and_weighted_mean(seed, length, count):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(2, length, 4, generator=generator)
    values = torch.randn(2, length, 3, generator=generator, dtype=torch.float64)
    sizes = torch.randint(1, 5, (2, length), generator=generator).double()
    count = min(count, (length - 1) // 2)
    target = bipartite_targets(keys, torch.arange(length).expand(2, -1), torch.tensor([count, 0]))
    stays = target == torch.arange(length)
    assert stays.sum(-1).tolist() == [length - count, length]
    assert stays[:, 0].all()
    merged, total = merge_groups(values, target, sizes), group_sizes(target, sizes)
    assert torch.equal(total.sum(-1), sizes.sum(-1))
    assert torch.allclose((merged * total.unsqueeze(-1)).sum(1), (values * sizes.unsqueeze(-1)).sum(1))
    assert torch.equal(merged[1], values[1])
    assert torch.equal(target[0][target[0]], target[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_permuting_tokens_permutes_the_matching(seed):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(1, 11, 4, generator=generator)
    shuffle = torch.randperm(11, generator=generator)
    place = shuffle.argsort()
    target = bipartite_targets(keys, torch.arange(11)[None], torch.tensor([4]))
    shuffled = bipartite_targets(keys[:, shuffle], place[None], torch.tensor([4]))
    assert torch.equal(shuffle[shuffled[0][place]], target[0])


def test_order_ranks_and_padding():
    among = torch.tensor([[True, False, True, True], [False, True, False, False]])
    assert ordered_indices(among).tolist() == [[0, 2, 3], [1, -1, -1]]
    scores = torch.tensor([[1.0, 9.0, 3.0, 3.0]]).repeat(2, 1)
    assert ordered_indices(among, scores).tolist() == [[2, 3, 0], [1, -1, -1]]
    assert ranks(scores).tolist() == [[3, 0, 1, 2]] * 2
    index, valid = padded_indices(among, "right")
    assert index.tolist() == [[0, 2, 3], [1, 0, 0]]
    assert valid.tolist() == [[True] * 3, [True, False, False]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_of_a_large_group_is_exact_in_half_precision(dtype, weighted):
    values = (torch.randn(1, 577, 8) * 8 + 500).to(dtype)  # 577 of them sum to more than float16 holds
    target = torch.tensor([[0] * 576 + [576]])
    sizes = torch.arange(1.0, 578.0)[None] if weighted else torch.ones(1, 577)
    weights = sizes[:, :576, None].double()
    expected = (values[:, :576].double() * weights).sum(1) / weights.sum(1)
    merged = merge_groups(values, target, sizes if weighted else None)
    assert merged.dtype == dtype
    assert torch.equal(merged[:, 0], expected.to(dtype))
    assert torch.equal(merged[:, 576], values[:, 576])
