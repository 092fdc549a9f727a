"""Recycling of dropped tokens: how many clusters, which centres, who joins, and what comes back."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop.modeling.methods.token_recycling import (
    cluster_counts,
    kept_of_total,
    nearest_centres,
    recycled,
    recycled_counts,
    recycled_states,
)

RATIOS = 0.3, 0.1
LINE = [0.0, 0.25, 0.5, 4.0, 4.25]
"""Five tokens of one channel: three near 0, two near 4."""


@pytest.mark.parametrize(
    ("dropped", "number", "clusters"),
    [(276, 83, 9), (109, 33, 4), (94, 29, 3), (110, 34, 4), (10, 4, 1), (2, 1, 1), (1, 1, 1), (0, 0, 0)],
)
def test_numbers_of_recycled_tokens_and_clusters(dropped, number, clusters):
    dropped = torch.tensor([dropped])
    assert recycled_counts(dropped, 0.3).tolist() == [number]
    assert cluster_counts(dropped, *RATIOS).tolist() == [clusters]


@pytest.mark.parametrize("ratios", [RATIOS, (1.0, 0.5), (0.0, 0.0), (0.6, 0.3)])
@pytest.mark.parametrize("least", [1, 3])
def test_what_stays_and_its_clusters_make_the_total(ratios, least):
    """By trying every number of kept tokens; there is none where the least ones and their clusters are too many."""
    for current in (5, 24):
        for total in range(least, current + 1):
            numbers = (torch.tensor([number]) for number in (total, current, least))
            kept = int(kept_of_total(*numbers, *ratios))
            fitting = [
                number
                for number in range(least, current + 1)
                if number + int(cluster_counts(torch.tensor(current - number), *ratios)) == total
            ]
            assert kept == (max(fitting) if fitting else least)


def test_centres_are_density_peaks_and_tokens_join_the_nearest():
    """With two nearest tokens, itself one, all are equally dense: the first is the densest, then 4.0 is farthest."""
    tokens, valid = torch.tensor(LINE).view(1, 5, 1), torch.ones(1, 5, dtype=torch.bool)
    assert nearest_centres(tokens, valid, torch.tensor([2]), cosine=False).tolist() == [[0, 0, 0, 3, 3]]


def test_a_token_far_from_all_others_is_no_centre():
    """8.0 is 6.5 from the next one, at a density of exp(-21)."""
    tokens, valid = torch.tensor([0.0, 1.0, 1.25, 1.5, 8.0]).view(1, 5, 1), torch.ones(1, 5, dtype=torch.bool)
    assert nearest_centres(tokens, valid, torch.tensor([2]), cosine=False).tolist() == [[0, 1, 1, 1, 1]]


@pytest.mark.parametrize(("cosine", "joined"), [(False, 0), (True, 2)])
def test_the_paper_joins_by_direction_and_the_release_by_distance(cosine, joined):
    tokens = torch.tensor([[[1.0, 0.0], [0.5, 0.9], [0.0, 10.0], [0.0, 10.25]]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert nearest_centres(tokens, valid, torch.tensor([2]), cosine).tolist() == [[0, joined, 2, 2]]


def laid(groups: list[list[float]]):
    """Row of text, then the tokens of two groups in turn, of which every state is its own score from the left."""
    states = torch.tensor([[9.0, groups[0][0], groups[1][0], groups[0][1], groups[1][1], groups[0][2]]]).unsqueeze(-1)
    return states, torch.tensor([[-1, 0, 1, 0, 1, 0]])


def test_groups_are_clustered_apart():
    states, groups = laid([[0.0, 4.0, 0.25], [0.0, 0.25]])
    scores = torch.zeros(1, 6)
    target = recycled(states, scores, groups, torch.tensor([3, 2]), torch.tensor([1, 1]), cosine=False)
    assert target.tolist() == [[-1, 1, 2, 1, 2, 1]]


def test_the_best_of_the_dropped_tokens_are_recycled():
    states, groups = laid([[0.0, 4.0, 0.25], [0.0, 0.25]])
    scores = torch.tensor([[0.0, 0.2, 0.5, 0.9, 0.1, 0.3]])
    target = recycled(states, scores, groups, torch.tensor([2, 1]), torch.tensor([1, 1]), cosine=False)
    assert target.tolist() == [[-1, -1, 2, 3, -1, 3]]
    nothing = torch.zeros(2, dtype=torch.long)
    assert recycled(states, scores, groups, nothing, nothing, cosine=False).tolist() == [[-1] * 6]


@pytest.mark.parametrize(("summed", "expected"), [(False, [0.25, 4.125]), (True, [0.75, 8.25])])
def test_a_cluster_comes_back_as_its_mean_or_as_its_sum(summed, expected):
    target = torch.tensor([[0, 0, 0, 3, 3]])
    states = recycled_states(torch.tensor(LINE).view(1, 5, 1), target, summed)
    assert states[0, [0, 3], 0].tolist() == expected


@pytest.mark.parametrize("cosine", [False, True])
def test_a_group_does_not_depend_on_the_others(cosine):
    generator = torch.Generator().manual_seed(3)
    sizes, clusters = [12, 5, 9], torch.tensor([3, 1, 2])
    tokens = torch.randn(3, 12, 4, generator=generator)
    valid = torch.arange(12) < torch.tensor(sizes).unsqueeze(-1)
    together = nearest_centres(tokens, valid, clusters, cosine)
    for number, size in enumerate(sizes):
        own = slice(number, number + 1)
        alone = nearest_centres(tokens[own, :size], valid[own, :size], clusters[own], cosine)
        assert together[number, :size].tolist() == alone[0].tolist()
        assert len(set(alone[0].tolist())) == clusters[number]
